"""LSUN's container: one LMDB file, `data.mdb`, of encoded images under their keys."""

import functools
import itertools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

import lmdb

from stages.kit.errors import StageError
from stages.kit.files import naming_a_full_disk, replacing

PROBES = 256
"""Keys that show which bytes occur in keys."""
DIGITS = 16
"""Bytes of a key that tell it from its neighbours, after those that all have in common."""
KEY_BYTES = 511
"""The longest key that LMDB takes."""
DATABASE_BYTES = 48
"""Of LMDB's description of a database within another."""
MAP_SIZE = 1 << 28  # bytes of address space that writing begins with; twice as much whenever it is full


def lmdb_path(folder: Path, category: str, split: str) -> Path:
    """Where torchvision's LSUN looks below `folder`."""
    return folder / f"{category}_{split}_lmdb" / "data.mdb"


def split_lmdbs(folder: Path, categories: Sequence[str], split: str) -> dict[str, Path]:
    """The file of each category; one that has no held-out images has none for `val`."""
    files = {category: lmdb_path(folder, category, split) for category in categories}
    return {category: file for category, file in files.items() if split == "train" or file.exists()}


def write_lmdb(data_mdb: Path, records: Iterable[tuple[bytes, bytes]]) -> None:
    """Write `(key, value)` records, of distinct keys in any order, as one compact file.

    The same records in the same order give the same bytes. No lock file is left.
    """
    with (
        _naming_the_address_space(str(data_mdb)),
        replacing(data_mdb) as whole,
        _scratch_beside(data_mdb) as scratch,
        naming_a_full_disk(data_mdb.parent),
        lmdb.open(str(scratch), map_size=MAP_SIZE, sync=False, lock=False) as environment,
    ):
        for key, value in records:
            while not _put(environment, key, value, data_mdb):
                environment.set_mapsize(2 * environment.info()["map_size"])
        with whole.open("wb") as file:
            environment.copyfd(file.fileno(), compact=True)  # in key order: reading is sequential


