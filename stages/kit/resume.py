"""Which saved state a run continues from, and what is said of those that it could but doesn't.

The states of a root folder are compared by their `run.json`. One that was saved with the same data, settings, code,
packages and processor is continued, to the bytes of an uninterrupted run. One that differs in the last three is left
alone and named; the environment variable `DDPM_RESUME` takes it.
"""

import json
import os
import pickle
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from stages.kit.errors import StageError
from stages.kit.files import repository_root

VARIABLE = "DDPM_RESUME"
"""Names the folder of a state to continue from; `new` means to begin at step 0."""
DAMAGED = (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a damaged file may raise."""


class Candidate(NamedTuple):
    """A state that a run could continue from, and what was different when it was saved, in words."""

    folder: Path
    step: int
    differs: tuple[str, ...]


def described(folder: Path) -> dict[str, Any]:
    """The run that a folder belongs to."""
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def step_of(file: Path) -> int:
    """The step of a saved state."""
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)["step"]  # mapped: the rest isn't read


def damage(file: Path, error: Exception) -> str:
    """What is wrong with a file that can't be read."""
    return f"{file}: damaged ({(str(error).splitlines() or [type(error).__name__])[0]})"


def beginning_anew(file: Path, error: Exception) -> StageError:
    """The error of a run whose own state is damaged."""
    return StageError(f"{damage(file, error)}; remove {file.parent} or set {VARIABLE}=new: both begin at step 0")


def say(folder: Path, message: str) -> None:
    """One line on stderr about a state."""
    print(f"{folder.parent.name}: {message}", file=sys.stderr)


def state_to_continue(own: Path, run: Mapping[str, Any], lent_steps: int) -> Candidate | None:
    """The state that `run`, whose folder is `own`, continues from; None to begin at step 0.

    It is the one of `own`; else, of runs which differ in their epochs alone and have at most `lent_steps`, the one with
    the most steps. One that `DDPM_RESUME` names is preferred if it is further on: so the variable may stay in the
    script of a job, which later continues from its own states. A state further on that is not taken, because it differs
    in code, packages or processor, is named on stderr.

    Raises:
        StageError: the run's own state is damaged, or `DDPM_RESUME` names no state of this run.
    """
    wanted = os.environ.get(VARIABLE, "").strip()
    if wanted == "new":
        return None
    run = json.loads(json.dumps(run))  # where tuples are lists, as in the files
    named = _named(own.parent, wanted) if wanted else None
    folders = {file.parent for file in own.parent.glob("*/state.pt")} | ({named} if named else set())
    every = [_candidate(folder, run, lent_steps, (own, named)) for folder in sorted(folders)]
    candidates = [each for each in every if each]
    fitting = [each for each in candidates if not each.differs]
    chosen = next((each for each in fitting if each.folder == own), None)
    chosen = chosen or max(fitting, key=lambda each: each.step, default=None)
    asked = next((each for each in candidates if each.folder == named), None)
    if asked and (chosen is None or asked.step > chosen.step):
        chosen = asked
    reached = chosen.step if chosen else 0
    if ahead := [each for each in candidates if each.differs and each.step > reached]:
        _point_at(max(ahead, key=lambda each: each.step))
    return chosen


def _point_at(other: Candidate) -> None:
    is_there = f"{other.folder} has step {other.step} of this run, but with {', '.join(other.differs)}"
    say(other.folder, f"{is_there}; it is kept and not continued; {VARIABLE}={other.folder.name} continues it")


def _named(root: Path, wanted: str) -> Path:
    """The folder that `DDPM_RESUME` names: a path, or the name of a folder in `root`."""
    places = [root / wanted, repository_root() / wanted]
    for folder in places:
        if (folder / "state.pt").exists():
            return folder
    where = " or ".join(dict.fromkeys(map(str, places)))
    raise StageError(f"{VARIABLE} = {wanted!r}: there is no state.pt in {where}; {VARIABLE}=new begins at step 0")


def _candidate(
    folder: Path, run: Mapping[str, Any], lent_steps: int, needed: tuple[Path, Path | None]
) -> Candidate | None:
    """The state in `folder` if it is one of `run`, but for code, packages, processor, and epochs up to `lent_steps`.

    `needed` are the run's own folder and the one that is named.

    Raises:
        StageError: the state is damaged or of another run, although it is needed.
    """
    own, named = needed
    file = folder / "run.json"
    try:
        theirs = described(folder)
        differs = _differences(theirs["identity"], run["identity"])
        apart = [*differs["data"], *differs["settings"]]
        if not apart:
            file = folder / "state.pt"
            step = step_of(file)
            if theirs["epochs"] == run["epochs"] or step <= lent_steps:
                return Candidate(folder, step, (*differs["code"], *differs["platform"]))
            apart = [f"epochs {theirs['epochs']} (now {run['epochs']})"]
    except DAMAGED as error:
        if folder == own:
            raise beginning_anew(file, error) from None
        if folder == named:
            raise StageError(f"{VARIABLE}: {damage(file, error)}") from None
        remedy = "the command of that run repairs it" if file.name == "run.json" else f"remove {folder}"
        say(folder, f"passes over {damage(file, error)}; {remedy}")
        return None
    if folder == named:
        raise StageError(f"{VARIABLE}: {folder} has the state of another run, with {', '.join(apart)}")
    return None


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, list[str]]:
    """In what two identities differ, in words, by section."""
    found: dict[str, list[str]] = {}
    for section in ("data", "settings", "code", "platform"):
        a, b = (dict(_flat(identity[section])) for identity in (theirs, ours))
        names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
        if section in ("data", "code"):  # digests
            found[section] = [f"other {name}" for name in names]
        else:
            found[section] = [f"{name} {a.get(name)} (now {b.get(name)})" for name in names]
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
