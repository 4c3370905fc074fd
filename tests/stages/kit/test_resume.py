"""Which saved state a run continues from, and what is said of the others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.kit.errors import StageError
from stages.kit.resume import Candidate, state_to_continue

IDENTITY = {
    "data": {"images": "d1"},
    "settings": {"seed": 0, "recipe": {"decays": (0.9, 0.99)}},
    "code": {"ddpm.rng": "c1"},
    "platform": {"threads": 2},
}
Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Make the state of a run that differs from that of `IDENTITY` and 6 epochs as told."""

    def write(name: str, step: int, epochs: int = 6, **changes: dict[str, Any]) -> Path:
        (tmp_path / "train" / name).mkdir(parents=True)
        identity = {section: {**values, **changes.get(section, {})} for section, values in IDENTITY.items()}
        described = json.dumps({"epochs": epochs, "identity": identity})
        (tmp_path / "train" / name / "run.json").write_text(described)
        torch.save({"step": step}, tmp_path / "train" / name / "state.pt")
        return tmp_path / "train" / name

    return write


def chosen(tmp_path: Path, lent_steps: int = 0) -> Candidate | None:
    return state_to_continue(tmp_path / "train" / "own", {"epochs": 6, "identity": IDENTITY}, lent_steps)


OTHER_THREADS = {"platform": {"threads": 1}}


def test_its_own_state_comes_first_and_nothing_is_said(
    put: Put, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = put("own", 30)
    put("longer", 50, epochs=9)
    put("behind", 20, **OTHER_THREADS)
    put("seed", 50, settings={"seed": 1})
    assert chosen(tmp_path, lent_steps=100) == (own, 30, ())
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("lent_steps", "lender"), [(0, None), (9, None), (10, "a"), (35, "b"), (100, "c")])
def test_a_run_is_lent_the_longest_state_that_is_not_too_long(
    put: Put, tmp_path: Path, lent_steps: int, lender: str | None
) -> None:
    for name, epochs, step in (("a", 1, 10), ("b", 3, 30), ("c", 5, 38)):
        put(name, step, epochs=epochs)
    found = chosen(tmp_path, lent_steps)
    assert (found and found.folder.name) == lender


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (OTHER_THREADS, "threads 1 (now 2)"),
        ({"code": {"ddpm.rng": "c2"}}, "other ddpm.rng"),
        ({"platform": {"torch": "2.0"}}, "torch 2.0 (now None)"),
    ],
)
def test_a_state_that_differs_is_named_and_taken_when_told_to(
    put: Put,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    change: dict[str, Any],
    said: str,
) -> None:
    other = put("other", 30, **change)
    assert chosen(tmp_path) is None
    capfd.readouterr()
    put("own", 20)
    assert chosen(tmp_path) == (tmp_path / "train" / "own", 20, ())
    assert capfd.readouterr().err == (
        f"train: {other} has step 30 of this run, but with {said}; it is kept and not continued; "
        "DDPM_RESUME=other continues it\n"
    )
    for name in ("other", str(other)):
        monkeypatch.setenv("DDPM_RESUME", name)
        assert chosen(tmp_path) == (other, 30, (said,))
        assert capfd.readouterr().err == ""


def test_the_variable_may_stay_while_the_run_goes_beyond(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("other", 30, **OTHER_THREADS)
    own = put("own", 31)
    monkeypatch.setenv("DDPM_RESUME", "other")
    assert chosen(tmp_path) == (own, 31, ())
    monkeypatch.setenv("DDPM_RESUME", "new")
    assert chosen(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "DDPM_RESUME = 'nowhere': there is no state.pt in "),
        ("seed", "/seed has the state of another run, with seed 1 \\(now 0\\)$"),
        ("images", "/images has the state of another run, with other images$"),
        ("epochs", "/epochs has the state of another run, with epochs 9 \\(now 6\\)$"),
        ("damaged", "/damaged/run.json: damaged \\("),
    ],
)
def test_a_state_of_another_run_is_not_taken(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    put("seed", 30, settings={"seed": 1})
    put("images", 30, data={"images": "d2"})
    put("epochs", 30, epochs=9)
    (put("damaged", 30) / "run.json").write_text("{}")
    monkeypatch.setenv("DDPM_RESUME", name)
    with pytest.raises(StageError, match=message):
        chosen(tmp_path)


def test_a_damaged_neighbour_is_named_and_blocks_nothing(
    put: Put, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = put("own", 30)
    (put("empty", 50) / "run.json").write_text("")
    (put("short", 50, **OTHER_THREADS) / "state.pt").write_text("")
    assert chosen(tmp_path) == (own, 30, ())
    empty, short = capfd.readouterr().err.splitlines()
    assert empty.startswith(f"train: passes over {own.parent}/empty/run.json: damaged (")
    assert empty.endswith("); the command of that run repairs it")
    assert short.startswith(f"train: passes over {own.parent}/short/state.pt: damaged (")
    assert short.endswith(f"); remove {own.parent}/short")
