"""The arithmetic that `runtime.portable` asks for, and what a processor must have for it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from stages.kit import runtime
from stages.kit.errors import StageError
from stages.kit.runtime import PORTABLE, PORTABLE_INTEL, RuntimeConfig, cpuinfo, portable_variables, set_arithmetic

ROOT = Path(__file__).parents[3]
ANCIENT = ("fpu", "sse2")
OLD = ("fpu", "sse2", "sse4_2", "avx")
NEW = ("fpu", "sse2", "sse4_2", "avx", "avx2", "avx512f")
VALUES = {
    "device": "cpu", "threads": 1, "workers": None, "portable": True, "compile": False, "save_every_seconds": 1.0,
    "batch_images": None,
}  # fmt: skip
SHOW = """
from stages.kit.runtime import RuntimeConfig, set_arithmetic
set_arithmetic(RuntimeConfig(**{values}))
import torch
from ddpm.devices.precision import autocast_dtype
print(torch.backends.cpu.get_cpu_capability(), autocast_dtype("auto", torch.device("cpu")))
"""
THREADS = """
from stages.kit.runtime import RuntimeConfig, set_arithmetic
set_arithmetic(RuntimeConfig(**{values}))
import numpy, psutil
numpy.ones((500, 500)) @ numpy.ones((500, 500))
print(psutil.Process().num_threads())
"""
PRODUCTS = """
from stages.kit.runtime import RuntimeConfig, set_arithmetic
set_arithmetic(RuntimeConfig(**{values}))
import hashlib, numpy, torch
torch.set_num_threads(1)
generator, digest = numpy.random.default_rng(0), hashlib.sha256()
for rows, columns in ((32, 288), (64, 576), (128, 1152)):
    matrix = torch.from_numpy(generator.random((rows, columns), numpy.float32) - 0.5)
    digest.update((matrix @ matrix.T).numpy().tobytes())
print(digest.hexdigest()[:16])
"""


def printed(script, *, portable):
    """What a new process says that computes as the parameter says."""
    command = [sys.executable, "-c", script.format(values={**VALUES, "portable": portable})]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("flags", "maker", "variables"),
    [
        (NEW, "AuthenticAMD", PORTABLE),
        (NEW, "GenuineIntel", PORTABLE_INTEL),
        ((), "Intel64 Family 6 Model 158 Stepping 10, GenuineIntel", PORTABLE_INTEL),  # Windows has no /proc/cpuinfo
    ],
)
def test_an_x86_processor_is_held_to_avx2(flags, maker, variables, capsys):
    assert portable_variables(flags, maker) == variables
    assert capsys.readouterr().err == ""


def test_a_processor_without_avx2_computes_with_what_it_has_and_says_so(capsys):
    assert portable_variables(OLD, "GenuineIntel") == {}
    assert capsys.readouterr().err == "this processor has no AVX2: rounds otherwise than the committed run\n"


def test_a_processor_on_which_numpy_fails_is_told_what_helps():
    """QEMU's default, qemu64: NumPy dies of an illegal instruction."""
    with pytest.raises(StageError, match=r"no SSE4.2.*-cpu host"):
        portable_variables(ANCIENT, "")


@pytest.mark.parametrize(("machine", "cpuinfo"), [("x86_64", "flags : avx2 sse4_2\n"), ("aarch64", "Features: fp\n")])
def test_only_x86_is_held_to_anything(machine, cpuinfo, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(runtime, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    for name in PORTABLE_INTEL:
        monkeypatch.setenv(name, "as it was")
    set_arithmetic(RuntimeConfig(**VALUES))
    assert (os.environ["ATEN_CPU_CAPABILITY"] == "avx2") == (machine == "x86_64")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="an x86-64 processor is needed")
def test_torch_computes_as_the_parameter_says(monkeypatch):
    for name in PORTABLE_INTEL:
        monkeypatch.delenv(name, raising=False)
    assert printed(SHOW, portable=True) == "AVX2 torch.float32"
    assert printed(SHOW, portable=False).startswith("AVX512") == ("avx512f" in cpuinfo("flags").split())


@pytest.mark.parametrize("portable", [True, False])
def test_numpy_takes_one_core(portable, monkeypatch):
    """Where others work, products of many threads wait for each other: `rank` took seven times as long."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert printed(THREADS, portable=portable) == "1"


@pytest.mark.skipif(cpuinfo("vendor_id") != "GenuineIntel", reason="one of Intel's processors is needed")
def test_matrices_are_multiplied_as_in_the_run_that_gave_the_committed_bytes(monkeypatch):
    """Without PORTABLE_INTEL, and with `AVX2` alone, this number is another one, and so are the weights."""
    for name in PORTABLE_INTEL:
        monkeypatch.delenv(name, raising=False)
    assert printed(PRODUCTS, portable=True) == "4802d276685c83e9"
