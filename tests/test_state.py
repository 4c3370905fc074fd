"""Where the working state of a run lies, and which states are kept."""

from pathlib import Path

import torch

from stages._state import KEEP, working_state


def test_only_the_last_states_are_kept_and_those_in_use(tmp_path: Path) -> None:
    with working_state(tmp_path, {"run": 0}) as held:
        held.save({"step": torch.tensor(5)})
        for run in range(1, KEEP + 3):
            with working_state(tmp_path, {"run": run}) as state:
                state.save({"step": torch.tensor(run)})
        assert held.load() == {"step": torch.tensor(5)}
        assert len(list(tmp_path.iterdir())) == KEEP + 1
    with working_state(tmp_path, {"run": KEEP + 2}) as state:
        assert state.load() == {"step": torch.tensor(KEEP + 2)}
        assert len(list(tmp_path.iterdir())) == KEEP
    with working_state(tmp_path, {"run": 1}) as state:
        assert state.load() is None
