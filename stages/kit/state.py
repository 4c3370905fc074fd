"""Working state of long runs: where it lies, what it belongs to, who may write it.

It lies in the checkout that the user works in, also when DVC runs the stage in a temporary copy, so that
`dvc exp run --temp` and `--queue` continue too. It can't change a result: a continued run gives the bytes of an
uninterrupted one. Each run has a folder with `run.json`, which describes it, `lock` and what is kept, of training
`state.pt`; the `KEEP` folders last worked on stay, and older ones go when a run starts, unless a process holds them. Of
several processes that train the first alone reads and writes.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ddpm.processes import from_first
from stages.kit.errors import StageError
from stages.kit.files import digest, replacing, write_text
from stages.kit.launch import first_process
from stages.kit.processes import together

KEEP = 3
"""How many runs' states are kept."""


PLUMBING = ("stages.kit.", "ddpm.config")
"""Modules that can't change an output: they are no dependency in `dvc.yaml`, and no part of what a state belongs to."""


def code_digests() -> dict[str, str]:
    """sha256 of every loaded module of ours that can change an output, by name."""
    ours = {
        name: module.__file__
        for name, module in sorted(sys.modules.items())
        if name.startswith(("ddpm.", "stages.")) and not name.startswith(PLUMBING)
    }
    return {name: digest(Path(file)) for name, file in ours.items() if file and not file.endswith("__init__.py")}


def platform_of(device: torch.device) -> dict[str, Any]:
    """What decides how sums are rounded, beside the settings and the code."""
    instructions = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    return {"torch": torch.__version__, "device": device.type, "threads": threads, "instructions": instructions}


class Saved(NamedTuple):
    """A state, and the epochs of the run that it was saved by."""

    state: dict[str, Any]
    epochs: int


class WorkingState:
    """One run's `state.pt` in `folder`; before there is one, that in the folder `lender` of another run."""

    def __init__(self, folder: Path, lender: Path | None = None):
        self.folder, self.lender = folder, lender
        self.file = folder / "state.pt"

    def latest(self) -> Path | None:
        """The file that `load` reads."""
        folder = self.folder if self.file.exists() else self.lender
        return folder and folder / "state.pt"

    def load(self) -> Saved | None:
        """The last saved state, on the CPU, in every process; None before the first."""
        return from_first(self._read() if first_process() else None)

    def _read(self) -> Saved | None:
        file = self.latest()
        if file is None:
            return None
        state = torch.load(file, map_location="cpu", weights_only=True)
        return Saved(state, _described(file.parent)["epochs"])

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state; a crash leaves the old one."""
        with together():
            if first_process():
                with replacing(self.file) as temporary:
                    torch.save(dict(state), temporary)


@contextmanager
def working_state(root: Path, identity: Mapping[str, Any], epochs: int, lent_steps: int = 0) -> Iterator[WorkingState]:
    """The state under `root` of the run of `epochs` that `identity` describes: its data, parameters, code, platform.

    Before it has one, it is lent that of a run which differs in its epochs alone: of those with at most `lent_steps`
    the one with the most.

    Raises:
        StageError: another process works on it, or nothing can be written there.
    """
    with together():
        lender = _lender(root, identity, lent_steps) if first_process() else None
    run = {"epochs": epochs, "identity": identity}
    with run_folder(root, run, "training the same run", used=[lender] if lender else []) as folder:
        yield WorkingState(folder, lender)


@contextmanager
def run_folder(root: Path, run: Mapping[str, Any], doing: str, used: Sequence[Path] = ()) -> Iterator[Path]:
    """The folder under `root` of the run that `run` describes; those `used` stay too.

    Raises:
        StageError: another process, `doing` the same, has it, or nothing can be written there.
    """
    folder = root / hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:16]
    with ExitStack() as held:
        with together():
            if first_process():
                try:
                    held.enter_context(_locked(folder, doing))
                    write_text(folder / "run.json", json.dumps(run, indent=2) + "\n")
                    with suppress(FileNotFoundError):  # another process, at its end, has removed what was to be
                        _prune(root, used=[*used, folder])
                except OSError as error:
                    raise StageError(f"{root}: the state of the run can't be kept here: {error}") from None
        yield folder


@contextmanager
def _locked(folder: Path, doing: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(lock.fileno()), (folder / "lock").stat())
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:  # locked, or removed by another's `_prune` between the opening and the lock
            raise StageError(f"another process is {doing} in {folder}; wait for it or stop it")
        yield


def _described(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def step_of(file: Path) -> int:
    """The step of a saved state."""
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)["step"]  # mapped: the rest isn't read


def _lender(root: Path, identity: Mapping[str, Any], steps: int) -> Path | None:
    """The folder of the run with the most steps, up to `steps`, of those that `identity` describes but for epochs."""
    identity = json.loads(json.dumps(identity))  # where tuples are lists
    states = [file.with_name("state.pt") for file in root.glob("*/run.json")]
    alike = [file for file in states if file.exists() and _described(file.parent)["identity"] == identity]
    lent = {file.parent: step_of(file) for file in alike}
    return max((path for path in lent if lent[path] <= steps), key=lambda path: lent[path], default=None)


def _prune(root: Path, used: list[Path]) -> None:
    """Remove all but the `KEEP` states last worked on, `used` among them, and those that a process holds."""
    for folder in used:
        os.utime(folder)
    folders = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for folder in folders[:-KEEP]:
        with suppress(OSError), (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
