"""Files appear whole or not at all: every writer fills a temporary neighbour and renames it."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.kit.errors import StageError

FULL = 1 << 22  # bytes; a write that fails for want of space may leave as much


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path`, on any error it is removed.

    It has one name, so that what a killed process left is overwritten by the next. One process writes a path at a time:
    DVC sees to that for outputs, a lock for working states.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with naming_a_full_disk(path.parent):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming_a_full_disk(folder: Path) -> Iterator[None]:
    """Turn the error of a library that found the disk of `folder` full into an OSError that says so.

    LMDB calls it an input/output error, torch an unexpected position, NumPy counts what it wrote; safetensors gives the
    system's own words.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        if shutil.disk_usage(folder).free > FULL and os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise OSError(f"no disk space in {folder}") from error


def require_space(folder: Path, needed: int) -> None:
    """Fail before the work where `folder` has less than `needed` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StageError(f"no disk space in {folder}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_given(text: str) -> Path:
    """The path that a parameter names: relative to the checkout, or to the home folder where it begins with `~/`."""
    return repository_root() / (Path(text).expanduser() if text.startswith("~/") else text)


def repository_root() -> Path:
    """The checkout that the user works in; DVC may run a stage in a temporary copy of it."""
    return Path(os.environ.get("DVC_ROOT", "."))
