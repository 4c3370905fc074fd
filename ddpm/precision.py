"""The number format and memory layout that a device computes fastest in."""

from contextlib import AbstractContextManager
from typing import Literal, TypeVar

import torch
from torch import nn

Precision = Literal["auto", "float32", "bfloat16"]

M = TypeVar("M", bound=nn.Module)


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The autocast type for `precision`; `auto` is bfloat16 where the device has instructions for it, else float32."""
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16"))
        precision = "bfloat16" if native else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Run convolutions and matrix products in `dtype`; in float32, change nothing."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def placed(model: M, device: torch.device) -> M:
    """Move `model` to `device`, channels last on CUDA only: torch's CPU GroupNorm is many times slower in it."""
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    return model.to(device, memory_format=layout)  # type: ignore[call-overload]