@contextmanager
def _scratch_beside(data_mdb: Path) -> Iterator[Path]:
    """An empty folder that is removed at the end; of one name, so that the next removes what a killed process left."""
    folder = data_mdb.with_name(f".{data_mdb.name}.scratch.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(environment: lmdb.Environment, key: bytes, value: bytes, data_mdb: Path) -> bool:
    """Write one record; False where the map is full, which leaves the file as it was."""
    try:
        # One transaction each: without syncing that costs little, and memory stays flat.
        with environment.begin(write=True) as transaction:
            if not transaction.put(key, value, overwrite=False):
                raise StageError(f"{data_mdb}: two records have the key {key!r}")
    except lmdb.MapFullError:
        return False
    return True


@contextmanager
def _naming_the_address_space(name: str) -> Iterator[None]:
    """LMDB maps a file whole, which `ulimit -v` may forbid."""
    try:
        yield
    except lmdb.MemoryError:
        raise StageError(
            f"{name}: too little address space to map it whole; `ulimit -v unlimited`, or a batch system, allows more"
        ) from None


def count_records(data_mdb: Path, name: str | None = None) -> int:
    """How many records the LMDB file holds; `name` is what an error calls it.

    Raises:
        StageError: missing, not an LMDB, cut short, or empty.
    """
    with _opened(data_mdb, name or str(data_mdb)) as environment:
        _require_images(environment, name or str(data_mdb))
        return environment.stat()["entries"]


def _require_images(environment: lmdb.Environment, name: str) -> None:
    """Fail where the records lie in a database within the file's own, which has a description of it instead."""
    with environment.begin() as transaction:
        key, value = next(iter(transaction.cursor()))
        if len(value) == DATABASE_BYTES:
            with suppress(lmdb.Error):
                environment.open_db(key, txn=transaction, create=False)
                raise StageError(f"{name}: its records lie in a database within it, {key!r}; LSUN's have none")


def split_lmdb(data_mdb: Path, parts: int) -> list[bytes]:
    """The first keys of about so many runs of neighbouring records, in order, equally long if the keys are random.

    They are looked up at even distances between the first and the last key. To walk along all keys would be exact, but
    the lmdb package reads the value of every key that it passes.

    Raises:
        StageError: as `count_records`.
    """
    with _opened(data_mdb, str(data_mdb)) as environment, environment.begin() as transaction:
        cursor = transaction.cursor()
        cursor.last()
        last = cursor.key()
        cursor.first()
        first = cursor.key()

        def found(points: int, alphabet: bytes) -> set[bytes]:
            places = _between(first, last, points, alphabet)
            return {first, *(cursor.key() for place in places if cursor.set_range(place))}

        occurring = {*last, *b"".join(found(PROBES, bytes(range(256))))}
        return sorted(found(parts, bytes(sorted(occurring))))


def _between(first: bytes, last: bytes, points: int, alphabet: bytes) -> Iterator[bytes]:
    """Keys at even distances, read after what they begin with in common as numbers whose digits are the alphabet's."""
    base = len(alphabet)
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    common = bytes(byte for byte, _ in alike)

    def number_of(key: bytes) -> int:
        digits = key.removeprefix(common).ljust(DIGITS, alphabet[:1])[:DIGITS]
        return functools.reduce(lambda number, byte: number * base + alphabet.index(byte), digits, 0)

    low, high = number_of(first), number_of(last)
    for point in range(1, points):
        number = low + (high - low) * point // points
        yield common + bytes(alphabet[number // base**digit % base] for digit in reversed(range(DIGITS)))


def read_lmdb(data_mdb: Path, first: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
    """Yield `(key, value)` in key order: all, or from the key `first` on and before the key `stop`.

    Raises:
        StageError: as `count_records`.
    """
    with _opened(data_mdb, str(data_mdb)) as environment, environment.begin() as transaction:
        cursor = transaction.cursor()
        if cursor.set_range(first):
            yield from itertools.takewhile(lambda record: record[0] != stop, cursor)


def read_keys(data_mdb: Path) -> Iterator[bytes]:
    """Yield all keys in their order."""
    with _opened(data_mdb, str(data_mdb)) as environment, environment.begin() as transaction:
        yield from transaction.cursor().iternext(values=False)


def key_text(key: bytes) -> str:
    """A key as text for a table: hexadecimal ones as they are, other bytes as `%FF`; `key_bytes` undoes it."""
    return quote_from_bytes(key)


def key_bytes(text: str) -> bytes:
    """The key that `key_text` wrote as `text`."""
    return unquote_to_bytes(text)


def used_bytes(data_mdb: Path, name: str) -> int:
    """How much of the LMDB file holds something: with `writemap`, or from Windows, one is as long as its whole map.

    The beginning of the file is enough to tell.

    Raises:
        StageError: not an LMDB.
    """
    with _mapped(data_mdb, name) as environment:
        return _promised(environment)


@contextmanager
def _opened(data_mdb: Path, name: str) -> Iterator[lmdb.Environment]:
    with _mapped(data_mdb, name) as environment:
        _check_length(environment, data_mdb, name)
        if environment.stat()["entries"] == 0:
            raise StageError(f"{name}: an empty LMDB, without a single record")
        yield environment


@contextmanager
def _mapped(data_mdb: Path, name: str) -> Iterator[lmdb.Environment]:
    if not data_mdb.is_file():
        raise StageError(f"{name}: no such file")
    if data_mdb.stat().st_size == 0:
        raise StageError(f"{name}: not an LMDB (an empty file)")
    try:
        # lock=False: a lock file beside the data would be a change to a folder that DVC may track.
        with (
            _naming_the_address_space(name),
            lmdb.open(str(data_mdb), subdir=False, readonly=True, lock=False, readahead=False, max_dbs=1) as opened,
        ):
            yield opened
    except lmdb.Error as error:
        raise StageError(f"{name}: not an LMDB, or a damaged one ({str(error).rpartition(': ')[2]})") from None


def _promised(environment: lmdb.Environment) -> int:
    return (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]


def _check_length(environment: lmdb.Environment, data_mdb: Path, name: str) -> None:
    """Reading past the end of a file that was cut short would kill the process with SIGBUS."""
    promised = _promised(environment)
    found = data_mdb.stat().st_size
    # The last page or two may be free and never have been written.
    if found < promised - 2 * environment.stat()["psize"]:
        raise StageError(f"{name}: cut short, {found} of {promised} bytes; copy it again")
