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
from urllib.parse import quote

import pandas as pd
from PIL import Image
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from ddpm.config import STRICT, ConfigError
from ddpm.drawing.scenes import CATEGORIES, draw_scene
from ddpm.rng import numpy_stream
from stages.fetch.archive import DamagedError, place, unzip
from stages.fetch.folder import PassedOver, pictures
from stages.fetch.splits import found_at, hold_out, require_apart
from stages.kit.enough import by_dvc, require_enough
from stages.kit.errors import StageError, without_credentials
from stages.kit.files import path_given
from stages.kit.params import FILE, Source, read_params
from stages.kit.progress import progress
from stages.kit.workers import in_order
from stages.shared.download import download, download_folder
from stages.shared.files.formats import write_csv
from stages.shared.lmdbs import count_records, lmdb_path, split_lmdbs, write_lmdb

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
Factors = list[dict[str, Any]]  # one row per image: split, category, key, and what was drawn
SAID = 10
"""Categories that are named at the end."""
Fraction = Annotated[float, Field(gt=0, lt=1)]
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

    `{category}` in a path stands for the name of each category. Where `val` is empty, `val_fraction` of the images in
    `train` are held out.
    """

    kind: Literal["path"]
    train: Annotated[str, Field(min_length=1)]
    val: str | None
    val_fraction: Fraction

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_place(self)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FolderConfig(Source):
    """Folders of pictures on this machine, with paths and held-out images as `PathConfig` has them."""

    kind: Literal["folder"]
    train: Annotated[str, Field(min_length=1)]
    val: str | None
    val_fraction: Fraction

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_place(self)


def _require_place(config: PathConfig | FolderConfig) -> None:
    for name, path in (("train", config.train), ("val", config.val)):
        if path and len(config.categories) > 1 and "{category}" not in path:
            raise ValueError(
                f"{name} = {path}: one path for {len(config.categories)} categories; put {{category}} in it"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LsunConfig(Source):
    """Servers with LSUN's layout, one as good as another: `<url>/<category>_<split>_lmdb.zip`.

    That of LSUN's objects has no splits, `<url>/<category>.zip`: `val_fraction` of the images are held out.
    """

    kind: Literal["lsun"]
    urls: Annotated[tuple[Annotated[str, Field(pattern="^https?://")], ...], Field(min_length=1)]
    val_fraction: Fraction | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(without_credentials(url) != url for url in self.urls):
            raise ValueError("urls has a password; Git, dvc.lock and the page would show it: put it into ~/.netrc")


class Published(NamedTuple):
    """What is known of one of LSUN's zips."""

    records: int
    bytes: int
    sha256: str


class Fetched(NamedTuple):
    """What there is to say of one category and split: of what was drawn, and of what was no picture."""

    drawn: Sequence[dict[str, Any]] = ()
    passed_over: Sequence[PassedOver] = ()


def main(*, published: Path, lmdb: Path, factors: Path, passed_over: Path) -> str:
    """Write `<category>_<split>_lmdb/data.mdb` for each category of `sources.<data>` and split into the folder LMDB.

    FACTORS gets what was drawn, PASSED_OVER the files of a folder that are no pictures. PUBLISHED is the table of
    LSUN's zips, which downloads are held to.
    """
    params = read_params()
    source = params.source()
    name = params.top.data
    if source.kind not in KINDS:
        raise ConfigError(f"{FILE}: sources.{name}.kind = {source.kind!r}: must be one of {', '.join(KINDS)}")
    config_class, fetch = KINDS[source.kind]
    config = params.section(config_class, "sources", name)
    known = read_published(published)
    fraction = fraction_of(config)
    require_apart(places_of(config))
    rows: Factors = []
    others: list[PassedOver] = []
    for category in config.categories:
        targets = {split: lmdb_path(lmdb, category, split) for split in SPLITS}
        for split in SPLITS[:1] if fraction else SPLITS:
            fetched = fetch(config, category, split, targets[split], known.get((category, split)))
            rows += fetched.drawn
            others += fetched.passed_over
        if fraction:
            hold_out(targets["train"], targets["val"], fraction)
    write_csv(factors, pd.DataFrame(rows) if rows else pd.DataFrame(columns=["split", "category", "key"]))
    write_csv(passed_over, pd.DataFrame(others, columns=list(PassedOver._fields)))
    found = {split: split_lmdbs(lmdb, config.categories, split) for split in SPLITS}
    counts = {split: sum(map(count_records, paths.values())) for split, paths in found.items()}
    if not counts["val"]:
        raise StageError(f"{FILE}: sources.{name}: no category has two images, so none is held out; name others in val")
    if by_dvc():
        require_enough(params, counts["train"], counts["val"])
    said = ", ".join(config.categories[:SAID]) + (", ..." if len(config.categories) > SAID else "")
    return f"{counts['train']:,} training and {counts['val']:,} held-out images of {said} in {lmdb}"


