"""Many small images as one picture, of which the page shows a part at a time."""

import base64
import io
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from stages.shared.formats import read_safetensors

LARGEST = 64
"""Pixels: larger images are reduced to this, or the page would be too large to send."""

SHOWN = 64
"""Samples that open beside their neighbours, at most."""


@dataclass(frozen=True)
class Sheet:
    """A grid of images as a data URI."""

    uri: str
    rows: int
    columns: int


def sheet(images: np.ndarray) -> Sheet:
    """The sheet of uint8 `[rows, columns, H, W, 3]`, losslessly compressed."""
    rows, columns, height, width = images.shape[:4]
    picture = Image.fromarray(images.swapaxes(1, 2).reshape(rows * height, columns * width, 3))
    if max(height, width) > LARGEST:
        picture = picture.resize((columns * LARGEST, rows * LARGEST), Image.Resampling.BOX)
    return Sheet(uri(picture), rows, columns)


def uri(picture: Image.Image) -> str:
    """A picture as a data URI: lossless WebP, two thirds of what PNG takes."""
    # More effort takes ten times as long for one per cent.
    picture.convert("RGB").save(buffer := io.BytesIO(), "webp", lossless=True, quality=50, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


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


def neighbour_sheet(samples: Path, train: Path, val: Path, neighbours: Path) -> tuple[Sheet, list[dict[Hashable, Any]]]:
    """A row for each of the first samples: itself, its nearest training image, likeliest original and held-out image.

    Mirrored where they are meant so. And of each the line of the table NEIGHBOURS.
    """
    table = pd.read_csv(neighbours).sort_values("sample").head(SHOWN)
    found = {name: np.load(path, mmap_mode="r") for name, path in (("train", train), ("val", val))}
    columns = [np.load(samples, mmap_mode="r")[: len(table)]]
    for split, row, mirrored in (
        ("train", "neighbour", "mirrored"),
        ("train", "original", "original_mirrored"),
        ("val", "held_out_neighbour", "held_out_mirrored"),
    ):
        images = found[split][table[row].to_numpy()]
        columns.append(np.where(table[mirrored].to_numpy()[:, None, None, None] == 1, images[:, :, ::-1], images))
    return sheet(np.stack(columns, axis=1)), table.to_dict("records")
