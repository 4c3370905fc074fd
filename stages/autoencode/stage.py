"""Stage `autoencode`: for a model of latents the autoencoder, and the latents of the training images."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm.autoencoder.network import Autoencoder, AutoencoderConfig, Codec, channel_statistics
from ddpm.autoencoder.trainer import AutoencoderBatches, AutoencoderRecipe, AutoencoderTrainer
from ddpm.images import tile_grid
from ddpm.rng import word
from ddpm.training.recipe import TrainConfig
from ddpm.training.trainer import TrainState
from stages.autoencode.channels import told
from stages.autoencode.encoding import IMAGES_AT_ONCE, encoded_means, law_of
from stages.kit.device import announce, setup
from stages.kit.files import digest
from stages.kit.identity import TRAINING, code_digests, platform_of
from stages.kit.launch import first_process
from stages.kit.params import Params, naming, read_params
from stages.kit.processes import distributed, together
from stages.kit.runtime import RuntimeConfig
from stages.shared.files.absent import emptied, nothing_to_do, require_outputs_alone
from stages.shared.files.formats import write_csv, write_json, write_npy, write_png, write_safetensors
from stages.shared.files.images import image_set, open_images
from stages.shared.files.latents import STATISTICS, latents_in
from stages.shared.models.codec import decoded
from stages.shared.training.jobs import Job, trained
from stages.shared.training.loop import LOSS_COLUMNS, loop_job, loss_table, summary

SHOWN = 8
"""Held-out images above what becomes of them."""


def main(*, images: Path, latents: Path, details: Path, losses: Path) -> str:
    """Train the autoencoder of a model of `space: latents` on the training set in the folder IMAGES; encode that set.

    The folder LATENTS gets the weights with the latents' statistics, the normalised latents of the training images and
    of their mirror images, and `reconstructions.png`. DETAILS says what the latents of held-out images are like; LOSSES
    is the loss table. For a model that learns pixels there is nothing to do.
    """
    params = read_params()
    if params.model().space == "pixels":
        reason = f"models.{params.top.model} learns pixels, not latents"
        return nothing_to_do(reason, details, [latents], {losses: LOSS_COLUMNS})
    require_outputs_alone(latents)
    with distributed():
        with together():
            trainer, job = prepare(params, images)
        announce("autoencode", trainer.device, trainer.precision)
        with trained(job) as state, together():
            found = summary(state, trainer)
            if first_process():
                codec, shape = encode(trainer, job, state, latents)
                held_out, at_once = open_images(*image_set(images, "val")).array, job.runtime.at_once(IMAGES_AT_ONCE)
                shown = held_out[:SHOWN]
                rows = np.concatenate([shown, decoded(codec, shown, at_once, trainer.device)])
                write_png(latents / "reconstructions.png", tile_grid(rows, columns=len(shown)))
                write_csv(losses, loss_table(state.losses, trainer))
                law = law_of(codec.autoencoder, held_out, at_once, trainer.device)
                write_json(details, {**found, **shape, **told(codec, law)})
    return f"{found['steps']:,} steps, latents in {latents}; see {details}"


def prepare(params: Params, images: Path) -> tuple[AutoencoderTrainer, Job[TrainState]]:
    """The autoencoder of the chosen model with its initial weights, and what it learns from.

    Raises:
        ConfigError: it can't be, with these images.
    """
    top, device = params.top, setup(params)
    place = ("models", top.model, "autoencoder")
    shape = params.section(AutoencoderConfig, *place, "network")
    recipe = params.section(AutoencoderRecipe, *place, "recipe")
    config, runtime = params.section(TrainConfig, "train"), params.section(RuntimeConfig, "runtime")
    array, table = image_set(images, "train")
    data, preprocessing = open_images(array, table)
    with naming(".".join([*place, "network"])):
        latent_shape = shape.latent_shape(data.shape[1])
    batches = AutoencoderBatches(data, latent_shape, recipe, flip=config.flip, seed=top.seed, device=device)
    torch.manual_seed(word(top.seed, "autoencoder: weights"))
    network = Autoencoder(shape)
    with naming(".".join([*place, "recipe"])):
        trainer = AutoencoderTrainer(batches, config, seed=top.seed, epochs=recipe.epochs)
    described = {
        "network": asdict(shape),
        "recipe": asdict(recipe),
        "train": asdict(config),
        "seed": top.seed,
        "size": data.shape[1],
        "image_recipe": preprocessing,
    }
    platform = {**platform_of(device), "compile": runtime.compile, "precision": str(trainer.precision)}
    identity = {
        "data": {"images": digest(array), "index": digest(table)},
        "settings": described,
        "code": code_digests(TRAINING),
        "platform": platform,
    }
    settings, name = {**described, "model": top.model}, ".".join([*place, "recipe"])
    return trainer, loop_job("autoencode", network, trainer, name, settings, identity, runtime)


def encode(
    trainer: AutoencoderTrainer, job: Job[TrainState], state: TrainState, latents: Path
) -> tuple[Codec, dict[str, Any]]:
    """Write the averaged weights and the normalised latents of all training images into LATENTS.

    Returns:
        The codec, and the shape of the latents.
    """
    autoencoder: torch.nn.Module = state.averages[0]
    assert isinstance(autoencoder, Autoencoder)
    files = latents_in(emptied(latents))
    means = encoded_means(
        autoencoder, trainer.batches.images, job.runtime.at_once(IMAGES_AT_ONCE), trainer.device, trainer.precision
    )
    statistics = channel_statistics(torch.from_numpy(means))
    codec = Codec(autoencoder, *(each.to(trainer.device) for each in statistics))
    centre, scale = (each.cpu().numpy() for each in (codec.mean, codec.scale))
    write_npy(files.array, (means - centre) / scale)
    tensors = {key: tensor.contiguous() for key, tensor in autoencoder.state_dict().items()}
    tensors |= dict(zip(STATISTICS, statistics, strict=True))
    # The code is part of what the weights mean: so a change of it changes this file, and runs again what reads it.
    write_safetensors(files.autoencoder, tensors, {**job.settings, "code": code_digests(CODE)})
    return codec, {"shape": list(means.shape[2:]), "factor": autoencoder.config.factor}


CODE = ("ddpm.autoencoder.network", "ddpm.diffusion.blocks")
"""The code of encoder and decoder."""
