"""What each number format lets CUDA round; the switches can be looked at without a GPU."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from ddpm.config import parse
from ddpm.devices.precision import Precision, autocast, autocast_dtype, placed, set_float32_products
from ddpm.diffusion.blocks import GroupNorm
from ddpm.diffusion.unet import UNet, UNetConfig

CPU = torch.device("cpu")

DEFAULT = "import torch; print(torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    yield
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(products)


def rounded(precision: Precision) -> list[bool]:
    """Whether convolutions and matrix products are in TF32."""
    set_float32_products(precision)
    return [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32]


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("float32", [False, False]),
        ("tf32_convolutions", [True, False]),
        ("tf32", [True, True]),
        ("bfloat16", [False, False]),
        ("auto", [False, False]),
    ],
)
def test_products_are_rounded_where_that_is_wanted(precision: Precision, expected: list[bool]) -> None:
    for before in ("tf32", "float32"):
        set_float32_products(before)
        assert rounded(precision) == expected
    assert autocast_dtype("tf32_convolutions", torch.device("cuda")) == torch.float32


def test_tf32_in_convolutions_is_how_torch_starts() -> None:
    """And so how the report's code computed, which sets nothing."""
    found = subprocess.run([sys.executable, "-c", DEFAULT], check=True, capture_output=True, text=True).stdout
    assert found.split() == [str(value) for value in rounded("tf32_convolutions")]


@pytest.mark.parametrize(("groups", "wide"), [(2, True), (4, False)])
def test_on_a_cpu_channels_are_last_where_groups_are_wide(groups: int, wide: bool) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.GroupNorm(groups, 32))
    weight = placed(network, CPU)[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == wide
    assert weight.is_contiguous() != wide


def test_norms_in_bfloat16_are_as_good_as_norms_in_float32() -> None:
    """Of a whole network in bfloat16: the error against float32 is that of torch's way on CUDA, to a fifth."""
    shape = {"channels": 64, "multipliers": [1, 2], "attention": [12], "blocks": 2, "dropout": 0.0, "patch": 2,
             "groups": 32, "conditional": False, "initial": "zero"}  # fmt: skip
    torch.manual_seed(0)
    network = UNet(parse(UNetConfig, shape, "network"), 24)
    for parameter in network.parameters():
        parameter.data += torch.randn(parameter.shape) * 0.05
    x, t = torch.randn(8, 3, 24, 24), torch.arange(0, 1000, 125)

    def error(precision: torch.dtype) -> float:
        with torch.no_grad(), autocast(CPU, precision):
            return float((network(x, t) - exact).square().mean().sqrt() / exact.std())

    with torch.no_grad():
        exact = network(x, t)
    assert error(torch.float32) == 0
    narrow = error(torch.bfloat16)
    for module in network.modules():
        if isinstance(module, GroupNorm):
            module.forward = lambda x, norm=module: torch.nn.GroupNorm.forward(norm, x.float())
    wide = error(torch.bfloat16)
    assert 0 < narrow < 1.2 * wide < 0.05
