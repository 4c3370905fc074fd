"""Random weights that are exported, imported and drawn with."""

from pathlib import Path
from typing import Any

import torch

from ddpm.config import parse
from ddpm.diffusion.unet import UNet, UNetConfig
from stages.kit.params import read_params
from stages.shared.models.diffusion import Model, load_model

SIZE, STEPS = 32, 40


def network(channels: int = 3, size: int = SIZE, **changes: Any) -> UNet:
    values = {
        "channels": 16, "multipliers": [1, 2], "attention": [16], "blocks": 1, "dropout": 0.0, "patch": 2, "groups": 8,
        "conditional": False, "initial": "zero",
    }  # fmt: skip
    made = UNet(parse(UNetConfig, {**values, **changes}, "network"), size, 3, channels)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return made


def loaded(file: Path) -> Model:
    return load_model(file, read_params(), torch.device("cpu"), "float32")
