"""The arithmetic that `runtime.portable` asks for, and what a processor must have for it."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from stages.kit.errors import StageError
from stages.kit.runtime import PORTABLE, portable_variables

ROOT = Path(__file__).parents[3]
OLD = "processor\t: 0\nflags\t\t: fpu sse4_2 avx\n"
NEW = "processor\t: 0\nflags\t\t: fpu sse4_2 avx avx2 avx512f\n"
SHOW = """
from stages.kit.runtime import RuntimeConfig, set_arithmetic
from stages.kit.params import read_params
runtime = read_params({{"runtime": {{"portable": {portable}}}}}).section(RuntimeConfig, "runtime")
set_arithmetic(runtime)
import torch
from ddpm.networks.precision import autocast_dtype
print(torch.backends.cpu.get_cpu_capability(), autocast_dtype("auto", torch.device("cpu")))
"""


@pytest.mark.parametrize("machine", ["x86_64", "AMD64"])
def test_an_x86_processor_is_held_to_avx2(machine):
    assert portable_variables(machine, NEW) == PORTABLE
    assert portable_variables(machine, "") == PORTABLE  # no /proc/cpuinfo: macOS, Windows


@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
def test_other_processors_are_left_as_they_are(machine):
    assert portable_variables(machine, "Features\t: fp asimd\n") == {}


def test_a_processor_without_avx2_is_told_what_helps():
    with pytest.raises(StageError, match=r"no AVX2.*runtime.portable=false"):
        portable_variables("x86_64", OLD)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="an x86-64 processor is needed")
def test_torch_computes_as_the_parameter_says(monkeypatch):
    for name in PORTABLE:
        monkeypatch.delenv(name, raising=False)

    def shown(portable):
        command = [sys.executable, "-c", SHOW.format(portable=portable)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert shown(True) == ["AVX2", "torch.float32"]
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    assert (shown(False)[0] == "AVX512") == ("avx512f" in flags)
