"""Pictures below a folder: found at any depth, told from other files by their first bytes."""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ddpm.pictures.encodings import HEAD, encoding_of
from stages.kit.errors import StageError
from stages.kit.progress import progress
from stages.shared.lmdbs import KEY_BYTES, key_text

SYSTEM = {
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp"),
    *("$recycle.bin", "recycler", "system volume information"),
    *("__macosx", "network trash folder", "temporary items", "lost+found"),
}
"""Folders that NAS and desktop systems make: thumbnails, deleted files, resource forks; in lower case."""
RAW = {".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".nef", ".nrw", ".pef", ".sr2", ".srw"}
"""Camera files that are TIFFs to a reader, with a preview as their picture."""


class PassedOver(NamedTuple):
    """A line of the table of files that were not taken."""

    source: str
    file: str
    reason: str


def pictures(folder: Path, name: str, passed_over: list[PassedOver]) -> Iterator[tuple[bytes, bytes]]:
    """Yield `(key, content)` of each picture; append to `passed_over` what is none, and say how much that is.

    The key is the path below `folder`. In memory are one file and the names in the folders above it.

    Raises:
        StageError: no folder, or no picture; `name` is what an error calls it.
    """
    if not folder.is_dir():
        raise StageError(f"{name}: not a folder ({folder.resolve()})")
    found, first = 0, len(passed_over)
    total = sum(1 for _ in entries(folder))
    if not total:
        raise StageError(f"{name}: an empty folder ({folder.resolve()})")
    with progress(total, "files", label=name) as bar:
        for path in entries(folder):
            bar.update()
            key = key_of(path.relative_to(folder))
            content, reason = read_picture(path)
            if reason:
                passed_over.append(PassedOver(name, key_text(key), reason))
            else:
                found += 1
                yield key, content
    others = in_words(passed_over[first:])
    if not found:
        raise StageError(f"{name}: no picture among {total} files; passed over: {others}")
    if others:
        print(f"fetch: {name}: {found} pictures; passed over: {others}", file=sys.stderr)


def in_words(passed_over: Sequence[PassedOver]) -> str:
    """How many files were passed over for each reason, with the first of them."""
    counts = Counter(each.reason for each in passed_over)
    first = {each.reason: each.file for each in reversed(passed_over)}
    return "; ".join(f"{count} {reason} ({first[reason]})" for reason, count in counts.items())


def entries(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All files at any depth, through links, in the order of their names; hidden and system folders aren't opened.

    A link to one of the folders that it stands in isn't followed, but counts as a file.
    """
    here = above | {folder.resolve()}
    with os.scandir(folder) as found:
        names = sorted(found, key=lambda entry: entry.name)
    for entry in names:
        path = Path(entry.path)
        if entry.name.startswith(".") or not _is_folder(entry) or is_system(path) or path.resolve() in here:
            yield path
        else:
            yield from entries(path, here)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def read_picture(path: Path) -> tuple[bytes, str]:
    """The file whole, or why it is passed over.

    Raises:
        OSError: naming the file, also where a disk fails in the middle of it.
    """
    if path.name.startswith("."):
        return b"", "hidden"
    if is_system(path):
        return b"", "made by a NAS or desktop system"
    if not path.is_file():
        return b"", "no file"
    if path.suffix.lower() in RAW:
        return b"", "raw camera file (develop it first)"
    with path.open("rb") as file:
        try:
            head = file.read(HEAD)
            encoding = encoding_of(head)
            rest = b"" if encoding == "other" else file.read()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
    if not head:
        return b"", "empty"
    return (b"", "no picture in a known format") if encoding == "other" else (head + rest, "")


def is_system(path: Path) -> bool:
    """Whether it is a folder that a system made."""
    return path.name.lower() in SYSTEM and path.is_dir()


def key_of(path: Path) -> bytes:
    """The path itself, or, where LMDB takes no key so long, its hash and its end."""
    name = os.fsencode(path.as_posix())
    return name if len(name) <= KEY_BYTES else hashlib.sha256(name).hexdigest().encode() + name[-KEY_BYTES // 2 :]
