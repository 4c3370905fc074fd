"""The U-Net against diffusers' of the same shape, and its ladder."""

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models import attention_processor as diffusers_attention

from ddpm.config import ConfigError, parse
from ddpm.diffusion.blocks import Attention, ResnetBlock, attend
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.training.initial import initial_network
from tools.diffusers_names import CONVENTIONS

SMALL = {
    "channels": 32, "multipliers": [1, 2], "attention": [12], "blocks": 2, "dropout": 0.0, "patch": 2,
    "groups": 32, "conditional": False, "initial": "zero",
}  # fmt: skip


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


@pytest.mark.parametrize(
    ("groups", "classes", "conventions", "head_channels"),
    [(32, 0, "torch", None), (4, 0, "torch", 16), (8, 5, "torch", None), (8, 0, "tensorflow", None),
     (32, 0, "diffusers", 8), (32, 3, "tensorflow", 32)],
)  # fmt: skip
def test_output_and_gradients_are_diffusers(
    groups: int, classes: int, conventions: str, head_channels: int | None
) -> None:
    """With the weights moved to it and back; TensorFlow's conventions are google/ddpm-cifar10-32's."""
    values = {"groups": groups, "conventions": conventions, "head_channels": head_channels}
    shape = config(patch=1, attention=[12, 24], conditional=classes > 0, **values)
    original, ours = filled(UNet(shape, 24, classes)), UNet(shape, 24, classes)
    theirs = UNet2DModel(
        sample_size=24, block_out_channels=(32, 64), layers_per_block=2, attention_head_dim=head_channels,
        down_block_types=("AttnDownBlock2D",) * 2, up_block_types=("AttnUpBlock2D",) * 2,
        norm_num_groups=groups, num_class_embeds=classes + 1 if classes else None, **CONVENTIONS[conventions],
    )  # fmt: skip
    theirs.load_state_dict(original.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x, t = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 977])
    label = torch.tensor([2, classes]) if classes else None
    found, expected = ours(x, t, label), theirs(x, t, label).sample
    assert torch.allclose(found, expected, atol=1e-5)
    found.square().mean().backward()
    expected.square().mean().backward()
    for name, parameter in theirs.named_parameters():
        assert torch.allclose(ours.get_parameter(name).grad, parameter.grad, atol=1e-5), name


def test_attention_is_counted_from_the_lowest_level() -> None:
    """So that one configuration has the same levels with attention at every size."""
    for size in (48, 64, 128):
        assert config(multipliers=[1, 2, 2], attention=[-1], patch=2).attended(size) == [False, False, True]
    assert config(multipliers=[1, 2, 2], attention=[12, -1], patch=2).attended(48) == [False, True, True]
    with pytest.raises(ValueError, match="attention at -4 px, but the levels of a 48 px image are"):
        config(multipliers=[1, 2, 2], attention=[-4], patch=2).ladder(48)


def test_attention_is_torchs() -> None:
    q, k, v = 2 * torch.randn(3, 2, 9, 16)
    assert torch.allclose(attend(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v), atol=1e-5)


