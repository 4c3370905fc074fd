"""Many small images as one picture, of which the page shows a part at a time."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from stages.shared.files.formats import read_safetensors
from stages.shared.files.images import image_set

LARGEST = 64
"""Pixels: larger images are reduced to this, or the sheets would be too large for Git."""

LONGEST = 16_383
"""Pixels: the longest side of a WebP."""

SHOWN = 64
"""Samples that open beside their neighbours, at most."""


@dataclass(frozen=True)
class Sheet:
    """A grid of images in one file, of `rows` and `columns`."""

    picture: Image.Image
    rows: int
    columns: int


def sheet(images: np.ndarray) -> Sheet:
    """The sheet of uint8 `[rows, columns, H, W, 3]`."""
    rows, columns, height, width = images.shape[:4]
    picture = Image.fromarray(images.swapaxes(1, 2).reshape(rows * height, columns * width, 3))
    side = max(1, min(LARGEST, LONGEST // max(rows, columns)))
    if max(height, width) > side:
        picture = picture.resize((columns * side, rows * side), Image.Resampling.BOX)
    return Sheet(picture, rows, columns)


def path_sheet(frames: Path, shown: int) -> Sheet:
    """A row for each of the first `shown` pairs of each method, a column for each frame, of `interpolate`'s FRAMES."""
    paths = np.load(frames, mmap_mode="r")[:, :shown]  # [methods, pairs, frames, H, W, 3]
    return sheet(paths.reshape(-1, *paths.shape[2:]))


def reverse_sheet(trajectory: Path) -> tuple[Sheet, list[int]]:
    """A row for x_t and one for the estimate of x_0 of each image that is in TRAJECTORY, a column for each frame.

    And the time step of each frame but the last, which is the sample.
    """
    tensors, metadata = read_safetensors(trajectory)
    frames = tensors["frames"].numpy().swapaxes(0, 1)  # [images, 2, frames, H, W, 3]
    return sheet(frames.reshape(-1, *frames.shape[2:])), metadata["timesteps"]


def neighbour_sheet(
    samples: Path, images: Path, neighbours: Path, best: int
) -> tuple[Sheet, list[dict[Hashable, Any]]]:
    """A row for each of the first SAMPLES, and the `best` of all that were ranked.

    It has the sample, its nearest training image, likeliest original and nearest held-out image, mirrored where they
    are meant so. And of each the line of the table NEIGHBOURS, and the `row`.
    """
    table = pd.read_csv(neighbours).sort_values("sample")
    table = table[(table["sample"] < SHOWN) | (table["rank"] <= best)]
    table["row"] = range(len(table))
    found = {name: np.load(image_set(images, name).array, mmap_mode="r") for name in ("train", "val")}
    columns = [np.load(image_set(samples, "samples").array, mmap_mode="r")[table["sample"].to_numpy()]]
    for split, row, mirrored in (
        ("train", "neighbour", "mirrored"),
        ("train", "original", "original_mirrored"),
        ("val", "held_out_neighbour", "held_out_mirrored"),
    ):
        near = found[split][table[row].to_numpy()]
        columns.append(np.where(table[mirrored].to_numpy()[:, None, None, None] == 1, near[:, :, ::-1], near))
    return sheet(np.stack(columns, axis=1)), table.to_dict("records")
