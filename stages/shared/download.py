"""Download one file from mirrors that may fail, held to its size and digest, and at its place only when whole.

What is down lies in `target.part`, whose length says where to go on: a download may be stopped anywhere, by kill -9 as
well. Nothing is taken away from it unless it is known to be wrong.
"""

import errno
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import requests
from tqdm import tqdm

from stages.kit.errors import StageError, without_credentials
from stages.kit.files import repository_root, require_space, write_text
from stages.kit.locks import locked
from stages.kit.progress import progress
from stages.shared.http import LostError, RefusedError, ask, extent, read, require_success

ATTEMPTS = 6  # failures in a row without a new byte, after which a mirror is given up
LONGEST_WAIT = 60.0  # seconds between two attempts, whatever the server asks for
SECOND = 1.0  # of waiting
LARGE = 100_000_000  # bytes that take long enough to hash for a progress bar


def download_folder() -> Path:
    """Where downloads are kept: shared by every run of a checkout, `dvc exp run --temp` and `--queue` included."""
    return repository_root() / ".cache" / "download"


def download(
    urls: Sequence[str],
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    pin: str | None = None,
    attempts: int = ATTEMPTS,
    record: bool = True,
) -> Path:
    """Make `target` the file at `urls`, mirrors tried in order, of `size` bytes and digest `sha256` (hex) where given.

    Nothing is done where `target` already is that file. While another process downloads it, wait and say so. `pin` says
    in messages where size and digest stand. Where no digest is given, the first download writes it to `target.sha256`,
    as sha256sum does, and later ones are held to it; not so with `record=False`. A mirror is given up after `attempts`
    failures in a row without a new byte.

    Raises:
        StageError: no mirror delivers, the wrong size or digest, no disk space. Whatever it is, `target.part` is kept,
            and the next call goes on from there; one of the wrong digest is replaced.
    """
    note, part, lock = (target.with_name(f"{target.name}.{ending}") for ending in ("sha256", "part", "lock"))
    had = target.exists() and target.stat().st_mtime_ns
    if _is_there(target, _wanted(size, sha256, pin, note if record else None)):
        return target
    with _naming_a_full_disk(part), locked(lock, target.name, "downloading the same file"):
        wanted = _wanted(size, sha256, pin, note if record else None)
        has = target.exists() and target.stat().st_mtime_ns
        if has != had and _is_there(target, wanted):  # another process has downloaded it in the meantime
            return target
        with _opened(part) as file:
            _Transfer(file, part, wanted, target.name, attempts).run(urls)
        if record and not wanted.sha256:
            digest = _digest(part)
            write_text(note, f"{digest}  {target.name}\n")  # before the rename: no target goes without its record
            _say(f"{target}: {part.stat().st_size} bytes, sha256 {digest}, checked against nothing; see {note}")
        part.replace(target)
    return target


@dataclass(frozen=True)
class _Wanted:
    """What a file is held to."""

    size: int | None
    sha256: str | None
    place: str  # where that stands
    remedy: str  # what accepts another digest


def _wanted(size: int | None, sha256: str | None, pin: str | None, note: Path | None) -> _Wanted:
    if not sha256 and note and note.exists():
        recorded = re.match(r"([0-9a-fA-F]{64}) [ *]", note.read_text(encoding="utf-8", errors="replace"))
        if not recorded:
            raise StageError(f"{note}: not what sha256sum writes; remove it, and the next download writes it anew")
        return _Wanted(size, recorded[1].lower(), str(note), f"remove {note}")
    return _Wanted(size, sha256 and sha256.lower(), pin or "asked for", f"put its sha256 into {pin or 'the call'}")


def _is_there(path: Path, wanted: _Wanted) -> bool:
    """Whether there is a file at `path` that is right, as far as that is known."""
    if not path.exists():
        return False
    right_size = wanted.size in (None, path.stat().st_size)
    return right_size and (not wanted.sha256 or _digest(path) == wanted.sha256)


def _opened(part: Path) -> BinaryIO:
    """Open `part` for reading and writing, as it is."""
    # Not "ab": with O_APPEND, writes go to the end whatever the position.
    return os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b")


