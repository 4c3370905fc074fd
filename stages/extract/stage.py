"""Stage `extract`: encoded images of any size -> one packed array per split, and a table of what became of each."""

import functools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from ddpm.images import tile_grid
from ddpm.pictures.codec import BadImage, decode
from ddpm.pictures.encodings import Encoding, encoding_of
from ddpm.pictures.resizing import resize
from stages.extract.config import ExtractConfig
from stages.extract.duplicates import RADIUS, drop, find_duplicates
from stages.kit.enough import RANKED, by_dvc, require_enough
from stages.kit.errors import StageError
from stages.kit.files import replacing, require_space
from stages.kit.params import read_params
from stages.kit.progress import progress
from stages.kit.workers import in_order
from stages.shared.files.formats import write_csv, write_json, write_npy_header, write_png
from stages.shared.files.images import DUPLICATES, image_set
from stages.shared.lmdbs import count_records, key_text, read_lmdb, split_lmdb, split_lmdbs

RUN = 128
"""Records that a worker reads in one go, about."""
RUN_BYTES = 1 << 26
"""What the images of a run may fill."""
USUAL: tuple[Encoding, ...] = ("jpeg", "webp", "png", "other")
"""Encodings that are counted even if there is none; others if there is one."""
FIGURE_IMAGES = 64
FIGURE_COLUMNS = 8


class Lmdb(NamedTuple):
    """One category of one split."""

    path: Path
    category: str
    label: int


class Run(NamedTuple):
    """The records of an LMDB from the key `first` on and before `stop`, or to the end."""

    lmdb: Lmdb
    first: bytes
    stop: bytes | None


class Record(NamedTuple):
    """A line of the index, which has its row before and its preprocessing behind."""

    key: str
    category: str
    label: int
    source_width: int | None
    source_height: int | None
    encoding: Encoding
    mode: str
    status: Literal["ok", "bad"]
    reason: str


class Result(NamedTuple):
    """The good images, uint8 `[n, size, size, 3]`, what there is to say of all records, and what remains to be done."""

    pixels: np.ndarray
    records: list[Record]
    rest: Run | None


def main(*, lmdb: Path, factors: Path, images: Path, details: Path, figures: Path) -> str:
    """Decode and resize the categories in LMDB to arrays in the folder IMAGES, in the order of their keys.

    `train.npy` and `val.npy` are uint8 [N, size, size, 3]; the tables beside them have a line for each record, bad ones
    included, and the columns of the table FACTORS. `duplicates.csv` lists training images that occur twice or are held
    out as well. DETAILS counts; `data.png` in the folder FIGURES shows training images.
    """
    train, val, figure = image_set(images, "train"), image_set(images, "val"), figures / "data.png"
    params = read_params()
    config = params.section(ExtractConfig, "extract")
    lmdbs = {split: lmdbs_of(lmdb, params.source().categories, split) for split in ("train", "val")}
    for source in lmdbs["train"] + lmdbs["val"]:
        count_records(source.path)  # what is missing is named before the work
    with replacing(train.array) as train_part, replacing(val.array) as val_part:
        seen = extract(lmdbs["train"], train_part, config, "train")
        held_out = extract(lmdbs["val"], val_part, config, "val")
        found = find_duplicates(train_part, val_part, seen, held_out)
        if config.dedupe == "drop":
            seen = drop(train_part, seen, found)
        modes = sorted({*seen["mode"], *held_out["mode"]} - {""})
        counts = {
            "train": summary(seen, modes, config.size) | duplicate_counts(found),
            "val": summary(held_out, modes, config.size),
        }
        if by_dvc():
            require_enough(params, counts["train"]["images"], counts["val"]["images"])
        for name, table, index in (("train", seen, train.table), ("val", held_out, val.table)):
            write_csv(index, with_factors(table, factors, name))
        write_csv(images / DUPLICATES, found.drop(columns="row"))
        write_json(details, {**counts, "near_rms": RADIUS})
        write_png(figure, tile_grid(examples(train_part, seen), FIGURE_COLUMNS))
    if config.dedupe == "keep":
        say_repeated(found, counts["val"]["images"])
    used, bad, dropped = (sum(each[key] for each in counts.values()) for key in ("images", "bad", "dropped"))
    return f"{used:,} images in {images}, {bad} bad, {dropped} dropped, {len(found)} duplicates; see {figure}"