def fraction_of(config: Source) -> float | None:
    """Which fraction of the images of each category is held out; None where these come by themselves."""
    match config:
        case PathConfig() | FolderConfig():
            return None if config.val else config.val_fraction
        case LsunConfig():
            return config.val_fraction
    return None


def places_of(config: Source) -> dict[str, Path]:
    """The folders or files on this machine that images come from, by what an error calls them.

    Raises:
        StageError: one isn't there.
    """
    if not isinstance(config, PathConfig | FolderConfig):
        return {}
    splits = SPLITS if config.val else SPLITS[:1]
    return dict(place_of(config, category, split) for category in config.categories for split in splits)


def place_of(config: PathConfig | FolderConfig, category: str, split: Split) -> tuple[str, Path]:
    """The folder or file that one category and split comes from, after what an error calls it.

    Raises:
        StageError: it isn't there.
    """
    given = str(config.train if split == "train" else config.val).replace("{category}", category)
    name, path = f"{split} = {given}", found_at(path_given(given))
    if not path.exists():
        raise StageError(f"{name}: no such file or folder (looked for {path.absolute()})")
    if isinstance(config, PathConfig) and path.is_dir():
        path /= "data.mdb"
        if not path.is_file():
            raise StageError(f"{name}: a folder without data.mdb, so not an LMDB")
    return name, path


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


def generate(config: GenerateConfig, category: str, split: Split, target: Path, _: Published | None) -> Fetched:
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
    return Fetched(drawn=rows)


def copy(config: PathConfig, category: str, split: Split, target: Path, published: Published | None) -> Fetched:
    """Copy one category and split from this machine."""
    name, source = place_of(config, category, split)
    with source.open("rb") as stream:
        if stream.read(2) == b"PK":
            records = unzip(source, target, name)
        else:
            stream.seek(0)
            records = place(stream, source.stat().st_size, target, name)
    if published and records != published.records:
        print(f"fetch: {name}: {records} records; LSUN's {category} {split} has {published.records}", file=sys.stderr)
    return Fetched()


def gather(config: FolderConfig, category: str, split: Split, target: Path, _: Published | None) -> Fetched:
    """Collect the pictures of one category and split."""
    name, folder = place_of(config, category, split)
    passed_over: list[PassedOver] = []
    write_lmdb(target, pictures(folder, name, passed_over))
    return Fetched(passed_over=passed_over)


def download_lsun(
    config: LsunConfig, category: str, split: Split, target: Path, published: Published | None
) -> Fetched:
    """Download one category, whole or of one split; the zip is kept, so that another run needs no network."""
    file = f"{category}.zip" if config.val_fraction else f"{category}_{split}_lmdb.zip"
    published = None if config.val_fraction else published
    archive = download_folder() / "lsun" / file
    download(
        [f"{url.rstrip('/')}/{quote(file)}" for url in config.urls],
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
    return Fetched()


KINDS: dict[str, tuple[type[Any], Callable[[Any, str, Split, Path, Published | None], Fetched]]] = {
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
