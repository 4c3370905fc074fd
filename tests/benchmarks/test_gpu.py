"""`benchmarks.gpu` where there is no GPU."""

import re
import subprocess
import sys

import pytest
import torch
from support import REPOSITORY


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    done = run()
    assert done.returncode == 1
    assert done.stderr == "gpu: error: torch finds no GPU here; `--small --device cpu` tries the command on a CPU\n"


@pytest.mark.slow
def test_the_small_run_measures_every_row_but_the_compiled() -> None:
    done = run("--small", "--device", "cpu", "--minutes", "30")
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stdout.lower()
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| smoke")]
    assert [len(row) for row in rows] == [12] * 4 + [9] * 5
    assert all(float(row[6]) > 0 for row in rows[:4])
    assert all(float(row[7]) > 0 for row in rows[4:])
    assert "A second run: the same bytes." in done.stdout
    assert re.search(r"\(SIGKILL; train: continues at step .*\): the same bytes\.", done.stdout)
