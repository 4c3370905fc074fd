"""Where the working state of a run lies, which states are kept, and which are lent."""

from pathlib import Path

import pytest
import torch

from stages.kit.state import KEEP, working_state


def save(root: Path, identity: dict, epochs: int, step: int) -> None:
    with working_state(root, identity, epochs) as state:
        state.save({"step": step, "weights": torch.tensor(epochs)})


def test_only_the_last_states_are_kept_and_those_in_use(tmp_path: Path) -> None:
    with working_state(tmp_path, {"run": 0}, 1) as held:
        held.save({"step": 5})
        for run in range(1, KEEP + 3):
            save(tmp_path, {"run": run}, 1, run)
        assert held.load() == ({"step": 5}, 1)
        assert len(list(tmp_path.iterdir())) == KEEP + 1
    with working_state(tmp_path, {"run": KEEP + 2}, 1) as state:
        assert state.load()
        assert len(list(tmp_path.iterdir())) == KEEP
    with working_state(tmp_path, {"run": 1}, 1) as state:
        assert state.load() is None


@pytest.mark.parametrize(("lent_steps", "lender"), [(0, None), (9, None), (10, 1), (35, 3), (100, 5)])
def test_a_run_is_lent_the_longest_state_that_is_not_too_long(
    tmp_path: Path, lent_steps: int, lender: int | None
) -> None:
    for epochs, step in ((1, 10), (3, 30), (5, 38)):
        save(tmp_path, {"seed": 0}, epochs, step)
    with working_state(tmp_path, {"seed": 0}, 7, lent_steps) as state:
        saved = state.load()
        assert (saved and saved.epochs) == lender
        state.save({"step": 1})
        assert state.load() == ({"step": 1}, 7)


def test_no_state_is_lent_to_other_code_data_or_parameters(tmp_path: Path) -> None:
    save(tmp_path, {"seed": 0}, 1, 10)
    with working_state(tmp_path, {"seed": 1}, 2, 100) as state:
        assert state.load() is None


def test_the_state_that_is_lent_outlasts_older_ones(tmp_path: Path) -> None:
    for epochs in range(1, KEEP + 1):
        save(tmp_path, {"seed": 0}, epochs, step=100 - epochs)
    with working_state(tmp_path, {"seed": 0}, 50, 99) as state:
        assert state.load() == ({"step": 99, "weights": torch.tensor(1)}, 1)
