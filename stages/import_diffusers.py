"""A checkpoint of diffusers as weights that our stages take: to sample, interpolate, rank and evaluate."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from ddpm.config import ConfigError
from ddpm.unet import UNet
from stages._command import run
from stages._diffusers import diffusion_of, network_of
from stages._io import write_safetensors
from stages._main import StageError
from stages._params import read_params
from stages.extract import ExtractConfig


def main(folder: Path, weights: Path) -> str:
    """Convert FOLDER, a `DDPMPipeline` that was saved, to the file WEIGHTS.

    Its images count as made by the section `extract` of params.yaml, so that they are compared with images made so.
    """
    unet = read_json(folder / "unet/config.json")
    scheduler = read_json(folder / "scheduler/scheduler_config.json")
    try:
        network, size, classes = network_of(unet)
        diffusion, target = diffusion_of(scheduler)
        tensors = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
        UNet(network, size, classes).load_state_dict(tensors)
    except KeyError as error:
        raise StageError(
            f"{folder}: no argument {error} in unet/config.json or scheduler/scheduler_config.json"
        ) from None
    except (ConfigError, SafetensorError, RuntimeError, ValueError) as error:
        raise StageError(f"{folder}: {str(error).splitlines()[0]}") from None
    recipe = read_params().section(ExtractConfig, "extract")
    if recipe.size != size:
        raise StageError(f"params.yaml: extract.size = {recipe.size}: {folder} draws images of {size} px; set that")
    settings = {
        "network": asdict(network),
        "recipe": {"target": target},
        "diffusion": asdict(diffusion),
        "size": size,
        "image_recipe": recipe.name,
        "classes": [f"class {number}" for number in range(classes)],
    }
    write_safetensors(weights, tensors, settings)
    return f"a network for {size} px in {weights}; `python -m stages.sample {weights}` draws with it"


def read_json(path: Path) -> dict[str, Any]:
    """What stands in PATH.

    Raises:
        StageError: it can't be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{path}: {error}; a folder that DDPMPipeline.save_pretrained wrote is wanted") from None


if __name__ == "__main__":
    run(main)
