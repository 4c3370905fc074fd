"""Where the images of each split come from: places that are apart, or a fraction of one place, chosen by their keys."""

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

import numpy as np

from stages.kit.errors import StageError
from stages.shared.lmdbs import read_keys, read_lmdb, write_lmdb


def found_at(path: Path) -> Path:
    """`path`, or the one of that name whose accents are encoded otherwise, as they are on macOS; it may not exist."""
    if path.exists() or path == path.parent:
        return path
    parent = found_at(path.parent)
    names = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    same = [name for name in names if normalize("NFC", name) == normalize("NFC", path.name)]
    return parent / (same[0] if same else path.name)


def require_apart(places: Mapping[str, Path]) -> None:
    """Fail where two places are one, or one lies in the other, also through links.

    Raises:
        StageError: with the names of both.
    """
    files: dict[tuple[int, int], str] = {}
    for name, path in places.items():
        if path.exists():
            status = path.stat()
            other = files.setdefault((status.st_dev, status.st_ino), name)
            if other != name:
                raise StageError(f"{other}, {name}: both are {path.resolve()}; name two apart, or leave val empty")
    # In the order of their parts a folder is followed by what lies in it.
    for (above, name), (below, other) in pairwise(sorted((path.resolve(), name) for name, path in places.items())):
        if below.is_relative_to(above):
            raise StageError(f"{name}, {other}: one lies in the other; name two apart, or leave val empty")


def hold_out(train: Path, val: Path, fraction: float) -> None:
    """Move this `fraction` of the records of the LMDB `train` to the LMDB `val`, those whose keys have a low hash.

    So another record changes the side of none. But of two or more, one at least is moved and one stays: that with the
    lowest hash, that with the highest. A single one stays, and there is no `val`.
    """
    hashes = np.fromiter(map(hash_of, read_keys(train)), np.uint64)
    val.unlink(missing_ok=True)
    if len(hashes) > 1:
        limit = min(max(int(fraction * 2**64), int(hashes.min()) + 1), int(hashes.max()))
        write_lmdb(val, (record for record in read_lmdb(train) if hash_of(record[0]) < limit))
        write_lmdb(train, (record for record in read_lmdb(train) if hash_of(record[0]) >= limit))


def hash_of(key: bytes) -> int:
    """A number below 2^64, evenly spread."""
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
