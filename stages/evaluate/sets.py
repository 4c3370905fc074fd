"""The images that are compared as distributions, and their features."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import lpips
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ddpm.evaluation.estimates import Estimate, mean_pairwise
from ddpm.evaluation.perceptual import distance_sums, embed, pooled_features
from ddpm.images import to_model_range
from ddpm.rng import numpy_stream
from stages.evaluate.compare import kept_estimates
from stages.kit.enough import fewest
from stages.kit.errors import StageError
from stages.kit.parts import Parts
from stages.kit.progress import progress
from stages.shared.files.images import image_set, open_alike, read_index

BATCHES = 4
"""Batches of the network in memory at once, with their features."""


class Sets(NamedTuple):
    """The `images` of samples, training and held-out images, uint8 `[N, H, W, 3]`, and their `tables`.

    `measured` are the rows of training images that are compared as samples are: as many as there are samples, but at
    most half of all. `rest` are the other rows.
    """

    images: Mapping[str, np.ndarray]
    tables: Mapping[str, pd.DataFrame]
    measured: np.ndarray
    rest: np.ndarray


def open_sets(samples: Path, images: Path, neighbourhood: int, seed: int) -> Sets:
    """Open the samples in a folder and the real images in another; `seed` draws `measured`.

    Raises:
        StageError: they don't belong together, or are too few.
    """
    files = {
        "samples": image_set(samples, "samples"),
        "train": image_set(images, "train"),
        "held_out": image_set(images, "val"),
    }
    arrays = dict(zip(files, open_alike(dict(files.values())), strict=True))
    order = numpy_stream(seed, "evaluate: real").permutation(len(arrays["train"]))
    measured = min(len(arrays["samples"]), len(order) // 2)
    for name, count in (*((name, len(array)) for name, array in arrays.items()), ("train", measured)):
        if count < fewest(neighbourhood):
            raise StageError(
                f"{files[name].array}: {count} images to compare; "
                f"evaluate.neighbourhood = {neighbourhood} needs {fewest(neighbourhood)}"
            )
    tables = {name: read_index(table) for name, (_, table) in files.items()}
    return Sets(arrays, tables, np.sort(order[:measured]), np.sort(order[measured:]))


@dataclass(frozen=True)
class Kept:
    """What the network `model` says of sets of images, `at_once` in a pass; computed once and kept in `parts`."""

    model: lpips.LPIPS
    at_once: int
    parts: Parts

    def features(self, name: str, images: np.ndarray, rows: np.ndarray | None = None) -> Tensor:
        """`features_of` the set `name`."""
        found = self.parts.kept(name, lambda: {"features": features_of(self.model, self.at_once, images, rows).numpy()})
        return torch.from_numpy(found["features"])

    def diversity(self, name: str, images: np.ndarray, rows: np.ndarray | None = None) -> Estimate:
        """`diversity_of` the set `name`."""
        estimate = functools.partial(diversity_of, self.model, self.at_once, images, rows)
        return kept_estimates(self.parts, f"diversity {name}", lambda: [estimate()])[0]


def features_of(model: lpips.LPIPS, at_once: int, images: np.ndarray, rows: np.ndarray | None = None) -> Tensor:
    """`pooled_features` of uint8 `[N, H, W, 3]`, or of `rows` of it, `at_once` in a pass, on the CPU: `[n, D]`."""
    rows, parts = np.arange(len(images)) if rows is None else rows, []
    with progress(len(rows), "img", label="features") as bar:
        for block in blocks_of(rows, BATCHES * at_once):
            parts.append(pooled_features(model, to_model_range(images[block]), at_once).cpu())
            bar.update(len(block))
    return torch.cat(parts)


def diversity_of(model: lpips.LPIPS, at_once: int, images: np.ndarray, rows: np.ndarray | None = None) -> Estimate:
    """The mean LPIPS of all pairs of uint8 `[N, H, W, 3]`, or of some of its `rows`, `at_once` in a pass."""
    rows = np.arange(len(images)) if rows is None else rows
    with progress(2 * len(rows), "img", label="diversity") as bar:

        def embedded() -> Iterator[Tensor]:
            for block in blocks_of(rows, BATCHES * at_once):
                yield embed(model, to_model_range(images[block]), at_once).cpu()
                bar.update(len(block))

        return mean_pairwise(distance_sums(embedded))


def blocks_of(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """`rows` in parts of `size`."""
    return [rows[first : first + size] for first in range(0, len(rows), size)]
