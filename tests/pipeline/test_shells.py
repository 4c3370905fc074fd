"""Stages start whatever the login shell is, alone or as several processes: DVC hands a command to `$SHELL`."""

import platform
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks._clone import Clone

SHELLS = ["zsh", "fish", "tcsh"]
TORCHRUN = "torchrun --standalone --nproc-per-node=2"


def neighbours(clone: Clone) -> pd.DataFrame:
    return pd.read_csv(clone.folder / "data" / "rank" / "neighbours.csv")


@pytest.fixture(scope="module")
def clone(little: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return little.copy(tmp_path_factory.mktemp("shells") / "clone")


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_a_stage_runs_alone_and_by_two_processes(clone: Clone, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shutil.which(shell)
    if not path:
        pytest.skip(f"no {shell} on this machine")
    monkeypatch.setenv("SHELL", path)
    instructions = " (AVX2)" if platform.machine() == "x86_64" else ""
    monkeypatch.delenv("DDPM_LAUNCH", raising=False)
    before = neighbours(clone)
    said = clone.dvc("repro", "-f", "-s", "rank")
    assert f"rank: cpu{instructions}, float32, 1 process, 1 thread\n" in said
    pd.testing.assert_frame_equal(neighbours(clone), before)

    monkeypatch.setenv("DDPM_LAUNCH", TORCHRUN)
    said = clone.dvc("repro", "-f", "-s", "rank")
    assert f"rank: cpu{instructions}, float32, 2 processes, 1 thread each\n" in said
    assert np.allclose(neighbours(clone)["distance"], before["distance"], atol=1e-5)
    assert "torchrun" not in Path(clone.folder / "dvc.lock").read_text()
