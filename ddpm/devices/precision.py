"""The number format and memory layout that a device computes fastest in."""

from contextlib import AbstractContextManager
from typing import Literal, TypeVar

import torch
from torch import nn

Precision = Literal["auto", "float32", "tf32_convolutions", "tf32", "bfloat16"]

M = TypeVar("M", bound=nn.Module)


WIDE_GROUP = 16
"""Channels of a group from which on torch's CPU GroupNorm is as fast in channels last as in the usual layout."""


def set_float32_products(precision: Precision) -> None:
    """Let CUDA round the factors of float32 products to 10 bits (TF32), or not; for the whole process.

    With `tf32` it does so in convolutions and matrix products, with `tf32_convolutions` in convolutions alone, which is
    how torch starts and so how programs compute that set nothing, and with any other nowhere.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision in ("tf32", "tf32_convolutions")


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The autocast type for `precision`; `auto` is bfloat16 where the device has instructions for it, else float32.

    A CPU's must be allowed too: with `ATEN_CPU_CAPABILITY=avx2` in the environment it has none.
    """
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            allowed = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512"
            native = allowed and bool(torch.cpu.get_capabilities().get("avx512_bf16"))
        precision = "bfloat16" if native else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Run convolutions and matrix products in `dtype`; in float32, change nothing."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def placed(model: M, device: torch.device) -> M:
    """Move `model` to `device`, channels last where that is faster: convolutions always are, CPU GroupNorm may not be.

    With groups of fewer than `WIDE_GROUP` channels it takes 30 times as long there (benchmarks/README.md).
    """
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    wide = all(norm.num_channels >= WIDE_GROUP * norm.num_groups for norm in norms)
    layout = torch.channels_last if device.type == "cuda" or wide else torch.contiguous_format
    return model.to(device, memory_format=layout)  # type: ignore[call-overload]
