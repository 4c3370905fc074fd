"""The files of a folder of latents, as `autoencode` writes them; a model that learns pixels has none."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddpm.config import ConfigError
from stages.kit.errors import StageError
from stages.kit.files import digest
from stages.shared.files.formats import read_metadata

STATISTICS = ("latents.mean", "latents.std")
"""Names of the tensors `[C]` beside the weights of the autoencoder."""


class Latents(NamedTuple):
    """Latents of the training images and of their mirror images, float32 `[N, 2, C, h, w]`, and the autoencoder."""

    array: Path
    autoencoder: Path


def latents_in(folder: Path) -> Latents:
    """The files in `folder`, whether they are there or not."""
    return Latents(folder / "train.npy", folder / "autoencoder.safetensors")


class EncodedImages(NamedTuple):
    """Latents `[N, 2, C, h, w]`, read from disk where they are used, and the digests of both files."""

    array: np.ndarray
    autoencoder: str
    digest: str


def open_latents(folder: Path | None, images: int, size: int, preprocessing: str) -> EncodedImages:
    """Open the latents in `folder`, of so many `images` of `size` px that were made by `preprocessing`.

    Raises:
        ConfigError: no folder is given.
        StageError: they aren't there, or not of these images.
    """
    if folder is None:
        raise ConfigError("the model learns latents: name their folder, as --latents data/latents")
    array, autoencoder = latents_in(folder)
    if not array.exists():
        raise StageError(f"{array}: not there, but the model learns latents; `autoencode` writes it")
    opened = np.load(array, mmap_mode="r")
    made = read_metadata(autoencoder)
    encoded, wanted = (len(opened), made["size"], made["image_recipe"]), (images, size, preprocessing)
    if encoded != wanted:
        of, instead = (f"{count} images of {side} px ({recipe})" for count, side, recipe in (encoded, wanted))
        raise StageError(f"{array} has latents of {of}, not of {instead}: run `autoencode` again")
    return EncodedImages(opened, digest(autoencoder), digest(array))
