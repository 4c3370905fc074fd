"""The section `runtime`, and the arithmetic that it asks for, which has to be set before torch and NumPy are loaded."""

import os
import platform
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass

from ddpm.config import STRICT
from stages.kit.errors import StageError
from stages.kit.launch import first_process

PORTABLE = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}
"""What torch, oneDNN and OpenBLAS read when they are loaded. With AVX2 alone, x86-64 processors round alike."""
PORTABLE_INTEL = {**PORTABLE, "MKL_CBWR": "AVX2,STRICT"}
"""The same with what MKL reads: on Intel's processors it then rounds as it does anyway on those of AMD."""
ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""NumPy would multiply with all cores, whatever `threads` says; where another program has one, each product waits."""
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RuntimeConfig:
    """How this machine computes. No output depends on it, but for rounding; no stage runs again for it.

    `batch_images` are taken through a network at once where nothing is trained; empty: 64, for LPIPS 128. `workers` are
    processes that draw, decode and resize; empty: one for each core, fewer where memory or a quota is short.
    """

    device: str
    threads: PositiveInt
    workers: PositiveInt | None
    portable: bool
    compile: bool
    save_every_seconds: NonNegativeFloat
    batch_images: PositiveInt | None

    def at_once(self, usual: int) -> int:
        """Images in a network at once: `batch_images`, or as many as is `usual`."""
        return self.batch_images or usual


def portable_variables(flags: Collection[str], maker: str) -> Mapping[str, str]:
    """The environment in which every x86-64 processor with AVX2 computes the same bytes.

    One without it computes with what it has: nothing is set, and a line on stderr says so. `flags` are the processor's
    in /proc/cpuinfo, none where there is no such file; `maker` is a text that names who has made it.

    Raises:
        StageError: NumPy and torch don't run on this processor.
    """
    if flags and "sse4_2" not in flags:
        raise StageError(
            "this processor has no SSE4.2, which NumPy and torch need; "
            "in a virtual machine choose another type of processor, such as `-cpu host` of QEMU"
        )
    if not flags or "avx2" in flags:
        return PORTABLE_INTEL if "Intel" in maker else PORTABLE
    if first_process():
        print("this processor has no AVX2: rounds otherwise than the committed run", file=sys.stderr)
    return {}


def cpuinfo(field: str) -> str:
    """What /proc/cpuinfo says of the first core; nothing where there is no such file, or no such line in it."""
    text = CPUINFO.read_text(encoding="utf-8") if CPUINFO.exists() else ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(field)), "")


def is_portable() -> bool:
    """Whether this process computes as every x86-64 processor with AVX2 does."""
    return PORTABLE.items() <= os.environ.items()


def set_arithmetic(runtime: RuntimeConfig) -> None:
    """Prepare the environment for libraries that are not loaded yet.

    Raises:
        StageError: as `portable_variables`.
    """
    os.environ.update(ONE_BLAS_THREAD)
    if runtime.portable and platform.machine().lower() in ("x86_64", "amd64"):
        maker = cpuinfo("vendor_id") or platform.processor()
        os.environ.update(portable_variables(cpuinfo("flags").split(), maker))
