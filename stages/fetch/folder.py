"""Pictures below a folder: found at any depth, told from other files by their first bytes."""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ddpm.pictures.codec import encoding_of
from stages.kit.errors import StageError
from stages.kit.progress import progress
from stages.shared.lmdbs import KEY_BYTES

HEAD = 16  # bytes, which show what a file is


def pictures(folder: Path, name: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield `(key, content)` of each JPEG, PNG and WebP file; say how many others there are.

    The key is the path below `folder`. In memory are one file and the names in the folders above it.

    Raises:
        StageError: no folder, or no picture; `name` is what an error calls it.
    """
    if not folder.is_dir():
        raise StageError(f"{name}: not a folder ({folder.resolve()})")
    counts = Counter[str]()
    total = sum(1 for _ in entries(folder))
    with progress(total, "files", label=name) as bar:
        for path in entries(folder):
            bar.update()
            hidden = path.name.startswith(".")
            content = None if hidden else read_picture(path)
            counts["hidden" if hidden else "pictures" if content else "others"] += 1
            if content:
                yield key_of(path.relative_to(folder)), content
    others = f"{counts['others']} that are no JPEG, PNG or WebP, {counts['hidden']} hidden"
    if not counts["pictures"]:
        raise StageError(f"{name}: no picture among {total} files; passed over: {others}")
    if counts.total() > counts["pictures"]:
        print(f"fetch: {name}: {counts['pictures']} pictures; passed over: {others}", file=sys.stderr)


def entries(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All files at any depth, through links, in the order of their names; what is hidden isn't opened.

    A link to one of the folders that it stands in isn't followed, but counts as a file.
    """
    here = above | {folder.resolve()}
    with os.scandir(folder) as found:
        names = sorted(found, key=lambda entry: entry.name)
    for entry in names:
        path = Path(entry.path)
        if entry.name.startswith(".") or not entry.is_dir() or path.resolve() in here:
            yield path
        else:
            yield from entries(path, here)


def read_picture(path: Path) -> bytes | None:
    """The file whole, or None where its first bytes are no picture's."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(HEAD)
        return None if encoding_of(head) == "other" else head + file.read()


def key_of(path: Path) -> bytes:
    """The path itself, or, where LMDB takes no key so long, its hash and its end."""
    name = os.fsencode(path.as_posix())
    return name if len(name) <= KEY_BYTES else hashlib.sha256(name).hexdigest().encode() + name[-KEY_BYTES // 2 :]
