"""Stage `train`: packed images or latents to weights and a loss table."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm.config import ConfigError
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.rng import word
from ddpm.training.batches import Batches
from ddpm.training.initial import initial_network
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.training.trainer import Trainer, TrainState
from stages.kit.device import announce, setup
from stages.kit.files import digest
from stages.kit.identity import TRAINING, code_digests, platform_of
from stages.kit.launch import first_process
from stages.kit.params import ModelEntry, Params, naming, read_params
from stages.kit.processes import distributed, together
from stages.kit.runtime import RuntimeConfig
from stages.shared.files.absent import nothing_to_do
from stages.shared.files.formats import write_csv, write_json
from stages.shared.files.images import image_set, open_images, read_labels
from stages.shared.files.latents import EncodedImages, open_latents
from stages.shared.training.jobs import Job, trained, write_weights
from stages.shared.training.loop import LOSS_COLUMNS, loop_job, loss_table, summary


def main(*, images: Path, model: Path, details: Path, losses: Path, latents: Path | None = None) -> str:
    """Train on the training set in the folder IMAGES; write weights into the folder MODEL, DETAILS and LOSSES.

    A model of `space: latents` learns those in the folder LATENTS, which `autoencode` has made of the same images. For
    a GAN there is nothing to do: stage `gan` trains it.
    """
    params = read_params()
    if params.model().kind == "gan":
        return nothing_to_do(f"models.{params.top.model} is a GAN", details, [model], {losses: LOSS_COLUMNS})
    with distributed():
        with together():
            trainer, job = prepare(params, *image_set(images, "train"), latents)
        announce("train", trainer.device, trainer.precision)
        with trained(job) as state, together():
            found = summary(state, trainer)
            if first_process():
                averages = dict(zip(trainer.recipe.ema_decays, state.averages, strict=True))
                write_weights(model, {0.0: state.model, **averages}, job.settings)
                write_csv(losses, loss_table(state.losses, trainer))
                write_json(details, found)
    loss = found["loss"]["last_tenth"]
    return f"{found['steps']:,} steps, weights in {model}, loss of the last tenth {loss:.4g}; see {losses}"


def prepare(params: Params, images: Path, index: Path, latents: Path | None) -> tuple[Trainer, Job[TrainState]]:
    """All that `params` ask for, with the network's initial weights.

    Raises:
        ConfigError: it can't be, with these images.
    """
    top, device = params.top, setup(params)
    shape = params.section(UNetConfig, "models", top.model, "network")
    recipe = params.section(Recipe, "models", top.model, "recipe")
    diffusion = params.section(DiffusionConfig, "diffusion")
    config = params.section(TrainConfig, "train")
    runtime = params.section(RuntimeConfig, "runtime")
    data, preprocessing = open_images(images, index)
    entry = params.model()
    encoded = open_latents(latents, len(data), data.shape[1], preprocessing) if entry.space == "latents" else None
    require_label_dropout(params)
    labels, classes = read_labels(index) if shape.conditional else (None, [])
    schedule, learnt = NoiseSchedule(diffusion, entry.log_snr_shift), encoded.array if encoded else data
    batches = Batches(learnt, labels, len(classes), schedule, recipe, flip=config.flip, seed=top.seed, device=device)
    torch.manual_seed(word(top.seed, "weights"))
    with naming(f"models.{top.model}.network"):
        channels, side, _ = batches.shape
        network = initial_network(UNet(shape, side, len(classes), channels))
    with naming(f"models.{top.model}.recipe"):
        trainer = Trainer(batches, schedule, config, seed=top.seed, epochs=top.epochs)
    described = {
        "network": asdict(shape),
        "recipe": asdict(recipe),
        "diffusion": asdict(diffusion),
        "train": asdict(config),
        "seed": top.seed,
        "size": data.shape[1],
        "image_recipe": preprocessing,  # the name that files of weights have for it
        "classes": classes,
        "class_counts": [] if labels is None else np.bincount(labels).tolist(),
        **special(entry, batches, encoded),
    }
    platform = {**platform_of(device), "compile": runtime.compile, "precision": str(trainer.precision)}
    digests = {"images": digest(images), "index": digest(index), **({"latents": encoded.digest} if encoded else {})}
    identity = {"data": digests, "settings": described, "code": code_digests(TRAINING), "platform": platform}
    settings = {**described, "epochs": top.epochs, "model": top.model}
    return trainer, loop_job("train", network, trainer, f"models.{top.model}.recipe", settings, identity, runtime)


def require_label_dropout(params: Params) -> None:
    """Fail where a network that is told categories would never see an image without one.

    Raises:
        ConfigError: naming the parameter.
    """
    place = ("models", params.top.model)
    conditional = params.section(UNetConfig, *place, "network").conditional
    if conditional and not params.section(Recipe, *place, "recipe").label_dropout:
        name = f"params.yaml: {'.'.join(place)}.recipe.label_dropout"
        raise ConfigError(f"{name} = 0: must be above 0, as a conditional network is interpolated without a category")


def special(entry: ModelEntry, batches: Batches, encoded: EncodedImages | None) -> dict[str, Any]:
    """What describes a model that learns latents or has a shifted schedule; nothing of others."""
    found: dict[str, Any] = {}
    if entry.log_snr_shift:
        found["log_snr_shift"] = entry.log_snr_shift
    if encoded:
        found["latents"] = {"shape": list(batches.shape), "autoencoder": encoded.autoencoder}
    return found