@contextmanager
def _naming_a_full_disk(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of closing, too, which writes
        if error.errno != errno.ENOSPC:
            raise
        raise StageError(f"no disk space in {part.parent}; what is down is kept in {part.name}") from None


class _Transfer:
    """Fills the file `part` until it is what is wanted."""

    def __init__(self, file: BinaryIO, part: Path, wanted: _Wanted, label: str, attempts: int):
        self.file, self.part, self.wanted, self.label, self.attempts = file, part, wanted, label, attempts
        self.complete = self.have == wanted.size  # by the wanted size or by the server's word
        self.digest: str | None = None  # of what is there, once hashed
        self.ranged = True  # whether the server may be asked to go on in the middle
        self.gained = False  # whether this attempt brought a new byte
        self.bar: tqdm | None = None

    @property
    def have(self) -> int:
        """The length of the part."""
        return self.file.seek(0, os.SEEK_END)

    @property
    def rejected(self) -> bool:
        """Whether the part is a whole file, but not the wanted one."""
        return self.complete and self.digest not in (None, self.wanted.sha256)

    @property
    def stale(self) -> bool:
        """Whether what is there can't be a part of the wanted file."""
        return self.rejected or (self.wanted.size is not None and self.have > self.wanted.size)

    def run(self, urls: Sequence[str]) -> None:
        """Try the mirrors in turn.

        Raises:
            StageError: none of them delivers.
        """
        if self.have and self._is_done():
            return
        reasons = []
        try:
            for url, following in zip(urls, [*urls[1:], None], strict=True):
                try:
                    self._fetch(url)
                    if self._is_done():
                        return
                    reason = f"sha256 is {self.digest}, not {self.wanted.sha256} ({self.wanted.place})"
                except RefusedError as error:
                    reason = str(error)
                reasons.append(f"{url}: {reason}".replace("\n", " "))
                if following:
                    _say(f"{reasons[-1]}; going on with {following}")
        finally:
            self._hide()
        raise StageError("; ".join([*(reasons or [f"{self.label}: no URL"]), *self._kept()]))

    def _is_done(self) -> bool:
        """Whether the part is what is wanted; where no size is known, only its digest can say so without the server."""
        if self.wanted.sha256 and (self.complete or self.wanted.size is None):
            self.digest = _digest(self.part)
            return self.digest == self.wanted.sha256
        return self.complete

    def _kept(self) -> list[str]:
        """What is left for the next call, for the error message."""
        if self.rejected:
            accept = f"to accept it, {self.wanted.remedy}, and the same command takes it without a download"
            return [f"the last file is kept as {self.part}: {accept}; otherwise it starts over"]
        return [f"{self.have} bytes are kept, the same command goes on from there"] if self.have else []

    def _fetch(self, url: str) -> None:
        """Take from `url` what the part lacks, in as many attempts as it needs."""
        failures = 0
        self.ranged = True
        while self.stale or not self.complete:
            self.gained = False
            try:
                self._attempt(url)
            except LostError as error:
                self.complete |= self.have == self.wanted.size
                if self.complete and not self.stale:
                    return  # only the end of the answer was lost
                failures = 1 if self.gained else failures + 1
                if failures >= self.attempts:
                    times = f" ({failures} times in a row)" if failures > 1 else ""
                    raise RefusedError(f"{error}{times}") from None
                wait = min(max(2.0 ** (failures - 1), error.wait), LONGEST_WAIT)
                _say(f"{self.label}: {error}; going on in {wait:.0f} s")
                time.sleep(wait * SECOND)

    def _attempt(self, url: str) -> None:
        start = self.have if self.ranged and not self.stale else 0
        size = self.wanted.size
        with ask(url, start) as response:
            require_success(response, start)
            first, total = extent(response)
            if size is not None and total not in (None, size):
                known = f"{size} ({self.wanted.place}, to be changed if this is a new version)"
                raise RefusedError(f"the server's file has {total} bytes, not {known}")
            if first is not None and (first == start or response.status_code == 200):
                self._receive(response, first, total)
            elif first is None and total == self.have and size is None:  # nothing lies behind what is down
                self.complete = True
            elif start:
                self.ranged = False  # the server doesn't know how, or its file is shorter than the part: ask for all
            else:
                raise RefusedError(f"a useless Content-Range: {response.headers.get('Content-Range')!r}")

    def _shown(self, position: int, limit: int | None) -> tqdm:
        """The progress bar, at `position`: a new one where it would have to jump, so that its rate is true."""
        if self.bar is None or self.bar.n != position:
            self._hide()
            self.bar = progress(limit, "B", initial=position, label=self.label)
        return self.bar

    def _hide(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _receive(self, response: requests.Response, position: int, total: int | None) -> None:
        """Write what `response` carries from `position` on; what lies behind it stays until it is overtaken."""
        limit = self.wanted.size if total is None else total
        require_space(self.part.parent, (limit or 0) - self.have)
        if self.stale:
            self.file.truncate(0)  # known to be wrong
        self.complete, self.digest = False, None
        had = self.have
        bar = self._shown(position, limit)
        self.file.seek(position)
        while position != total and (chunk := read(response)):
            if limit is not None and position + len(chunk) > limit:
                raise RefusedError(f"the server's file has more than {limit} bytes ({self.wanted.place})")
            self.file.write(chunk)
            position += len(chunk)
            self.gained |= position > had
            bar.update(len(chunk))
        if position < (had if limit is None else limit):
            raise LostError(f"the connection ended at byte {position} of {limit or 'an unknown number'}")
        self.file.truncate(position)  # where the size isn't known, the part may have been longer than the file is now
        self.file.flush()
        os.fsync(self.file.fileno())
        self.complete = True


def _say(message: str) -> None:
    """One line on stderr that doesn't tear the progress bar."""
    tqdm.write(without_credentials(message), file=sys.stderr)


def _digest(path: Path) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    shown = progress(size, "B", label=f"verifying {path.name}") if size > LARGE else nullcontext()
    with path.open("rb") as file, shown as bar:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            if bar is not None:
                bar.update(len(chunk))
    return digest.hexdigest()
