"""The section `runtime`, and the arithmetic that it asks for, which has to be set before torch and NumPy are loaded."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass

from ddpm.config import STRICT
from stages.kit.errors import StageError

PORTABLE = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}
"""What torch, oneDNN and OpenBLAS read when they are loaded. With AVX2 alone, x86-64 processors round alike."""
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RuntimeConfig:
    """How this machine computes. No output depends on it, but for rounding; no stage runs again for it.

    `batch_images` are taken through a network at once where nothing is trained; empty: 64, for LPIPS 128. `workers` are
    processes that draw, decode and resize; empty: one for each core.
    """

    device: str
    threads: PositiveInt
    portable: bool
    compile: bool
    save_every_seconds: NonNegativeFloat
    batch_images: PositiveInt | None
    workers: PositiveInt | None

    def at_once(self, usual: int) -> int:
        """Images in a network at once: `batch_images`, or as many as is `usual`."""
        return self.batch_images or usual


def portable_variables(machine: str, cpuinfo: str) -> Mapping[str, str]:
    """The environment in which every processor of the kind `machine` computes the same bytes.

    `cpuinfo` is the text of /proc/cpuinfo, empty where there is none.

    Raises:
        StageError: the processor lacks the instructions.
    """
    if machine.lower() not in ("x86_64", "amd64"):
        return {}
    flags = next((line.split() for line in cpuinfo.splitlines() if line.startswith("flags")), None)
    if flags is not None and "avx2" not in flags:
        raise StageError(
            "params.yaml: runtime.portable = true: this processor has no AVX2; "
            "`-S runtime.portable=false` computes with what it has, and rounds differently"
        )
    return PORTABLE


def set_arithmetic(runtime: RuntimeConfig) -> None:
    """Prepare the environment for libraries that are not loaded yet; without `portable`, leave it as it is."""
    if runtime.portable:
        cpuinfo = CPUINFO.read_text(encoding="utf-8") if CPUINFO.exists() else ""
        os.environ.update(portable_variables(platform.machine(), cpuinfo))
