"""Parts of a long computation, kept in files, so that a killed one goes on where it was."""

import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.kit.files import replacing

SECONDS = 60
"""Between two saves of a part that isn't done: what a kill costs at most."""


class Parts:
    """Named arrays in `folder`, one file for each part; names of files begin with `prefix`."""

    def __init__(self, folder: Path, prefix: str = ""):
        self.folder, self.prefix, self.saved_at = folder, prefix, time.monotonic()

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """The part, or None where it wasn't saved."""
        file = self._file(name)
        if not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (zipfile.BadZipFile, EOFError, ValueError):  # damaged: it is computed anew
            return None

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Replace the part; a crash leaves the old one."""
        with replacing(self._file(name)) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # of its stub
        self.saved_at = time.monotonic()

    def due(self) -> bool:
        """Whether nothing was saved for `SECONDS`."""
        return time.monotonic() - self.saved_at > SECONDS

    def kept(self, name: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The part; where it wasn't saved, `compute` it and save it."""
        found = self.load(name)
        if found is None:
            found = compute()
            self.save(name, found)
        return found

    def _file(self, name: str) -> Path:
        return self.folder / f"{self.prefix}{name.replace(' ', '_')}.npz"
