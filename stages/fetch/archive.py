"""LSUN's zips: one `data.mdb`, and nothing else leaves them."""

import errno
import lzma
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from stages.kit.errors import StageError
from stages.kit.files import replacing, require_space
from stages.kit.progress import progress
from stages.shared.lmdbs import count_records, used_bytes

CHUNK_BYTES = 1 << 20  # bytes
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError),
)
"""What `zipfile` raises where the bytes are wrong."""
MAX_RATIO = 50
"""Unpacked to packed bytes: encoded images hardly shrink, and what grows more than this is a trap."""


class DamagedError(StageError):
    """The archive itself is of no use, whatever is done about the disk."""


def unzip(archive: Path, target: Path, name: str) -> int:
    """Stream the only `data.mdb` of `archive` to `target`; its number of records. `name` is what an error calls it.

    Raises:
        DamagedError: no zip or a damaged one.
        StageError: no space, none or two files `data.mdb`, a member that would leave the folder that it
            is unpacked in, a symbolic link, a file that is far larger than its packed form.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                _require_harmless(member, name)
            found = [member for member in file.infolist() if PurePosixPath(member.filename).name == "data.mdb"]
            if len(found) != 1:
                raise StageError(f"{name}: a zip with {len(found)} files data.mdb; LSUN's have one")
            most = MAX_RATIO * found[0].compress_size + CHUNK_BYTES
            with file.open(found[0]) as stream:
                return place(stream, found[0].file_size, target, name, most)
    except OSError as error:
        # Without a number it is bz2's complaint or that of a full disk; EINVAL is a seek to a place that can't be.
        if error.errno not in (None, errno.EINVAL) or str(error).startswith("no disk space"):
            raise
        raise DamagedError(f"{name}: a damaged zip, or none ({error})") from None
    except DAMAGED as error:
        raise DamagedError(f"{name}: a damaged zip, or none ({error})") from None


def _require_harmless(member: zipfile.ZipInfo, name: str) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts[:1] and path.parts[0].endswith(":")):
        raise StageError(f"{name}: refused, its member {member.filename!r} points outside of the archive")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise StageError(f"{name}: refused, its member {member.filename!r} is a symbolic link")


def place(stream: IO[bytes], size: int, target: Path, name: str, most: int | None = None) -> int:
    """Copy an LMDB of `size` bytes to `target`, where it appears only when it is one; its number of records.

    What its map has beyond the last page that is used stays behind.

    Raises:
        StageError: no space, no LMDB, or more than `most` bytes; `name` is what the error calls it.
    """
    with replacing(target) as whole:
        chunk = stream.read(CHUNK_BYTES)
        whole.write_bytes(chunk)
        used = min(size, used_bytes(whole, name))
        if most is not None and used > most:
            raise StageError(f"{name}: refused, its data.mdb grows to {used} bytes, more than {most}")
        require_space(target.parent, used)
        with whole.open("wb") as file, progress(used, "B", label=str(target)) as bar:
            while chunk and file.tell() < used:
                bar.update(file.write(chunk[: used - file.tell()]))
                chunk = stream.read(CHUNK_BYTES)
        while isinstance(stream, zipfile.ZipExtFile) and chunk:
            chunk = stream.read(CHUNK_BYTES)  # at the end of a zip's member its checksum is compared
        return count_records(whole, name)
