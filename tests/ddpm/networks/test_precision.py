"""What each number format lets CUDA round; the switches can be looked at without a GPU."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from ddpm.networks.precision import Precision, autocast_dtype, placed, set_float32_products

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
    weight = placed(network, torch.device("cpu"))[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == wide
    assert weight.is_contiguous() != wide
