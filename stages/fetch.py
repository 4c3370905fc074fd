"""Stage `fetch`: the chosen source of images, whatever its kind, as LSUN-format LMDBs."""

import functools
import hashlib
import multiprocessing
import os
import signal
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import pandas as pd
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from ddpm.config import STRICT, ConfigError
from ddpm.images import encode
from ddpm.rng import numpy_stream
from ddpm.scenes import draw_scene
from stages._download import download, download_folder, require_space
from stages._io import replacing, repository_root, write_csv
from stages._lmdb import count_records, write_lmdb
from stages._main import StageError, progress, run
from stages._params import FILE, read_params

Split = Literal["train", "val"]
Factors = list[dict[str, Any]]  # one row per image: split, key, and what was drawn
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GenerateConfig:
    """The embedded data set: drawn churches."""

    kind: Literal["generate"]
    train_images: PositiveInt
    val_images: PositiveInt
    seed: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PathConfig:
    """LMDB folders, `data.mdb` files or LSUN zips on this machine, relative to the repository."""

    kind: Literal["path"]
    train: str
    val: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Archive:
    """What a download is held to; nothing for what isn't known."""

    bytes: PositiveInt | None
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LsunConfig:
    """A server with LSUN's layout: `{url}/{category}_{split}_lmdb.zip`."""

    kind: Literal["lsun"]
    category: str
    url: Annotated[str, Field(pattern="^https?://")]
    train: Archive
    val: Archive


def main(train: Path, val: Path, factors: Path) -> None:
    """Write the images of `sources.<data>` as the LMDB files TRAIN and VAL, and what was drawn to the table FACTORS."""
    params = read_params()
    name = params.top.data
    kind = str(params.mapping("sources", name).get("kind"))
    if kind not in KINDS:
        raise ConfigError(f"{FILE}: sources.{name}.kind = {kind!r}: must be one of {', '.join(KINDS)}")
    config_class, fetch = KINDS[kind]
    config = params.section(config_class, "sources", name)
    rows = fetch(config, "train", train) + fetch(config, "val", val)
    write_csv(factors, pd.DataFrame(rows) if rows else pd.DataFrame(columns=["split", "key"]))


def generate(config: GenerateConfig, split: Split, target: Path) -> Factors:
    """Draw the images of one split, each from (seed, split, index) alone."""
    images = config.train_images if split == "train" else config.val_images
    rows: Factors = []

    def records() -> Iterator[tuple[bytes, bytes]]:
        draw = functools.partial(_draw, config.seed, split)
        with multiprocessing.Pool(_cores(), _ignore_interrupt) as pool, progress(images, "images", label=split) as bar:
            for data, drawn in pool.imap(draw, range(images), chunksize=8):
                key = hashlib.sha1(data).hexdigest()
                rows.append({"split": split, "key": key, **drawn})
                yield key.encode(), data
                bar.update()

    write_lmdb(target, records())
    return rows


def copy(config: PathConfig, split: Split, target: Path) -> Factors:
    """Copy one split from this machine."""
    given = config.train if split == "train" else config.val
    source, name = repository_root() / given, f"{split} = {given}"
    if not source.exists():
        raise StageError(f"{name}: no such file or folder (looked for {source.resolve()})")
    if source.is_dir():
        source /= "data.mdb"
        if not source.is_file():
            raise StageError(f"{name}: a folder without data.mdb, so not an LMDB")
    with source.open("rb") as stream:
        if stream.read(2) == b"PK":
            _unzip(source, target, name)
        else:
            stream.seek(0)
            _place(stream, source.stat().st_size, target, name)
    return []


def download_lsun(config: LsunConfig, split: Split, target: Path) -> Factors:
    """Download one split; the zip is kept, so that another run needs no network."""
    expected = config.train if split == "train" else config.val
    url = f"{config.url.rstrip('/')}/{config.category}_{split}_lmdb.zip"
    archive = download_folder() / url.partition("://")[2]
    download(url, archive, size=expected.bytes, sha256=expected.sha256)
    _unzip(archive, target, str(archive))
    print(f"{archive} is kept; `dvc repro` doesn't need it any more", file=sys.stderr)
    return []


KINDS: dict[str, tuple[type[Any], Callable[[Any, Split, Path], Factors]]] = {
    "generate": (GenerateConfig, generate),
    "path": (PathConfig, copy),
    "lsun": (LsunConfig, download_lsun),
}


def _draw(seed: int, split: Split, index: int) -> tuple[bytes, dict[str, Any]]:
    """One encoded image and its factors. As in LSUN, either encoding occurs in one LMDB."""
    scene = draw_scene(seed, split, index)
    heads = numpy_stream(seed, f"encoding/{split}", index).random() < 0.5
    return encode(scene.image, "jpeg" if heads else "webp"), scene.factors


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ignore_interrupt() -> None:
    """Ctrl-C reaches every process of a terminal; only the parent reports it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unzip(archive: Path, target: Path, name: str) -> None:
    """Stream the only `data.mdb` of `archive` to `target`."""
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if member.filename.rpartition("/")[2] == "data.mdb"]
            if len(members) != 1:
                raise StageError(f"{name}: a zip with {len(members)} files data.mdb; LSUN's have one")
            with file.open(members[0]) as stream:
                _place(stream, members[0].file_size, target, name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise StageError(f"{name}: a damaged zip, or none ({error})") from None


def _place(stream: IO[bytes], size: int, target: Path, name: str) -> None:
    """Copy `size` bytes of an LMDB to `target`, where it appears only when it is one."""
    require_space(target.parent, size)
    with replacing(target) as whole:
        with whole.open("wb") as file, progress(size, "B", label=str(target)) as bar:
            while chunk := stream.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        count_records(whole, name)


if __name__ == "__main__":
    run(main)
