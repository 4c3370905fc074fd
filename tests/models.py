"""Weights of a small network, as `train` writes them, for tests of what comes after it."""

from pathlib import Path

import torch
from drawn import PREPROCESSING

from ddpm.config import parse
from ddpm.diffusion.unet import UNet, UNetConfig
from stages.kit.params import read_params
from stages.shared.files.formats import write_safetensors

NETWORK = {
    "channels": 8, "multipliers": [1, 2], "attention": [6], "blocks": 1, "dropout": 0.0, "patch": 4,
    "groups": 4, "conditional": True, "initial": "zero",
}  # fmt: skip


def write_model(folder: Path, classes: list[str]) -> None:
    """Write random weights for images of 48 px as `ema_0.99.safetensors`, conditional if there are classes."""
    network = {**NETWORK, "conditional": bool(classes)}
    state = UNet(parse(UNetConfig, network, "network"), 48, len(classes)).state_dict()
    generator = torch.Generator().manual_seed(0)
    tensors = {key: torch.randn(value.shape, generator=generator) * 0.2 for key, value in state.items()}
    settings = {
        "network": network,
        "recipe": {"target": "v"},
        "diffusion": {"steps": 1000, "schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
        "size": 48,
        "image_recipe": PREPROCESSING.name,
        "classes": classes,
        "sampling": read_params().mapping("models", "smoke", "sampling"),
    }
    write_safetensors(folder / "ema_0.99.safetensors", tensors, settings)
