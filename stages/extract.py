"""Stage `extract`: encoded images of any size -> one packed array per split, and a table of what became of each."""

import sys
from collections import Counter
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field
from pydantic.dataclasses import dataclass
from tqdm import tqdm

from ddpm.config import STRICT
from ddpm.images import ENCODINGS, BadImage, Filter, decode, encoding_of, resize_center_crop, tile_grid
from stages._io import replacing, write_csv, write_json, write_png
from stages._lmdb import count_records, read_lmdb
from stages._main import StageError, progress, run
from stages._params import read_params

LABEL = 0  # one category, so far
COLUMNS = ["row", "key", "label", "source_width", "source_height", "encoding", "status", "reason"]
FIGURE_IMAGES = 64
FIGURE_COLUMNS = 8
FIGURE_SCALE = 3


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExtractConfig:
    """The resize recipe, and how much of a split may be unusable."""

    size: Annotated[int, Field(ge=32, le=1024)]  # pixels, width and height; AlexNet needs 32
    filter: Filter
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)]


def main(
    train_lmdb: Path,
    val_lmdb: Path,
    factors: Path,
    train: Path,
    val: Path,
    train_index: Path,
    val_index: Path,
    metrics: Path,
    figure: Path,
) -> None:
    """Decode and resize TRAIN_LMDB and VAL_LMDB to TRAIN and VAL, uint8 [N, size, size, 3] in the order of their keys.

    The index tables have a line for each record, bad ones included; FACTORS adds its columns to them. METRICS counts,
    FIGURE shows the first training images.
    """
    config = read_params().section(ExtractConfig, "extract")
    # As text: what another program wrote passes through unchanged, keys of digits and "NA" included.
    drawn = pd.read_csv(factors, dtype=str, keep_default_na=False)
    counts = {}
    for split, source, target, index in (
        ("train", train_lmdb, train, train_index),
        ("val", val_lmdb, val, val_index),
    ):
        records = extract(source, target, config, split)
        found = drawn[drawn["split"] == split].drop(columns="split")
        write_csv(index, records.merge(found, on="key", how="left", suffixes=(None, None)))
        counts[split] = summary(records)
    write_json(metrics, counts)
    images = np.load(train, mmap_mode="r")[:FIGURE_IMAGES]
    write_png(figure, tile_grid(images, FIGURE_COLUMNS, scale=FIGURE_SCALE))


def extract(source: Path, target: Path, config: ExtractConfig, split: str) -> pd.DataFrame:
    """Write the images of the LMDB `source` to the array `target`; the index of its records.

    Raises:
        StageError: more bad records than the parameters allow, or no good one; `target` isn't touched then.
    """
    rows = []
    images = 0
    records = count_records(source)
    with replacing(target) as temporary, temporary.open("wb") as file, progress(records, "images", label=split) as bar:
        _write_header(file, images, config.size)
        for key, value in read_lmdb(source):
            row, pixels = read_record(value, config)
            name = key.decode("utf-8", "backslashreplace")
            if pixels is None:
                tqdm.write(f"extract: {split}: bad record {name}: {row['reason']}", file=sys.stderr)
            else:
                row["row"] = images
                images += 1
                file.write(pixels.tobytes())
            rows.append({"key": name, **row})
            bar.update()
        _write_header(file, images, config.size)
        table = pd.DataFrame(rows, columns=COLUMNS).astype(
            dict.fromkeys(["row", "source_width", "source_height"], "Int64")
        )
        _check(table, source, config.max_bad_fraction)
    return table


def read_record(value: bytes, config: ExtractConfig) -> tuple[dict[str, Any], np.ndarray | None]:
    """What the index says of one record, and its pixels, uint8 `[size, size, 3]`, or None where it is bad."""
    row: dict[str, Any] = {"label": LABEL, "encoding": encoding_of(value)}
    try:
        image = decode(value)
    except BadImage as error:
        return {**row, "status": "bad", "reason": str(error)}, None
    row |= {"source_width": image.width, "source_height": image.height, "status": "ok", "reason": ""}
    return row, resize_center_crop(image, config.size, config.filter)


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Counts of one split; `n` is the number of records, good and bad."""
    statuses, encodings = Counter(table["status"]), Counter(table["encoding"])
    return {
        "n": len(table),
        "images": statuses["ok"],
        "bad": statuses["bad"],
        "encoding": {name: encodings[name] for name in ENCODINGS},
    }


def _write_header(file: IO[bytes], images: int, size: int) -> None:
    """Write the `.npy` header at the start: NumPy leaves room in it, so that another count has the same length."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (images, size, size, 3)}
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, header)


def _check(table: pd.DataFrame, source: Path, max_bad_fraction: float) -> None:
    bad = table[table["status"] == "bad"]
    if len(bad) <= max_bad_fraction * len(table) and len(bad) < len(table):
        return
    first = "; ".join(f"{row.key}: {row.reason}" for row in bad.head(3).itertuples())
    allowed = f"extract.max_bad_fraction = {max_bad_fraction}"
    raise StageError(f"{source}: {len(bad)} of {len(table)} records are bad ({allowed}): {first}")


if __name__ == "__main__":
    run(main)
