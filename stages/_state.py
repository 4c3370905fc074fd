"""Working state of long runs: where it lies, what it belongs to, who may write it.

It lies in the checkout that the user works in, also when DVC runs the stage in a temporary copy, so that
`dvc exp run --temp` and `--queue` continue too. It can't change a result: a continued run gives the bytes of an
uninterrupted one.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from stages._io import replacing
from stages._main import StageError

KEEP = 3
"""How many runs' states are kept; older ones go when a run starts."""


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_digests() -> dict[str, str]:
    """sha256 of the running script and of every module of ours that is loaded, by name."""
    ours = {name: module for name, module in sys.modules.items() if name.startswith(("__main__", "ddpm", "stages"))}
    return {name: digest(Path(module.__file__)) for name, module in sorted(ours.items()) if module.__file__}


class WorkingState:
    """One run's `state.pt` in `folder`."""

    def __init__(self, folder: Path):
        self.file = folder / "state.pt"

    def load(self) -> dict[str, Any] | None:
        """The last saved state, on the CPU; None before the first."""
        return torch.load(self.file, map_location="cpu", weights_only=True) if self.file.exists() else None

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state; a crash leaves the old one."""
        with replacing(self.file) as temporary:
            torch.save(dict(state), temporary)


@contextmanager
def working_state(root: Path, identity: Mapping[str, Any]) -> Iterator[WorkingState]:
    """The state under `root` of the run that `identity` describes: its data, parameters, code and platform.

    Raises:
        StageError: another process works on it.
    """
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    folder = root / key
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageError(f"another process is training the same run in {folder}; wait for it or stop it") from None
        os.utime(folder)
        _prune(root)
        yield WorkingState(folder)


def _prune(root: Path) -> None:
    """Remove all but the `KEEP` states last worked on, and those that a process holds."""
    folders = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for folder in folders[:-KEEP]:
        with suppress(OSError), (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
