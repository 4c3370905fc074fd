"""The files of a folder of latents, as `autoencode` writes them; of a model that learns pixels it is empty."""

from pathlib import Path
from typing import NamedTuple


class Latents(NamedTuple):
    """Latents of the training images and of their mirror images, float32 `[N, 2, C, h, w]`, and the autoencoder."""

    array: Path
    autoencoder: Path


def latents_in(folder: Path) -> Latents:
    """The files in `folder`, whether they are there or not."""
    return Latents(folder / "train.npy", folder / "autoencoder.safetensors")
