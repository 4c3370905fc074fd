"""A checkpoint of diffusers as weights that our stages take: to sample, interpolate, rank and evaluate."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from ddpm.config import ConfigError
from ddpm.diffusion.unet import UNet
from stages.extract.config import ExtractConfig
from stages.kit.command import run
from stages.kit.errors import StageError
from stages.kit.params import read_params
from stages.shared.files.formats import write_safetensors
from tools.diffusers_names import diffusion_of, network_of, sampling_of

try:
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.utils import logging
except ImportError as error:
    MISSING: str | None = str(error)
else:
    MISSING = None


def main(folder: Path, weights: Path, *, scheduler: Path | None = None, allow_pickle: bool = False) -> str:
    """Convert FOLDER, a `DDPMPipeline` that was saved, to the file WEIGHTS.

    A checkpoint google/ddpm-*, whose parts lie in one folder, is one too, and so is a folder checkpoint-N of diffusers'
    own training script, with the folder SCHEDULER that lies beside it. Where there are averaged weights, `unet_ema`,
    they are taken. Its images count as made by the section `extract` of params.yaml, so that they are compared with
    images made so. Of a network with classes the last one is taken for no class, as ours has it. Tensors are read from
    safetensors, with --allow-pickle from older files as well, whose authors you have to trust. Nothing is asked of the
    network.
    """
    if MISSING:
        raise StageError(f"{MISSING}; the packages of the group `export` are needed: pip install --group export")
    if not folder.is_dir():
        raise StageError(f"{folder}: no such folder; download the checkpoint first, and name the folder that it is in")
    logging.set_verbosity_error()
    try:
        unet = next((folder / name for name in ("unet_ema", "unet") if (folder / name).is_dir()), folder)
        described = UNet2DModel.load_config(unet, local_files_only=True)
        network, size, classes = network_of(UNet2DModel.from_config(described).config)
        arguments = scheduler_in(scheduler or folder)
        diffusion, target = diffusion_of(arguments)
        sampling = sampling_of(arguments, described.get("decay", 0.0))
        ours = UNet(network, size, classes)
        tensors = weights_in(unet, allow_pickle=allow_pickle)
        ours.load_state_dict(tensors)
    except (ConfigError, RuntimeError, OSError, ValueError, SafetensorError) as error:
        raise StageError(f"{folder}: {' '.join(map(str.strip, str(error).splitlines()[:2]))}") from None
    preprocessing = read_params().section(ExtractConfig, "extract")
    if preprocessing.size != size:
        raise StageError(
            f"params.yaml: extract.size = {preprocessing.size}: {folder} draws images of {size} px; set that"
        )
    settings = {
        "network": asdict(network),
        "recipe": {"target": target},
        "diffusion": asdict(diffusion),
        "size": size,
        "image_recipe": preprocessing.name,
        "classes": [f"class {number}" for number in range(classes)],
        "sampling": asdict(sampling),
        "imported": folder.resolve().name,
    }
    write_safetensors(weights, tensors, settings)
    return f"a network for {size} px, {unet}, in {weights}; `python -m stages.sample {weights}` draws with it"


def scheduler_in(folder: Path) -> Mapping[str, Any]:
    """The arguments of the scheduler in FOLDER or in its folder `scheduler`, with their defaults.

    Raises:
        ConfigError: there is none.
    """
    place = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    if not (place / "scheduler_config.json").is_file():
        raise ConfigError(
            "no scheduler_config.json, without which nobody knows the noise schedule; a checkpoint of diffusers' "
            "training script has it in the folder above: --scheduler names the folder that it is in"
        )
    saved = DDPMScheduler.load_config(place, local_files_only=True)
    return {"_class_name": "DDPMScheduler", **DDPMScheduler.from_config(saved).config, **saved}


def weights_in(folder: Path, *, allow_pickle: bool) -> dict[str, Tensor]:
    """The tensors of the network in FOLDER, by the names that diffusers has for them today.

    Raises:
        ConfigError: they aren't those of config.json (what was missing would be random), or pickled and not allowed.
    """
    if not allow_pickle and not any(folder.glob("*.safetensors")):
        raise ConfigError(
            "no weights as safetensors; a pickled file can run code; --allow-pickle reads it all the same"
        )
    unet, loading = UNet2DModel.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=None if allow_pickle else True,  # None: where there are any
        output_loading_info=True,
    )
    for kind in ("missing_keys", "unexpected_keys"):
        if loading[kind]:
            raise ConfigError(f"the weights aren't those of config.json: {kind} {min(loading[kind])}, ...")
    return unet.state_dict()


if __name__ == "__main__":
    run("tools.import_diffusers", main)
