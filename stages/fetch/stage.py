"""Stage `fetch`: the chosen source of images, whatever its kind, as LSUN-format LMDBs."""

import csv
import functools
import hashlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
from PIL import Image
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from ddpm.config import STRICT, ConfigError
from ddpm.drawing.scenes import CATEGORIES, draw_scene
from ddpm.rng import numpy_stream
from stages.fetch.archive import DamagedError, place, unzip
from stages.fetch.folder import is_held_out, pictures
from stages.kit.errors import StageError, without_credentials
from stages.kit.files import path_given
from stages.kit.params import FILE, Source, read_params
from stages.kit.progress import progress
from stages.kit.workers import in_order
from stages.shared.download import download, download_folder
from stages.shared.formats import write_csv
from stages.shared.lmdbs import count_records, lmdb_path, write_lmdb

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
Factors = list[dict[str, Any]]  # one row per image: split, category, key, and what was drawn
DRAWN_AT_ONCE = 16
"""Images that a worker draws before it hands them over."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GenerateConfig(Source):
    """The embedded data set: drawn scenes, so many of each category."""

    kind: Literal["generate"]
    train_images: PositiveInt
    val_images: PositiveInt
    seed: Annotated[int, Field(ge=0)]

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [category for category in self.categories if category not in CATEGORIES]
        if unknown:
            raise ValueError(f"categories has {unknown[0]}; drawn are {', '.join(CATEGORIES)}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PathConfig(Source):
    """LMDB folders, `data.mdb` files or LSUN zips on this machine, relative to the repository.

    `{category}` in a path stands for the name of each category.
    """

    kind: Literal["path"]
    train: str
    val: str

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_place(self.categories, train=self.train, val=self.val)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FolderConfig(Source):
    """Folders of pictures on this machine, with paths as `PathConfig` has them.

    Where `val` is empty, `val_fraction` of the pictures in `train` are held out.
    """

    kind: Literal["folder"]
    train: str
    val: str | None
    val_fraction: Annotated[float, Field(gt=0, lt=1)]

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_place(self.categories, train=self.train, **({"val": self.val} if self.val else {}))


def _require_place(categories: Sequence[str], **paths: str) -> None:
    for name, path in paths.items():
        if len(categories) > 1 and "{category}" not in path:
            raise ValueError(f"{name} = {path}: one path for {len(categories)} categories; put {{category}} in it")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LsunConfig(Source):
    """Servers with LSUN's layout, one as good as another: `<url>/<category>_<split>_lmdb.zip`."""

    kind: Literal["lsun"]
    urls: Annotated[tuple[Annotated[str, Field(pattern="^https?://")], ...], Field(min_length=1)]

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(without_credentials(url) != url for url in self.urls):
            raise ValueError("urls has a password; Git, dvc.lock and the page would show it: put it into ~/.netrc")


class Published(NamedTuple):
    """What is known of one of LSUN's zips."""

    records: int
    bytes: int
    sha256: str


def main(*, published: Path, lmdb: Path, factors: Path) -> str:
    """Write `<category>_<split>_lmdb/data.mdb` for each category of `sources.<data>` and split into the folder LMDB.

    FACTORS gets what was drawn; PUBLISHED is the table of LSUN's zips, which downloads are held to.
    """
    params = read_params()
    source = params.source()
    name = params.top.data
    if source.kind not in KINDS:
        raise ConfigError(f"{FILE}: sources.{name}.kind = {source.kind!r}: must be one of {', '.join(KINDS)}")
    config_class, fetch = KINDS[source.kind]
    config = params.section(config_class, "sources", name)
    known = read_published(published)
    rows: Factors = []
    for category in config.categories:
        for split in SPLITS:
            target = lmdb_path(lmdb, category, split)
            rows += fetch(config, category, split, target, known.get((category, split)))
    write_csv(factors, pd.DataFrame(rows) if rows else pd.DataFrame(columns=["split", "category", "key"]))
    counts = [sum(count_records(lmdb_path(lmdb, name, split)) for name in config.categories) for split in SPLITS]
    return f"{counts[0]:,} training and {counts[1]:,} held-out images of {', '.join(config.categories)} in {lmdb}"


def read_published(path: Path) -> dict[tuple[str, str], Published]:
    """The table of LSUN's zips by category and split; its figures are those of TensorFlow Datasets' catalogue."""
    known = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                found = Published(int(row["records"]), int(row["bytes"]), str(row["sha256"]).lower())
            except (KeyError, TypeError, ValueError):
                found = Published(0, 0, "")
            if not re.fullmatch("[0-9a-f]{64}", found.sha256):
                raise StageError(f"{path}: line {number}: not category, split, records, bytes and sha256")
            known[row["category"], row["split"]] = found
    return known


