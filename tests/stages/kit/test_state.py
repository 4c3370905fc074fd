"""How the working state of a run is saved, and which states are kept."""

import errno
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.kit.errors import StageError
from stages.kit.state import KEEP, WorkingState, run_folder, working_state


def run(root: Path, seed: int, *, finished: bool) -> Path:
    """Save a state of the run of `seed`; return its folder."""
    identity: dict[str, Any] = {"data": {}, "settings": {"seed": seed}, "code": {}, "platform": {}}
    with suppress(KeyboardInterrupt), working_state(root, identity, 1) as working:
        working.save({"step": 10 + seed})
        if not finished:
            raise KeyboardInterrupt
    return working.folder


def test_no_unfinished_run_is_removed_and_of_finished_ones_the_last_stay(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    unfinished = [run(tmp_path, seed, finished=False) for seed in range(KEEP + 1)]
    finished = [run(tmp_path, 100 + seed, finished=True) for seed in range(KEEP + 2)]
    assert {folder for folder in tmp_path.iterdir() if (folder / "state.pt").exists()} == {*unfinished, *finished[2:]}
    lines = capfd.readouterr().err.splitlines()
    removed = [
        f": removed {folder}: of finished runs the states of the last {KEEP} are kept" for folder in finished[:2]
    ]
    assert [line.partition(tmp_path.name)[2] for line in lines if "removed" in line] == removed
    assert f"{tmp_path} keeps {KEEP + 1} other unfinished runs, " in lines[0]


def test_a_finished_run_that_is_begun_again_is_unfinished(tmp_path: Path) -> None:
    folder = run(tmp_path, 0, finished=True)
    run(tmp_path, 0, finished=False)
    for seed in range(1, KEEP + 2):
        run(tmp_path, seed, finished=True)
    assert (folder / "state.pt").exists()


def test_a_finished_run_that_a_process_has_again_stays(tmp_path: Path) -> None:
    first = run(tmp_path, 0, finished=True)
    identity: dict[str, Any] = {"data": {}, "settings": {"seed": 0}, "code": {}, "platform": {}}
    with working_state(tmp_path, identity, 1) as working:
        assert working.folder == first
        for seed in range(1, KEEP + 2):
            run(tmp_path, seed, finished=True)
        saved = working.load()
        assert saved
        assert saved.state == {"step": 10}


def test_training_goes_on_while_a_state_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, save = threading.Event(), torch.save

    def slow(*args: Any) -> None:
        assert written.wait(30)
        save(*args)

    monkeypatch.setattr(torch, "save", slow)
    working, weights = WorkingState(tmp_path), torch.arange(3.0)
    working.save({"step": 1, "model": {"weights": weights}, "averages": [weights]})
    weights += 1  # the next step
    assert working.busy
    assert not working.file.exists()
    written.set()
    working.wait()
    assert not working.busy
    found = torch.load(working.file)
    assert found["step"] == 1
    assert found["model"]["weights"].tolist() == found["averages"][0].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("then", ["save", "wait"])
def test_what_goes_wrong_with_the_writer_is_said_by_the_next_call(
    then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = WorkingState(tmp_path)
    working.save({"step": 1})
    working.wait()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    monkeypatch.setattr(torch, "save", full)
    working.save({"step": 2})
    with pytest.raises(OSError, match="No space left on device"):
        working.save({"step": 3}) if then == "save" else working.wait()
    monkeypatch.undo()
    assert torch.load(working.file)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_state_that_can_not_be_read_says_what_to_do(tmp_path: Path) -> None:
    folder = run(tmp_path, 0, finished=False)
    content = (folder / "state.pt").read_bytes()
    for damaged in (b"", content[:-100], b"nonsense"):
        (folder / "state.pt").write_bytes(damaged)
        with pytest.raises(StageError, match=r"^[^\n]*state.pt: damaged \([^\n]*remove [^\n]* DDPM_RESUME=new"):
            run(tmp_path, 0, finished=False)


def test_a_writer_is_waited_for_when_a_run_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = torch.save

    def slow(*args: Any) -> None:
        time.sleep(0.3)
        save(*args)

    monkeypatch.setattr(torch, "save", slow)
    folder = run(tmp_path, 0, finished=False)
    assert (folder / "state.pt").exists()
    assert not (folder / "finished").exists()


def test_a_run_that_need_not_last_needs_no_checkout_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / ".cache").touch()
    with run_folder(tmp_path / ".cache" / "sample", {"a": 1}, "drawing the same images") as folder:
        (folder / "chunk").touch()
    assert not folder.exists()
    with (
        pytest.raises(StageError, match="the state of the run can't be kept here"),
        run_folder(tmp_path / ".cache" / "train", {"a": 1}, "training the same run", must_last=True),
    ):
        pass
