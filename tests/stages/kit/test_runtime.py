"""The arithmetic that `runtime.portable` asks for, and what a processor must have for it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from stages.kit import runtime
from stages.kit.errors import StageError
from stages.kit.runtime import PORTABLE, RuntimeConfig, portable_variables, set_arithmetic

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


@pytest.mark.parametrize("flags", [NEW, ()])  # none: there is no /proc/cpuinfo on macOS and Windows
def test_an_x86_processor_is_held_to_avx2(flags, capsys):
    assert portable_variables(flags) == PORTABLE
    assert capsys.readouterr().err == ""


def test_a_processor_without_avx2_computes_with_what_it_has_and_says_so(capsys):
    assert portable_variables(OLD) == {}
    assert capsys.readouterr().err == "this processor has no AVX2: rounds otherwise than the committed run\n"


def test_a_processor_on_which_numpy_fails_is_told_what_helps():
    """QEMU's default, qemu64: NumPy dies of an illegal instruction."""
    with pytest.raises(StageError, match=r"no SSE4.2.*-cpu host"):
        portable_variables(ANCIENT)


@pytest.mark.parametrize(("machine", "cpuinfo"), [("x86_64", "flags : avx2 sse4_2\n"), ("aarch64", "Features: fp\n")])
def test_only_x86_is_held_to_anything(machine, cpuinfo, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(runtime, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    for name in PORTABLE:
        monkeypatch.setenv(name, "as it was")
    set_arithmetic(RuntimeConfig(**VALUES))
    assert (os.environ["ATEN_CPU_CAPABILITY"] == "avx2") == (machine == "x86_64")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="an x86-64 processor is needed")
def test_torch_computes_as_the_parameter_says(monkeypatch):
    for name in PORTABLE:
        monkeypatch.delenv(name, raising=False)

    def shown(portable):
        command = [sys.executable, "-c", SHOW.format(values={**VALUES, "portable": portable})]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert shown(True) == ["AVX2", "torch.float32"]
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    assert (shown(False)[0] == "AVX512") == ("avx512f" in flags)
