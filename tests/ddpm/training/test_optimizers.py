"""Muon against torch's, against the singular value decomposition, and who gets which parameter."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.training.optimizers import Muon, optimizers_of, orthogonal

SHAPES = [(32, 16, 3, 3), (16, 32), (32, 16, 3, 3), (16, 16), (24, 8)]
NETWORK = UNetConfig(
    channels=32, multipliers=(1, 2), attention=(4,), blocks=1, dropout=0.0, patch=1, groups=2, conditional=True,
    initial="zero",
)  # fmt: skip


def drawn(shapes: list[tuple[int, ...]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_steps_are_torchs(weight_decay: float) -> None:
    """Of kernels as matrices, in any layout; torch rounds to bfloat16, so that a step agrees to about one per cent."""
    ours = [nn.Parameter(tensor) for tensor in drawn(SHAPES, 0)]
    theirs = [nn.Parameter(tensor.detach().flatten(1).clone()) for tensor in ours]
    ours[0].data = ours[0].data.contiguous(memory_format=torch.channels_last)
    start = [tensor.detach().clone() for tensor in theirs]
    muon = Muon(ours, weight_decay)
    oracle = torch.optim.Muon(theirs, lr=0.1, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        gradients = drawn(SHAPES, step + 1)
        for mine, other, gradient in zip(ours, theirs, gradients, strict=True):
            mine.grad, other.grad = gradient.clone(), gradient.flatten(1)
        for optimizer, rate in ((muon, 0.1 / (step + 1)), (oracle, 0.1 / (step + 1))):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
    for mine, other, first in zip(ours, theirs, start, strict=True):
        moved, expected = mine.detach().flatten(1) - first, other.detach() - first
        assert float((moved - expected).norm() / expected.norm()) < 0.02


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 12, 12)])
def test_orthogonal_keeps_directions_and_levels_their_lengths(shape: tuple[int, ...]) -> None:
    (matrices,) = drawn([shape], 4)
    made = orthogonal(matrices)
    assert made.shape == matrices.shape
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    lengths = u.mT @ made @ vh.mT
    assert torch.allclose(lengths, torch.diag_embed(lengths.diagonal(dim1=1, dim2=2)), atol=1e-4)
    assert float(lengths.diagonal(dim1=1, dim2=2).min()) > 0.5
    assert float(lengths.diagonal(dim1=1, dim2=2).max()) < 1.25
    assert torch.allclose(orthogonal(1e3 * matrices), made, atol=1e-5)


def test_muon_has_the_weights_of_hidden_layers_and_adamw_all_else() -> None:
    network = UNet(NETWORK, 8, classes=3)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    adamw, muon = (
        [names[id(p)] for p in each.param_groups[0]["params"]] for each in optimizers_of(network, "muon", 0.9, 0.0)
    )
    assert sorted(adamw + muon) == sorted(names.values())
    assert all(
        name.endswith(".weight") and name.split(".")[0] in ("down_blocks", "mid_block", "up_blocks") for name in muon
    )
    hidden = [module for name, module in network.named_modules() if name.split(".")[0].endswith(("_block", "_blocks"))]
    assert len(muon) == sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in hidden)
    (only,) = optimizers_of(network, "adamw", 0.9, 0.0)
    assert len(only.param_groups[0]["params"]) == len(names)


def test_its_state_goes_on() -> None:
    """Two steps, saved and loaded between, are two steps; without the state they are others."""
    first, *gradients = (drawn([(8, 4, 3, 3)], seed)[0] for seed in range(3))

    def moved(*, loses: bool) -> Tensor:
        parameter = nn.Parameter(first.clone())
        muon = Muon([parameter], 0.0)
        for gradient in gradients:
            saved = copy.deepcopy(muon.state_dict())
            muon = Muon([parameter], 0.0)
            if not loses:
                muon.load_state_dict(saved)
            muon.param_groups[0]["lr"], parameter.grad = 0.1, gradient
            muon.step()
        return parameter.detach()

    parameter = nn.Parameter(first.clone())
    straight = Muon([parameter], 0.0)
    straight.param_groups[0]["lr"] = 0.1
    for gradient in gradients:
        parameter.grad = gradient
        straight.step()
    assert torch.equal(moved(loses=False), parameter)
    assert not torch.allclose(moved(loses=True), parameter, atol=1e-3)
