"""Training images that occur twice or are held out as well: found, listed, dropped."""

from pathlib import Path

import numpy as np
import pandas as pd

from ddpm.duplicates import Twins, twins_between, twins_within
from stages._io import write_npy_header
from stages._main import StageError

RADIUS = 8.0
"""Near duplicates differ by no more than this root mean square, in levels; benchmarks/README.md says why."""
BLOCK = 256
"""Images moved at once."""


class ArrayFile:
    """A `.npy` file, mapped only while a part of it is copied: else all of its pages would come to count as memory."""

    def __init__(self, path: Path):
        whole = np.load(path, mmap_mode="r")
        self.path, self.offset, self.shape = path, whole.offset, whole.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return np.array(np.memmap(self.path, np.uint8, "r", self.offset, self.shape)[rows])


def find_duplicates(train: Path, val: Path, seen: pd.DataFrame, held_out: pd.DataFrame) -> pd.DataFrame:
    """The images of the array `train` that occur earlier in it, or in `val`; by row, with keys and distances."""
    images, unseen = ArrayFile(train), ArrayFile(val)
    own = _named(seen)
    within = _listed(twins_within(images, RADIUS), own, own, "train")
    between = _listed(twins_between(images, unseen, RADIUS), own, _named(held_out), "val")
    return pd.concat([within, between], ignore_index=True)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[table["status"] == "ok", ["key", "category"]].reset_index(drop=True)


def _listed(twins: Twins, images: pd.DataFrame, others: pd.DataFrame, split: str) -> pd.DataFrame:
    rows = np.flatnonzero(twins.other >= 0)
    there = others.iloc[twins.other[rows]].add_prefix("twin_").reset_index(drop=True)
    exact = (twins.rms[rows] == 0) & ~twins.mirrored[rows]
    return pd.concat(
        [
            pd.DataFrame({"row": rows}),
            images.iloc[rows].reset_index(drop=True),
            pd.DataFrame({"twin_split": split}, index=range(len(rows))),
            there,
            pd.DataFrame(
                {
                    "kind": np.where(exact, "exact", "near"),
                    "mirrored": np.where(twins.mirrored[rows], "yes", "no"),
                    "rms": twins.rms[rows].round(3),
                }
            ),
        ],
        axis=1,
    )


def drop(path: Path, table: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Take the images that `found` lists out of the array at `path`, in place; the index says then what they repeat.

    Raises:
        StageError: no image would be left.
    """
    repeated = found.drop_duplicates("row").set_index("row")
    kept = np.setdiff1d(np.arange((table["status"] == "ok").sum()), repeated.index)
    if not len(kept):
        raise StageError("extract.dedupe = drop leaves no training image: all of them are held out as well")
    for start in range(0, len(kept), BLOCK):
        moved = kept[start : start + BLOCK]
        images = np.load(path, mmap_mode="r+")
        images[start : start + len(moved)] = images[moved]
    with path.open("r+b") as file:
        write_npy_header(file, len(kept), images.shape[1])
        file.truncate(file.tell() + len(kept) * images[0].nbytes)
    table = table.copy()
    gone = table["row"].isin(repeated.index)
    table.loc[gone, "reason"] = [
        f"repeats {split} {key}" for split, key in repeated[["twin_split", "twin_key"]].itertuples(index=False)
    ]
    table.loc[gone, "status"] = "duplicate"
    table.loc[gone, "row"] = pd.NA
    table.loc[table["status"] == "ok", "row"] = range(len(kept))
    return table
