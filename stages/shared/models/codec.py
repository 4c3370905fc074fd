"""An autoencoder that `autoencode` has trained, as the way from images to latents and back."""

from pathlib import Path

import numpy as np
import torch

from ddpm.autoencoder.network import Autoencoder, AutoencoderConfig, Codec
from ddpm.config import ConfigError, parse
from ddpm.devices.precision import placed
from ddpm.images import to_model_range, to_uint8
from stages.kit.files import digest
from stages.kit.progress import progress
from stages.shared.files.formats import read_safetensors
from stages.shared.files.latents import STATISTICS, latents_in


def load_codec(folder: Path | None, wanted: str, device: torch.device) -> Codec:
    """The autoencoder in FOLDER, whose file must have the digest `wanted`, as the weights of a model name it.

    Raises:
        ConfigError: it isn't there, or another one is.
    """
    if folder is None:
        raise ConfigError("the model draws latents: name the folder with their autoencoder, as --latents data/latents")
    file = latents_in(folder).autoencoder
    if not file.exists():
        raise ConfigError(f"{file}: not there, but the model draws latents; `autoencode` writes it")
    if digest(file) != wanted:
        raise ConfigError(f"{file}: another autoencoder than that of the latents which the model has learnt")
    return read_codec(file, device)


def read_codec(file: Path, device: torch.device) -> Codec:
    """The autoencoder in FILE."""
    tensors, metadata = read_safetensors(file)
    mean, std = (tensors.pop(name).to(device) for name in STATISTICS)
    autoencoder = Autoencoder(parse(AutoencoderConfig, metadata["network"], f"{file}: network"))
    autoencoder.load_state_dict(tensors)
    return Codec(placed(autoencoder, device).eval(), mean, std)


def decoded(codec: Codec, images: np.ndarray, at_once: int, device: torch.device) -> np.ndarray:
    """What becomes of `images`, uint8 `[N, H, W, 3]`, on the way to the means of their latents and back."""
    parts = []
    with torch.inference_mode(), progress(len(images), "img", label="latents and back") as bar:
        for first in range(0, len(images), at_once):
            block = to_model_range(images[first : first + at_once]).to(device)
            parts.append(to_uint8(codec.decode(codec.encode(block))))
            bar.update(len(block))
    return np.concatenate(parts)
