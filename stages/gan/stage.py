"""Stage `gan`: packed images to the weights of a generator, and a table of how the game went."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from ddpm.gan.networks import Critic, GanConfig, Generator
from ddpm.gan.trainer import GanRecipe, GanState, GanTrainer, PairBatches, Signs
from ddpm.rng import word
from ddpm.training.recipe import TrainConfig
from stages.kit.device import announce, setup
from stages.kit.files import digest
from stages.kit.identity import TRAINING, code_digests, platform_of
from stages.kit.launch import first_process
from stages.kit.params import Params, naming, read_params
from stages.kit.processes import distributed, together
from stages.kit.runtime import RuntimeConfig
from stages.shared.files.absent import nothing_to_do
from stages.shared.files.formats import write_csv, write_json
from stages.shared.files.images import image_set, open_images, read_labels
from stages.shared.training.jobs import Job, epochs_seen, trained, write_weights

ROWS = 100
"""Rows of the loss table."""
COLUMNS = ("epoch", "step", *Signs._fields, "learning_rate", "gamma")


def main(*, images: Path, gan: Path, details: Path, losses: Path) -> str:
    """Train a GAN on the training set in the folder IMAGES; write its generator into the folder GAN.

    LOSSES is a table of both losses and of the signs of failure, DETAILS has their last values. For a diffusion model
    there is nothing to do: stage `train` trains it.
    """
    params = read_params()
    if params.model().kind != "gan":
        reason = f"models.{params.top.model} is a diffusion model"
        return nothing_to_do(reason, details, [gan], {losses: COLUMNS})
    with distributed():
        with together():
            trainer, job = prepare(params, *image_set(images, "train"))
        announce("gan", trainer.device, trainer.precision)
        with trained(job) as state, together():
            found = summary(state, trainer)
            if first_process():
                averages = dict(zip(trainer.recipe.ema_decays, state.averages, strict=True))
                write_weights(gan, {0.0: state.generator, **averages}, job.settings)
                write_csv(losses, loss_table(state.signs, trainer))
                write_json(details, found)
    last = found["last_tenth"]
    ends = f"critic {last['critic_loss']:.3g} and generator {last['generator_loss']:.3g}"
    return f"{found['steps']:,} steps, weights in {gan}, losses of the last tenth: {ends}; see {losses}"


def prepare(params: Params, images: Path, index: Path) -> tuple[GanTrainer, Job[GanState]]:
    """All that `params` ask for, with the networks' initial weights.

    Raises:
        ConfigError: it can't be, with these images.
    """
    top, device = params.top, setup(params)
    shape = params.section(GanConfig, "models", top.model, "network")
    recipe = params.section(GanRecipe, "models", top.model, "recipe")
    config = params.section(TrainConfig, "train")
    data, preprocessing = open_images(images, index)
    labels, classes = read_labels(index) if shape.conditional else (None, [])
    latents = shape.latent_channels
    batches = PairBatches(data, labels, latents, recipe, flip=config.flip, seed=top.seed, device=device)
    torch.manual_seed(word(top.seed, "weights"))
    with naming(f"models.{top.model}.network"):
        made = shape, data.shape[1], len(classes)
        generator, critic = Generator(*made), Critic(*made)
    with naming(f"models.{top.model}.recipe"):
        trainer = GanTrainer(batches, recipe, config, epochs=top.epochs)
    described = {
        "kind": "gan",
        "network": asdict(shape),
        "recipe": asdict(recipe),
        "train": asdict(config),
        "seed": top.seed,
        "size": data.shape[1],
        "image_recipe": preprocessing,
        "classes": classes,
        "class_counts": [] if labels is None else np.bincount(labels).tolist(),
    }
    platform = {**platform_of(device), "precision": str(trainer.precision)}
    digests = {"images": digest(images), "index": digest(index)}
    identity = {"data": digests, "settings": described, "code": code_digests(TRAINING), "platform": platform}
    return trainer, Job(
        stage="gan",
        start=partial(GanState, generator, critic, recipe, device),
        trainer=trainer,
        # The generator's code comes with the weights: stages that draw with them depend on it through them.
        settings={**described, "epochs": top.epochs, "model": top.model, "code": code_digests(["ddpm.gan.networks"])},
        identity=identity,
        runtime=params.section(RuntimeConfig, "runtime"),
        remedy=f"raise models.{top.model}.recipe.gamma, now {recipe.gamma:g}, or lower learning_rate, "
        f"now {recipe.learning_rate:g}",
    )


def loss_table(signs: list[Signs], trainer: GanTrainer) -> pd.DataFrame:
    """At most `ROWS` rows: means over equally long runs of steps, by what the critic had seen at their end."""
    rows = []
    for steps in np.array_split(np.arange(len(signs)), min(ROWS, len(signs))):
        done = int(steps[-1]) + 1
        means = np.mean([signs[step] for step in steps], axis=0)
        row = dict(zip(Signs._fields, means, strict=True))
        rate, gamma = trainer.recipe.at(done - 1, trainer.total_steps)
        rows.append(
            {
                "epoch": round(epochs_seen(trainer.batches, done), 4),
                "step": done,
                **{name: float(f"{value:.6g}") for name, value in row.items()},
                "learning_rate": float(f"{rate:.6g}"),
                "gamma": float(f"{gamma:.6g}"),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summary(state: GanState, trainer: GanTrainer) -> dict[str, Any]:
    """The metrics. `parameters` are those that images are made with, the critic's are counted beside them."""
    last = state.signs[-max(1, trainer.total_steps // 10) :]
    means = np.mean(last, axis=0).tolist()
    return {
        "images": len(trainer.batches.images),
        "steps": trainer.total_steps,
        "parameters": count(state.generator),
        "critic_parameters": count(state.critic),
        "last_tenth": {**dict(zip(Signs._fields, means, strict=True)), "n": len(last)},
    }


def count(network: nn.Module) -> int:
    """The parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())