@pytest.mark.parametrize("head_channels", [None, 8])
def test_heads_are_diffusers(head_channels: int | None) -> None:
    """With weights so large that every head looks at something of its own."""
    ours = Attention(32, 4, head_channels)
    for parameter in ours.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.ndim))
    size = head_channels or 32
    theirs = diffusers_attention.Attention(
        32, heads=32 // size, dim_head=size, norm_num_groups=4, bias=True, residual_connection=True,
        _from_deprecated_attn_block=True,
    )  # fmt: skip
    theirs.load_state_dict({**theirs.state_dict(), **ours.state_dict()})
    x = torch.randn(2, 32, 3, 5, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(ours(x), theirs(x), atol=1e-4)


def test_an_untrained_network_puts_out_zero() -> None:
    x = torch.randn(2, 3, 48, 48)
    assert torch.equal(initial_network(UNet(config(), 48))(x, torch.tensor([0, 999])), torch.zeros_like(x))


def test_every_residual_branch_starts_at_zero() -> None:
    network = initial_network(UNet(config(attention=[24, 12]), 48))
    attentions = [module for module in network.modules() if isinstance(module, Attention)]
    blocks = [module for module in network.modules() if isinstance(module, ResnetBlock)]
    for attention in attentions:
        x = torch.randn(2, attention.group_norm.num_channels, 4, 4)
        assert torch.equal(attention(x), x)
    for block in [block for block in blocks if block.conv_shortcut is None]:
        x = torch.randn(2, block.norm1.num_channels, 4, 4)
        assert torch.equal(block(x, torch.randn(2, 128)), x)


def test_channels_of_a_patch_are_its_pixels_row_by_row() -> None:
    """Of colour c, row y and column x of a patch of 2 x 2 the channel is 4 c + 2 y + x, on the way in and out."""
    network = UNet(config(), 48)
    inputs: list[torch.Tensor] = []
    network.conv_in.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    network.conv_out.weight.data.zero_()
    network.conv_out.bias.data = torch.arange(12.0)
    x = torch.randn(1, 3, 48, 48)
    output = network(x, torch.tensor([5]))
    for channel in range(12):
        colour, row, column = channel // 4, channel // 2 % 2, channel % 2
        assert torch.equal(inputs[0][:, channel], x[:, colour, row::2, column::2])
        assert (output[:, colour, row::2, column::2] == channel).all()


def test_the_reports_initial_weights() -> None:
    """Xavier's bound everywhere, 1e-5 of it where a branch of convolutions ends, no biases."""
    network = initial_network(UNet(config(initial="xavier"), 48))
    small = {"conv_out.weight"} | {name for name, _ in network.named_parameters() if name.endswith("conv2.weight")}
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            fans = weight[0].numel() + weight.shape[0] * weight[0, 0].numel()
            bound = (6 / fans) ** 0.5 * (1e-5 if name in small else 1)
            assert 0.8 * bound < float(weight.detach().abs().max()) <= bound * 1.0001, name
        elif "norm" not in name:
            assert not weight.any(), name


def test_no_label_is_the_last_class() -> None:
    network = filled(UNet(config(conditional=True), 48, classes=3))
    x, t = torch.randn(2, 3, 48, 48), torch.tensor([5, 900])
    assert torch.equal(network(x, t), network(x, t, torch.tensor([3, 3])))
    assert not torch.equal(network(x, t), network(x, t, torch.tensor([0, 1])))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 40}, "multiple of groups = 32"),
        ({"multipliers": []}, "one or more"),
        ({"dropout": 1.5}, "dropout"),
        ({"atention": [3]}, "atention: no such parameter"),
        ({"blocks": "two"}, "valid integer"),
        ({"head_channels": 0}, "greater than 0"),
    ],
)
def test_an_impossible_shape_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


@pytest.mark.parametrize(("size", "message"), [(50, "multiple of 4"), (40, r"attention at 12 px, but .* \[20, 10\]")])
def test_a_size_that_does_not_fit_is_named(size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(config(), size)


def test_heads_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="head_channels = 24: attention has 64 channels"):
        UNet(config(head_channels=24), 48)


def test_dropout_acts_in_training_and_there_alone() -> None:
    block = ResnetBlock(8, 8, 16, dropout=0.5, groups=2)
    seen: list[torch.Tensor] = []
    block.conv2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x, embedding = torch.randn(64, 8, 4, 4), torch.randn(64, 16)
    for training in (True, False):
        block.train(training)(x, embedding)
    dropped = seen[0] == 0
    assert float(dropped.float().mean()) == pytest.approx(0.5, abs=0.02)
    assert torch.allclose(seen[0][~dropped], 2 * seen[1][~dropped])
