"""An array of images with its table: how many there are, and the preprocessing that made them."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stages.kit.errors import StageError

FACTORS = {"time": "time of day", "weather": "weather", "form": "form of the building", "spire": "form of the roof"}
"""Columns of the tables of drawn images: what is drawn at random, of what can be seen, and in words."""
DUPLICATES = "duplicates.csv"
"""In the folder of the images, the table of those that occur twice."""


class ImageSet(NamedTuple):
    """The files of a set of images: an array, uint8 `[N, size, size, 3]`, and its table."""

    array: Path
    table: Path


def image_set(folder: Path, name: str) -> ImageSet:
    """The set `name` in `folder`: `train`, `val` or `samples`."""
    return ImageSet(folder / f"{name}.npy", folder / f"{name}.csv")


class PreparedImages(NamedTuple):
    """uint8 `[N, size, size, 3]`, read from disk where it is used, and the name of the preprocessing that made it."""

    array: np.ndarray
    preprocessing: str


def open_images(path: Path, index: Path) -> PreparedImages:
    """Open the array PATH, held to its table INDEX.

    Raises:
        StageError: the two don't belong together.
    """
    array = np.load(path, mmap_mode="r")
    table = read_index(index)
    kinds = table["preprocessing"].unique()
    if len(table) != len(array) or len(kinds) != 1:
        raise StageError(
            f"{path} has {len(array)} images, {index} says {len(table)} prepared in {len(kinds)} ways: make both anew"
        )
    return PreparedImages(array, kinds[0])


def read_index(index: Path) -> pd.DataFrame:
    """The lines of the table INDEX that have an image, in the images' order: `row` and `label` numbers, all else text.

    So a key or a category of digits, or "NA", stays what it is.
    """
    table = pd.read_csv(index, dtype=str, keep_default_na=False)
    table = table[table["row"] != ""]
    return table.astype({name: np.int64 for name in ("row", "label") if name in table}).sort_values("row")


def open_alike(pairs: Mapping[Path, Path]) -> list[np.ndarray]:
    """Open arrays by their tables, as `open_images` does, that are to be compared: all prepared alike.

    Raises:
        StageError: naming two tables that differ.
    """
    opened = {index: open_images(path, index) for path, index in pairs.items()}
    require_one_preprocessing({index: images.preprocessing for index, images in opened.items()})
    return [images.array for images in opened.values()]


def require_one_preprocessing(preprocessing: Mapping[Path, str]) -> None:
    """Fail where two sets were prepared differently; the paths are for the message.

    Raises:
        StageError: naming two of them.
    """
    (first, first_kind), *others = preprocessing.items()
    for name, other in others:
        if other != first_kind:
            raise StageError(
                f"{first}: images prepared by {first_kind}, {name}: by {other}; `dvc repro` makes them alike"
            )


def read_labels(index: Path) -> tuple[np.ndarray, list[str]]:
    """The label of each image `[N]`, and the categories that they stand for.

    Raises:
        StageError: there is a label without an image.
    """
    table = read_index(index)
    names = dict(sorted(zip(table["label"], table["category"], strict=True)))
    if list(names) != list(range(len(names))):
        raise StageError(f"{index}: images have the labels {list(names)}, where each from 0 on is wanted")
    return table["label"].to_numpy(), list(names.values())


def class_numbers(index: Path, classes: list[str]) -> np.ndarray:
    """The number among `classes` of each image's category, `[N]`.

    Raises:
        StageError: one is none of them.
    """
    categories = read_index(index)["category"]
    unknown = sorted(set(categories) - set(classes))
    if unknown:
        raise StageError(f"{index}: images of {unknown[0]}; the model knows {', '.join(classes)}")
    return categories.map(classes.index).to_numpy(np.int64)
