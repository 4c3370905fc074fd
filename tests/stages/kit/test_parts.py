"""Parts of a long computation: kept while it is unfinished, taken by whoever waited for it, and removed."""

import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from stages.kit.parts import Parts
from stages.kit.state import KEEP, parts_folder


def compute(root: Path, seed: int = 0, *, finished: bool = True) -> bool:
    """Whether the only part of the run of `seed` had to be computed."""
    computed = []

    def numbers() -> dict[str, np.ndarray]:
        computed.append(seed)
        return {"numbers": np.arange(3) + seed}

    with suppress(KeyboardInterrupt), parts_folder(root, {"seed": seed}, "computing") as folder:
        assert Parts(folder).kept("one part", numbers)["numbers"].tolist() == [seed, 1 + seed, 2 + seed]
        if not finished:
            raise KeyboardInterrupt
    return bool(computed)


def test_an_unfinished_run_goes_on_and_a_finished_one_begins_anew(tmp_path: Path) -> None:
    assert compute(tmp_path, finished=False)
    assert not compute(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert compute(tmp_path)


def test_whoever_waits_takes_what_is_there(tmp_path: Path) -> None:
    computed = []
    waiting = [threading.Thread(target=lambda: computed.append(compute(tmp_path))) for _ in range(2)]
    with parts_folder(tmp_path, {"seed": 0}, "computing") as folder:
        Parts(folder).save("one part", {"numbers": np.arange(3)})
        for thread in waiting:
            thread.start()
            thread.join(timeout=0.8)
            assert thread.is_alive()
    for thread in waiting:
        thread.join()
    assert computed == [False, False]
    assert compute(tmp_path), "without waiting"
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_for_one_that_was_killed_is_not_taken(tmp_path: Path) -> None:
    with parts_folder(tmp_path, {"seed": 0}, "computing") as folder:
        Parts(folder).save("one part", {"numbers": np.arange(3)})
        (folder / "wanted").touch()
    assert (folder / "finished").exists()
    assert compute(tmp_path)


def test_unfinished_runs_stay_and_more_than_a_few_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for seed in range(KEEP + 2):
        compute(tmp_path, seed, finished=False)
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path.name}: {tmp_path} keeps {KEEP + 1} other unfinished runs, ")
    assert not any(compute(tmp_path, seed) for seed in range(KEEP + 2))
