"""Download one file: resumed where it stopped, held to its size and digest, and at its place only when whole."""

import fcntl
import hashlib
import os
import re
import shutil
import sys
from pathlib import Path
from typing import BinaryIO

import requests

from stages._io import repository_root
from stages._main import StageError, progress

CHUNK = 1 << 16  # bytes; what a lost connection loses at most
TIMEOUT = (15, 60)  # seconds to connect, seconds without a byte


def download_folder() -> Path:
    """Where downloads are kept: shared by every run of a checkout, `dvc exp run --temp` and `--queue` included."""
    return repository_root() / ".cache" / "download"


def require_space(folder: Path, needed: int) -> None:
    """Fail before the work where `folder` has less than `needed` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StageError(f"no disk space in {folder}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free")


def download(
    url: str, target: Path, *, size: int | None = None, sha256: str | None = None, label: str | None = None
) -> Path:
    """Make `target` the file at `url`, of `size` bytes and digest `sha256` (hex) where they are known.

    Nothing is done where `target` already is that file. An interrupted download leaves `target.part` beside it, which
    the next call continues; a file of the wrong digest is removed. What was not known is printed.

    Raises:
        StageError: no connection, an HTTP error, the wrong size or digest, no disk space, a second downloader.
    """
    if target.exists() and not _fault(target, size, sha256):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageError(f"another process is downloading {part}; wait for it or stop it") from None
        if file.tell() != size:
            _fill(file, url, size, label or target.name)
        file.flush()
        os.fsync(file.fileno())
        fault = _fault(part, size, sha256)
        if fault:
            part.unlink()
            raise StageError(f"{url}: {fault}; the download was removed")
        part.replace(target)
    if size is None or not sha256:
        print(f"{url}: {target.stat().st_size} bytes, sha256 {_digest(target)} (not checked)", file=sys.stderr)
    return target


def _fill(file: BinaryIO, url: str, size: int | None, label: str) -> None:
    """Append to `file` what it lacks of `url`, or all of it where the server or the file doesn't allow to continue."""
    have = file.tell() if size is None or file.tell() < size else 0
    try:
        with _request(url, have) as response:
            start, total = _extent(response, have)
            if size is not None and total not in (None, size):
                raise StageError(f"{url}: the server's file has {total} bytes, not {size}")
            file.truncate(start)
            file.seek(start)
            if total is not None:
                require_space(Path(file.name).parent, total - start)
            with progress(total, "B", initial=start, label=label) as bar:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
    except requests.RequestException as error:
        kept = f"; {file.tell()} bytes are kept, the same command goes on from there" if file.tell() else ""
        raise StageError(f"{url}: {_reason(error)}{kept}") from None


def _request(url: str, have: int) -> requests.Response:
    """Ask for `url` from byte `have` on; where the server has no such byte, for all of it."""
    headers = {"Accept-Encoding": "identity"}  # as stored: the server's bytes are counted and digested
    if have:
        response = requests.get(url, stream=True, timeout=TIMEOUT, headers={**headers, "Range": f"bytes={have}-"})
        if response.status_code != requests.codes.requested_range_not_satisfiable:
            return response
        response.close()
    return requests.get(url, stream=True, timeout=TIMEOUT, headers=headers)


def _extent(response: requests.Response, have: int) -> tuple[int, int | None]:
    """The first byte that `response` carries (`have`, or 0) and the size of the whole file, if it says so."""
    if response.status_code == requests.codes.ok:
        length = response.headers.get("Content-Length")
        return 0, int(length) if length else None
    if response.status_code != requests.codes.partial_content:
        raise StageError(f"{response.url}: the server answers {response.status_code} {response.reason}")
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if not found or int(found[1]) != have:
        raise StageError(f"{response.url}: asked for byte {have}, got {response.headers.get('Content-Range')!r}")
    return have, int(found[2])


def _reason(error: requests.RequestException) -> str:
    """The innermost cause in a few words."""
    cause = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)
    words = str(cause.args[0] if isinstance(cause, Exception) and cause.args else cause)
    return re.sub(r"^.*?[)>]: ", "", words) or type(error).__name__  # without urllib3's name of the connection


def _fault(path: Path, size: int | None, sha256: str | None) -> str | None:
    """What is wrong with the file at `path`, if anything."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"{found} bytes, not {size}"
    if sha256 and _digest(path) != sha256.lower():
        return f"sha256 is {_digest(path)}, not {sha256}"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
