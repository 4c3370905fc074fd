"""Small sets of drawn churches, and the files in which the stages keep them."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ddpm.drawing.scenes import draw_scene
from ddpm.pictures.resizing import Preprocessing, resize

PREPROCESSING = Preprocessing(size=48, geometry="center_crop", filter="bilinear")


def draw(split: str, count: int) -> np.ndarray:
    """uint8 `[count, 48, 48, 3]`."""
    drawn = (draw_scene(0, "church", split, index).image for index in range(count))
    return np.stack([resize(np.asarray(image), PREPROCESSING) for image in drawn])


@cache
def churches() -> np.ndarray:
    """48 training images, uint8 `[48, 48, 48, 3]`."""
    return draw("train", 48)


@cache
def unseen() -> np.ndarray:
    """60 churches that are in no training set, uint8 `[60, 48, 48, 3]`."""
    return draw("val", 60)


def write_images(folder: Path, categories: tuple[str, ...] = ("church",)) -> None:
    """Write 48 images and their table; it has one image more, that could not be read."""
    np.save(folder / "train.npy", churches())
    labels = [label for label in range(len(categories)) for _ in range(48 // len(categories))]
    rows = {"row": range(48), "category": [categories[label] for label in labels], "label": labels}
    broken = {"row": [None], "category": categories[-1:], "label": [len(categories) - 1]}
    table = pd.concat([pd.DataFrame(broken, dtype=object), pd.DataFrame(rows, dtype=object)])
    table.assign(preprocessing=PREPROCESSING.name).to_csv(folder / "train.csv", index=False)


def write_set(path: Path, images: np.ndarray) -> None:
    """Write an array and its table, whose keys are those of digits."""
    np.save(path.with_suffix(".npy"), images.astype(np.uint8))
    table = pd.DataFrame({"row": range(len(images)), "key": [f"0{i}" for i in range(len(images))]})
    table.assign(category="church", label=0, preprocessing=PREPROCESSING.name).to_csv(
        path.with_suffix(".csv"), index=False
    )


def write_duplicates(path: Path, *pairs: tuple[int, str, int]) -> None:
    """Write near duplicates: row in training, split and row of its duplicate."""
    columns = ["key", "category", "other_split", "other_key", "other_category"]
    rows = [(f"0{row}", "church", split, f"0{other}", "church") for row, split, other in pairs]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
