"""Stage `train`: packed images to weights and a loss table."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
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
from stages.kit.files import digest
from stages.kit.identity import TRAINING, code_digests, platform_of
from stages.kit.launch import first_process
from stages.kit.params import Params, naming, read_params
from stages.kit.processes import distributed, together
from stages.kit.runtime import RuntimeConfig
from stages.shared.absent import nothing_to_do
from stages.shared.formats import write_csv, write_json
from stages.shared.images import image_set, open_images, read_labels
from stages.shared.training import Job, epochs_seen, trained, write_weights

ROWS = 100
"""Rows of the loss table."""
COLUMNS = ("epoch", "step", "loss", "learning_rate")


def main(*, images: Path, model: Path, details: Path, losses: Path) -> str:
    """Train on the training set in the folder IMAGES; write weights into the folder MODEL, DETAILS and LOSSES.

    For a GAN there is nothing to do: stage `gan` trains it.
    """
    params = read_params()
    if params.model().kind == "gan":
        return nothing_to_do(f"models.{params.top.model} is a GAN", details, [model], {losses: COLUMNS})
    with distributed():
        with together():
            trainer, job = prepare(params, *image_set(images, "train"))
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


def prepare(params: Params, images: Path, index: Path) -> tuple[Trainer, Job[TrainState]]:
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
    return trainer, Job(
        stage="train",
        start=partial(TrainState, network, recipe, device, compiled=runtime.compile),
        trainer=trainer,
        settings={**described, "epochs": top.epochs, "model": top.model},
        identity=identity,
        runtime=runtime,
        remedy=f"lower models.{top.model}.recipe.learning_rate, now {recipe.learning_rate:g}",
        # With a constant rate no step depends on the number of epochs.
        lent_steps=trainer.total_steps if recipe.rate_schedule == "constant" else 0,
    )


def loss_table(losses: list[float], trainer: Trainer) -> pd.DataFrame:
    """At most `ROWS` rows: the mean loss of equally long runs of steps, by what had been seen at their end."""
    rows = []
    for steps in np.array_split(np.arange(len(losses)), min(ROWS, len(losses))):
        done = int(steps[-1]) + 1
        rows.append(
            {
                "epoch": round(epochs_seen(trainer.batches, done), 4),
                "step": done,
                "loss": round(float(np.mean([losses[step] for step in steps])), 6),
                "learning_rate": float(f"{trainer.learning_rate(done - 1):.6g}"),
            }
        )
    return pd.DataFrame(rows)


def summary(state: TrainState, trainer: Trainer) -> dict[str, Any]:
    """The metrics."""
    last_tenth = state.losses[-max(1, trainer.total_steps // 10) :]
    return {
        "images": len(trainer.batches.images),
        "steps": trainer.total_steps,
        "parameters": sum(parameter.numel() for parameter in state.model.parameters()),
        "loss": {"last_tenth": float(np.mean(last_tenth)), "n": len(last_tenth)},
    }
