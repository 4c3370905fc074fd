"""An autoencoder that `autoencode` has trained, as the way from images to latents and back."""

from pathlib import Path

import torch

from ddpm.autoencoder.network import Autoencoder, AutoencoderConfig, Codec
from ddpm.config import ConfigError, parse
from ddpm.devices.precision import placed
from stages.kit.files import digest
from stages.shared.files.formats import read_safetensors
from stages.shared.files.latents import latents_in

STATISTICS = ("latents.mean", "latents.std")
"""Names of the tensors `[C]` beside the weights."""


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