def lmdbs_of(folder: Path, categories: Sequence[str], split: str) -> list[Lmdb]:
    """Those of the categories that have images in the split.

    Raises:
        StageError: there is none.
    """
    labels = {category: label for label, category in enumerate(categories)}
    found = [Lmdb(path, name, labels[name]) for name, path in split_lmdbs(folder, categories, split).items()]
    if not found:
        raise StageError(f"{folder}: no category has held-out images")
    return found


def say_repeated(found: pd.DataFrame, held_out: int) -> None:
    """Say on standard error that next to no held-out image is new, as with frames of one video."""
    repeated = found.loc[found["other_split"] == "val", ["other_category", "other_key"]].drop_duplicates()
    if len(repeated) and held_out - len(repeated) < RANKED:
        print(
            f"extract: {len(repeated)} of {held_out} held-out images are near duplicates of training images: "
            "comparisons with them say little; put images from elsewhere into val",
            file=sys.stderr,
        )


def extract(lmdbs: list[Lmdb], target: Path, config: ExtractConfig, split: str) -> pd.DataFrame:
    """Write the images of the LMDBs, one after the other, to the array `target`; the index of their records.

    Raises:
        StageError: more bad records than the parameters allow, or no good one.
    """
    records: list[Record] = []
    images = 0
    total = sum(count_records(lmdb.path) for lmdb in lmdbs)
    require_space(target.parent, total * 3 * config.size**2)
    with target.open("wb") as file, progress(total, "images", label=split) as bar:
        write_npy_header(file, images, config.size)
        for pixels, found, _ in _results(lmdbs, config):
            images += len(pixels)
            file.write(pixels.data)
            for record in found:
                if record.status == "bad":
                    tqdm.write(f"extract: {split}: bad record {record.key}: {record.reason}", file=sys.stderr)
            records += found
            bar.update(len(found))
        write_npy_header(file, images, config.size)
    table = _table(records, config.name)
    _check(table, lmdbs, split, config.max_bad_fraction)
    return table


def _results(lmdbs: Iterable[Lmdb], config: ExtractConfig) -> Iterator[Result]:
    """What comes of all records, in order. Runs that turn out too long are brought to their end here, in pieces."""
    for result in in_order(functools.partial(extract_run, config=config), _runs(lmdbs, _run_records(config.size))):
        yield result
        while result.rest:
            result = extract_run(result.rest, config)
            yield result


