"""The U-Net against diffusers' of the same shape, and its ladder."""

import pytest
import torch
from diffusers import UNet2DModel

from ddpm.config import ConfigError, parse
from ddpm.unet import UNet, UNetConfig

SMALL = {"channels": 32, "multipliers": [1, 2], "attention": [12], "blocks": 2, "dropout": 0.0, "patch": 2}


def config(**changes: object) -> UNetConfig:
    return parse(UNetConfig, {**SMALL, **changes}, "network")


def filled(network: UNet) -> UNet:
    """Random weights everywhere, also where training starts from zeros."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return network


@pytest.mark.parametrize(
    ("multipliers", "size", "ladder"),
    [([1, 2, 3, 4], 48, [48, 24, 12, 6]), ([1, 2, 2], 64, [64, 32, 16]), ([1, 1, 2, 2, 4], 128, [128, 64, 32, 16, 8])],
)
def test_ladder(multipliers: list[int], size: int, ladder: list[int]) -> None:
    assert config(multipliers=multipliers, attention=[ladder[-1]], patch=1).ladder(size) == ladder


def test_output_and_gradients_are_diffusers() -> None:
    ours = filled(UNet(config(patch=1, attention=[12, 24]), 24))
    theirs = UNet2DModel(
        sample_size=24, block_out_channels=(32, 64), layers_per_block=2, attention_head_dim=None,
        down_block_types=("AttnDownBlock2D",) * 2, up_block_types=("AttnUpBlock2D",) * 2, flip_sin_to_cos=False,
    )  # fmt: skip
    theirs.load_state_dict(ours.state_dict())
    x, t = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 977])
    found, expected = ours(x, t), theirs(x, t).sample
    assert torch.allclose(found, expected, atol=1e-5)
    found.square().mean().backward()
    expected.square().mean().backward()
    for name, parameter in theirs.named_parameters():
        assert torch.allclose(ours.get_parameter(name).grad, parameter.grad, atol=1e-5), name


def test_an_untrained_network_puts_out_zero() -> None:
    x = torch.randn(2, 3, 48, 48)
    assert torch.equal(UNet(config(), 48)(x, torch.tensor([0, 999])), torch.zeros_like(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 40}, "multiple of 32"),
        ({"multipliers": []}, "one or more"),
        ({"dropout": 1.5}, "dropout"),
        ({"atention": [3]}, "atention: no such parameter"),
        ({"blocks": "two"}, "valid integer"),
    ],
)
def test_an_impossible_shape_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


@pytest.mark.parametrize(("size", "message"), [(50, "multiple of 4"), (40, r"attention at 12 px, but .* \[20, 10\]")])
def test_a_size_that_does_not_fit_is_named(size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(config(), size)
