"""The images that the stage `rank` compares: samples, and real images that aren't copies of each other."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ddpm.rng import numpy_stream
from stages.kit.enough import RANKED
from stages.kit.errors import StageError
from stages.shared.files.formats import ArrayFile
from stages.shared.files.images import DUPLICATES, image_set, open_alike, read_index


class Sets(NamedTuple):
    """Images, uint8 `[N, size, size, 3]`, and rows of them.

    `held_out` are those rows of `val` that have no near duplicate in `train`, `left_out` at most as many of `train`
    that have none. `group` `[N]` has one number for all training images that are near duplicates of the same. Where
    fewer than `RANKED` have none, as with frames of one video, they are any rows instead, and `repeated` says so.
    """

    samples: np.ndarray
    train: ArrayFile
    val: np.ndarray
    held_out: np.ndarray
    left_out: np.ndarray
    group: np.ndarray
    repeated: bool


def open_sets(samples_folder: Path, images: Path, count: int, seed: int) -> Sets:
    """Open the first `count` samples in a folder and the real images in another; `seed` draws `left_out`.

    Raises:
        StageError: they don't belong together, or are too few.
    """
    samples, train, val = image_set(samples_folder, "samples"), image_set(images, "train"), image_set(images, "val")
    drawn, _, unseen = open_alike(dict([samples, train, val]))
    ours = drawn[:count]
    group, held_out = without_duplicates(images / DUPLICATES, train.table, val.table)
    alone = np.flatnonzero(np.bincount(group)[group] == 1)
    for (path, _), rows in ((samples, ours), (train, group), (val, unseen)):
        if len(rows) < RANKED:
            raise StageError(f"{path}: {len(rows)} images; rank needs {RANKED}")
    repeated = min(len(alone), len(held_out)) < RANKED
    if repeated:
        alone, held_out = np.arange(len(group)), np.arange(len(unseen))
    left_out = np.sort(numpy_stream(seed, "rank: left out").permutation(alone)[: len(held_out)])
    return Sets(ours, ArrayFile(train[0]), unseen, held_out, left_out, group, repeated)


def without_duplicates(duplicates: Path, train_index: Path, val_index: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of each training image the row of the first that it repeats, or its own; the rows of `val` that none repeats."""
    rows = {"train": _rows(train_index), "val": _rows(val_index)}
    group, held_out = np.arange(len(rows["train"])), set(rows["val"].values())
    table = pd.read_csv(duplicates, dtype=str, keep_default_na=False)
    columns = ["category", "key", "other_split", "other_category", "other_key"]
    for category, key, split, *other in table[columns].to_numpy():
        if (category, key) not in rows["train"]:  # `extract` dropped it
            continue
        if split == "train":
            group[rows["train"][category, key]] = rows["train"][tuple(other)]
        else:
            held_out.discard(rows["val"][tuple(other)])
    return group, np.array(sorted(held_out), int)


def _rows(index: Path) -> dict[tuple[str, str], int]:
    """By category and key, the row of each image that is used."""
    table = read_index(index)
    return dict(zip(zip(table["category"], table["key"], strict=True), table["row"], strict=True))