def generate(config: GenerateConfig, category: str, split: Split, target: Path, _: Published | None) -> Factors:
    """Draw the images of one category and split, each from (seed, category, split, index) alone."""
    images = config.train_images if split == "train" else config.val_images
    rows: Factors = []

    def records() -> Iterator[tuple[bytes, bytes]]:
        draw = functools.partial(_draw, config.seed, category, split)
        with progress(images, "images", label=f"{category} {split}") as bar:
            starts = range(0, images, DRAWN_AT_ONCE)
            for batch in in_order(draw, (range(start, min(start + DRAWN_AT_ONCE, images)) for start in starts)):
                for data, drawn in batch:
                    key = hashlib.sha1(data).hexdigest()
                    rows.append({"split": split, "category": category, "key": key, **drawn})
                    yield key.encode(), data
                    bar.update()

    write_lmdb(target, records())
    return rows


def copy(config: PathConfig, category: str, split: Split, target: Path, published: Published | None) -> Factors:
    """Copy one category and split from this machine."""
    given = (config.train if split == "train" else config.val).replace("{category}", category)
    source, name = path_given(given), f"{split} = {given}"
    if not source.exists():
        raise StageError(f"{name}: no such file or folder (looked for {source.resolve()})")
    if source.is_dir():
        source /= "data.mdb"
        if not source.is_file():
            raise StageError(f"{name}: a folder without data.mdb, so not an LMDB")
    with source.open("rb") as stream:
        if stream.read(2) == b"PK":
            records = unzip(source, target, name)
        else:
            stream.seek(0)
            records = place(stream, source.stat().st_size, target, name)
    if published and records != published.records:
        print(f"fetch: {name}: {records} records; LSUN's {category} {split} has {published.records}", file=sys.stderr)
    return []


def gather(config: FolderConfig, category: str, split: Split, target: Path, _: Published | None) -> Factors:
    """Collect the pictures of one category and split."""
    train, val = (path.replace("{category}", category) for path in (config.train, config.val or config.train))
    given, name = (train, f"train = {train}") if split == "train" else (val, f"val = {val}")
    if config.val:
        _require_apart(train, val)
    elif split == "val":
        name = f"val ({config.val_fraction:g} of {train}, chosen by name)"

    def wanted(key: bytes) -> bool:
        return bool(config.val) or is_held_out(key, config.val_fraction) == (split == "val")

    write_lmdb(target, pictures(path_given(given), wanted, name))
    return []


def _require_apart(train: str, val: str) -> None:
    ours, theirs = (path_given(path).resolve() for path in (train, val))
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise StageError(f"train = {train}, val = {val}: one lies in the other; name two apart, or leave val empty")


def download_lsun(
    config: LsunConfig, category: str, split: Split, target: Path, published: Published | None
) -> Factors:
    """Download one category and split; the zip is kept, so that another run needs no network."""
    file = f"{category}_{split}_lmdb.zip"
    archive = download_folder() / "lsun" / file
    download(
        [f"{url.rstrip('/')}/{file}" for url in config.urls],
        archive,
        size=published.bytes if published else None,
        sha256=published.sha256 if published else None,
        pin=f"stages/fetch/lsun.csv, {category} {split}",
    )
    try:
        records = unzip(archive, target, str(archive))
    except DamagedError as error:
        if published:
            raise
        # Held to nothing, it was taken as it came: the next run takes another.
        for path in (archive, archive.with_name(f"{archive.name}.sha256")):
            path.unlink(missing_ok=True)
        raise StageError(f"{error}; it was removed, the same command downloads it anew") from None
    if published and records != published.records:
        raise StageError(
            f"{archive}: {records} records, not {published.records} (stages/fetch/lsun.csv, {category} {split})"
        )
    print(f"{archive} is kept; `dvc repro` doesn't need it any more", file=sys.stderr)
    return []


KINDS: dict[str, tuple[type[Any], Callable[[Any, str, Split, Path, Published | None], Factors]]] = {
    "generate": (GenerateConfig, generate),
    "path": (PathConfig, copy),
    "lsun": (LsunConfig, download_lsun),
    "folder": (FolderConfig, gather),
}


def _draw(seed: int, category: str, split: Split, indices: range) -> list[tuple[bytes, dict[str, Any]]]:
    """Encoded images and their factors. As in LSUN, either encoding occurs in one LMDB."""
    drawn = []
    for index in indices:
        scene = draw_scene(seed, category, split, index)
        heads = numpy_stream(seed, f"encoding/{category}/{split}", index).random() < 0.5
        drawn.append((encode(scene.image, "jpeg" if heads else "webp"), scene.factors))
    return drawn


def encode(image: Image.Image, encoding: Literal["jpeg", "webp"]) -> bytes:
    """Encode an RGB image at quality 90 of the encoder's own scale."""
    buffer = io.BytesIO()
    image.save(buffer, encoding, quality=90)
    return buffer.getvalue()
