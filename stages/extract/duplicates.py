"""Training images that occur twice or are held out as well: found, listed, dropped."""

from pathlib import Path

import numpy as np
import pandas as pd

from ddpm.pictures.duplicates import Duplicates, duplicates_between, duplicates_within
from stages.kit.errors import StageError
from stages.kit.progress import progress
from stages.shared.files.formats import ArrayFile, write_npy_header

RADIUS = 8.0
"""Near duplicates differ by no more than this root mean square, in levels; benchmarks/README.md says why."""
MOVED_AT_ONCE = 256
"""Images moved at once."""


def find_duplicates(train: Path, val: Path, seen: pd.DataFrame, held_out: pd.DataFrame) -> pd.DataFrame:
    """The images of the array `train` that are in `val` as well, or else earlier in `train`; by row, with distances."""
    images, unseen = ArrayFile(train), ArrayFile(val)
    with progress(2 * len(images), "images", label="duplicates") as bar:
        leaks = duplicates_between(images, unseen, RADIUS, bar.update)
        among = np.flatnonzero(leaks.other < 0)
        bar.update(len(images) - len(among))  # of the others one duplicate is enough
        repeats = duplicates_within(images, among, RADIUS, bar.update)
    own = _named(seen)
    found = [_listed(leaks, own, _named(held_out), "val"), _listed(repeats, own, own, "train")]
    return pd.concat(found, ignore_index=True).sort_values("row", ignore_index=True)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[table["status"] == "ok", ["key", "category"]].reset_index(drop=True)


def _listed(duplicates: Duplicates, images: pd.DataFrame, others: pd.DataFrame, split: str) -> pd.DataFrame:
    rows = np.flatnonzero(duplicates.other >= 0)
    mine, theirs = images.iloc[rows], others.iloc[duplicates.other[rows]]
    exact = (duplicates.rms[rows] == 0) & ~duplicates.mirrored[rows]
    return pd.DataFrame(
        {
            "row": rows,
            "key": mine["key"].to_numpy(),
            "category": mine["category"].to_numpy(),
            "other_split": split,
            "other_key": theirs["key"].to_numpy(),
            "other_category": theirs["category"].to_numpy(),
            "kind": np.where(exact, "exact", "near"),
            "mirrored": np.where(duplicates.mirrored[rows], "yes", "no"),
            "rms": duplicates.rms[rows].round(3),
        }
    )


def drop(path: Path, table: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Take the images that `found` lists out of the array at `path`, in place; the index says then what they repeat.

    Raises:
        StageError: no image of a category would be left.
    """
    good = table.index[table["status"] == "ok"]
    kept = np.setdiff1d(np.arange(len(good)), found["row"])
    lost = set(table.loc[good, "category"]) - set(table.loc[good[kept], "category"])
    if lost:
        raise StageError(f"extract.dedupe = drop leaves no training image of {min(lost)}: all occur elsewhere")
    for start in range(0, len(kept), MOVED_AT_ONCE):
        moved = kept[start : start + MOVED_AT_ONCE]
        images = np.load(path, mmap_mode="r+")
        images[start : start + len(moved)] = images[moved]
    with path.open("r+b") as file:
        write_npy_header(file, len(kept), images.shape[1])
        file.truncate(file.tell() + len(kept) * images[0].nbytes)
    table = table.copy()
    gone = good[found["row"]]
    table.loc[gone, "status"] = "duplicate"
    table.loc[gone, "reason"] = ("repeats " + found["other_split"] + " " + found["other_key"]).to_numpy()
    table.loc[gone, "row"] = pd.NA
    table.loc[good[kept], "row"] = range(len(kept))
    return table
