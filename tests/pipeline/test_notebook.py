"""docs/notebook.ipynb: two sittings on two machines that have one folder in common."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import REPOSITORY

from benchmarks._clone import Clone

NOTEBOOK = REPOSITORY / "docs" / "notebook.ipynb"
CHANGES = [
    "sources.smoke.seed=1", "runtime.threads=1", "runtime.save_every_seconds=0.5", "sample.count=64",
    "interpolate.pairs=2", "interpolate.frames=3", "interpolate.steps=2", "likelihood.images=16", "likelihood.bins=4",
    "rank.batches=2",
]  # fmt: skip


def cells() -> list[str]:
    """The code, cell by cell."""
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def sitting(machine: Path, drive: Path, repository: Path) -> subprocess.Popen[str]:
    """The cells in one process on a `machine` of its own, with other values after the first cell."""
    settings = {
        "DRIVE": str(drive), "REPOSITORY": str(repository), "WORK": "work", "ENVIRONMENT": sys.prefix,
        "DATA": "smoke", "MODEL": "smoke", "EPOCHS": 20, "CHANGES": CHANGES,
    }  # fmt: skip
    first, *others = cells()
    machine.mkdir()
    (machine / "cells.py").write_text("\n".join([first, *(f"{k} = {v!r}" for k, v in settings.items()), *others]))
    with (machine / "said").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "cells.py"], cwd=machine, stdout=said, stderr=said, text=True, start_new_session=True
        )


@pytest.mark.slow
def test_a_second_sitting_continues_where_the_first_was_lost(tmp_path: Path, backbone: object) -> None:
    repository, drive = tmp_path / "repository", tmp_path / "drive"
    repository.mkdir()
    Clone(repository)
    shutil.copytree(repository / ".cache", drive / "state", symlinks=True)  # LPIPS weights, instead of a network
    lost = sitting(tmp_path / "one", drive, repository)
    while not list(drive.glob("state/train/*/state.pt")):
        assert lost.poll() is None, (tmp_path / "one" / "said").read_text()
        time.sleep(0.05)
    os.killpg(lost.pid, signal.SIGKILL)
    lost.wait()
    shutil.rmtree(tmp_path / "one")

    code, said = sitting(tmp_path / "two", drive, repository).wait(), (tmp_path / "two" / "said").read_text()
    assert code == 0, said
    assert "train: continues at step" in said
    assert "Running stage 'fetch'" not in said  # it comes from DVC's cache
    assert "<title>" in (drive / "ddpm-church.html").read_text(encoding="utf-8")
    assert (tmp_path / "two" / "work" / "data" / "model").is_dir()


def test_the_values_are_those_of_the_first_cell() -> None:
    """What the test replaces, and what a reader fills in, is all set there, and used."""
    names = [line.partition(" = ")[0] for line in cells()[0].splitlines()]
    assert names == ["DRIVE", "REPOSITORY", "WORK", "ENVIRONMENT", "DATA", "MODEL", "EPOCHS", "CHANGES"]
    for name in names:
        assert any(re.search(rf"\b{name}\b", cell) for cell in cells()[1:]), name
