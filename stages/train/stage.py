"""Stage `train`: packed images to weights and a loss table."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm.config import ConfigError
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.networks.unet import UNet, UNetConfig
from ddpm.rng import word
from ddpm.training.batches import Batches
from ddpm.training.initial import initial_network
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.training.trainer import Trainer, TrainState
from stages.kit.device import announce, setup
from stages.kit.errors import StageError
from stages.kit.files import digest
from stages.kit.identity import TRAINING, code_digests, platform_of
from stages.kit.launch import first_process
from stages.kit.params import read_params
from stages.kit.processes import distributed, together
from stages.kit.runtime import RuntimeConfig
from stages.shared.formats import write_csv, write_json
from stages.shared.images import image_set, open_images, read_index
from stages.shared.training import Job, last_losses, loss_table, trained, write_model


def main(*, images: Path, model: Path, details: Path, losses: Path) -> str:
    """Train on the training set in the folder IMAGES; write weights into the folder MODEL, DETAILS and LOSSES."""
    with distributed():
        with together():
            job = prepare(*image_set(images, "train"))
        announce("train", job.trainer.device, job.trainer.precision)
        with trained(job) as state, together():
            found = summary(state, job.trainer)
            if first_process():
                write_model(model, state, job)
                write_csv(losses, loss_table(state.losses, job.trainer))
                write_json(details, found)
    loss = found["loss"]["last_tenth"]
    return f"{found['steps']:,} steps, weights in {model}, loss of the last tenth {loss:.4g}; see {losses}"


def prepare(images: Path, index: Path) -> Job:
    """All that `params.yaml` asks for, with the network's initial weights.

    Raises:
        ConfigError: it can't be, with these images.
    """
    params = read_params()
    top, device = params.top, setup(params)
    shape = params.section(UNetConfig, "models", top.model, "network")
    recipe = params.section(Recipe, "models", top.model, "recipe")
    diffusion = params.section(DiffusionConfig, "diffusion")
    config = params.section(TrainConfig, "train")
    runtime = params.section(RuntimeConfig, "runtime")
    data, preprocessing = open_images(images, index)
    if shape.conditional and not recipe.label_dropout:
        name = f"params.yaml: models.{top.model}.recipe.label_dropout"
        raise ConfigError(f"{name} = 0: must be above 0, as a conditional network is interpolated without a category")
    labels, classes = read_labels(index) if shape.conditional else (None, [])
    schedule = NoiseSchedule(diffusion)
    batches = Batches(data, labels, len(classes), schedule, recipe, flip=config.flip, seed=top.seed, device=device)
    torch.manual_seed(word(top.seed, "weights"))
    with naming(f"models.{top.model}.network"):
        network = initial_network(UNet(shape, data.shape[1], len(classes)))
    with naming(f"models.{top.model}.recipe"):
        trainer = Trainer(batches, schedule, recipe, config, seed=top.seed, epochs=top.epochs)
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
    }
    platform = {**platform_of(device), "compile": runtime.compile, "precision": str(trainer.precision)}
    digests = {"images": digest(images), "index": digest(index)}
    identity = {"data": digests, "settings": described, "code": code_digests(TRAINING), "platform": platform}
    rate = f"models.{top.model}.recipe.learning_rate"
    return Job("train", top.model, rate, network, trainer, {**described, "epochs": top.epochs}, identity, runtime)


def read_labels(index: Path) -> tuple[np.ndarray, list[str]]:
    """The label of each image `[N]`, and the categories that they stand for.

    Raises:
        StageError: there is a label without an image.
    """
    table = read_index(index)
    names = dict(sorted(zip(table["label"], table["category"], strict=True)))
    if list(names) != list(range(len(names))):
        raise StageError(f"{index}: images have the labels {list(names)}, where each from 0 on is wanted")
    return table["label"].to_numpy(), list(names.values())


@contextmanager
def naming(section: str) -> Iterator[None]:
    """Say to which section of `params.yaml` a value belongs that is impossible."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"params.yaml: {section}: {error}") from None


def summary(state: TrainState, trainer: Trainer) -> dict[str, Any]:
    """The metrics."""
    return {
        "images": len(trainer.batches.images),
        "steps": trainer.total_steps,
        "parameters": sum(parameter.numel() for parameter in state.model.parameters()),
        "loss": last_losses(state),
    }