def _run_records(size: int) -> int:
    return max(1, min(RUN, RUN_BYTES // (3 * size**2)))


def _runs(lmdbs: Iterable[Lmdb], records: int) -> Iterator[Run]:
    for lmdb in lmdbs:
        firsts = split_lmdb(lmdb.path, count_records(lmdb.path) // records + 1)
        for first, stop in zip(firsts, [*firsts[1:], None], strict=True):
            yield Run(lmdb, first, stop)


def extract_run(run: Run, config: ExtractConfig) -> Result:
    """Decode and resize the records of a run, twice as many as one has on average at most.

    The file is opened here and not before: an LMDB that is open can't be handed to another process.
    """
    images: list[np.ndarray] = []
    records: list[Record] = []
    rest = None
    for key, value in read_lmdb(run.lmdb.path, run.first, run.stop):
        if len(records) == 2 * _run_records(config.size):
            rest = run._replace(first=key)
            break
        name, encoding = (key_text(key), run.lmdb.category, run.lmdb.label), encoding_of(value)
        try:
            image = decode(value, max_pixels=config.max_pixels, truncated=config.truncated)
        except BadImage as error:
            records.append(Record(*name, None, None, encoding, "", "bad", str(error)))
        else:
            height, width = image.pixels.shape[:2]
            records.append(Record(*name, width, height, encoding, image.mode, "ok", ""))
            images.append(resize(image.pixels, config))
    return Result(np.array(images, np.uint8).reshape(-1, config.size, config.size, 3), records, rest)


def _table(records: list[Record], preprocessing: str) -> pd.DataFrame:
    """The index: good records are numbered as their images lie in the array."""
    table = pd.DataFrame(records, columns=list(Record._fields)).assign(preprocessing=preprocessing)
    good = table["status"] == "ok"
    table.insert(0, "row", good.cumsum().sub(1).where(good))
    return table.astype(dict.fromkeys(("row", "source_width", "source_height"), "Int64"))


def with_factors(table: pd.DataFrame, factors: Path, split: str) -> pd.DataFrame:
    """The index with the columns of the table FACTORS, if that says anything of the split."""
    # As text: what another program wrote passes through unchanged, keys of digits and "NA" included.
    drawn = pd.read_csv(factors, dtype=str, keep_default_na=False)
    drawn = drawn[drawn["split"] == split].drop(columns="split")
    return table.merge(drawn, on=["category", "key"], how="left", suffixes=(None, None)) if len(drawn) else table


def summary(table: pd.DataFrame, modes: list[str], size: int) -> dict[str, Any]:
    """Counts of one split; `n` is the number of records, whatever became of them."""
    statuses, encodings, stored = (Counter(table[column]) for column in ("status", "encoding", "mode"))
    used = table[table["status"] == "ok"]
    images_of = Counter(used["category"])
    return {
        "n": len(table),
        "images": statuses["ok"],
        "bad": statuses["bad"],
        "dropped": statuses["duplicate"],
        "enlarged": int((used[["source_width", "source_height"]].min(axis=1) < size).sum()),
        "images_of": {name: images_of[name] for name in table["category"].unique()},
        "encoding": dict.fromkeys(USUAL, 0) | dict(sorted(encodings.items())),
        "mode": {name: stored[name] for name in modes},
    }


def duplicate_counts(found: pd.DataFrame) -> dict[str, Any]:
    """How many training images occur earlier in their split, and how many are held out as well."""
    pairs = Counter(found[["other_split", "kind"]].itertuples(index=False, name=None))
    names = {"duplicates_in_training": "train", "duplicates_held_out": "val"}
    return {name: {kind: pairs[split, kind] for kind in ("exact", "near")} for name, split in names.items()}


def examples(images: Path, table: pd.DataFrame) -> np.ndarray:
    """The first images of each category, `FIGURE_IMAGES` at most: whole rows of the figure where there are enough."""
    used = table[table["status"] == "ok"]
    share = FIGURE_IMAGES // used["category"].nunique()
    each = max(1, share // FIGURE_COLUMNS * FIGURE_COLUMNS or share)
    rows = used.groupby("category", sort=False).head(each)["row"].head(FIGURE_IMAGES)
    return np.load(images, mmap_mode="r")[rows.to_numpy(int)]


def _check(table: pd.DataFrame, lmdbs: list[Lmdb], split: str, max_bad_fraction: float) -> None:
    bad = table[table["status"] == "bad"]
    used = set(table.loc[table["status"] == "ok", "category"])
    for lmdb in lmdbs:
        if lmdb.category not in used:
            raise StageError(f"{lmdb.path}: none of its records is usable: {_first(bad[bad['label'] == lmdb.label])}")
    if len(bad) > max_bad_fraction * len(table):
        allowed = f"extract.max_bad_fraction = {max_bad_fraction}"
        raise StageError(f"{split}: {len(bad)} of {len(table)} records are bad ({allowed}): {_first(bad)}")


def _first(bad: pd.DataFrame) -> str:
    named = "; ".join(f"{row.category} {row.key}: {row.reason}" for row in bad.head(3).itertuples())
    return named if len(bad) <= 3 else f"{named}; all are named above"
