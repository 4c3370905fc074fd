"""Stage `train`: packed images to weights and a loss table."""

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ddpm.config import ConfigError
from ddpm.rng import word
from ddpm.schedule import DiffusionConfig, NoiseSchedule
from ddpm.training import Recipe, TrainConfig, Trainer, TrainState, learning_rate_at
from ddpm.unet import UNet, UNetConfig
from stages._images import open_images
from stages._io import repository_root, write_csv, write_json, write_safetensors
from stages._main import RuntimeConfig, progress, run, setup, stop_request
from stages._params import read_params
from stages._state import WorkingState, code_digests, digest, working_state

ROWS = 100
"""Rows of the loss table."""


def main(images: Path, index: Path, ema: Path, raw: Path, metrics: Path, losses: Path) -> None:
    """Train on IMAGES with their table INDEX; write averaged weights EMA, last ones RAW, METRICS, the table LOSSES."""
    params = read_params()
    top, device = params.top, setup(params)
    network = params.section(UNetConfig, "models", top.model, "network")
    recipe = params.section(Recipe, "models", top.model, "recipe")
    diffusion = params.section(DiffusionConfig, "diffusion")
    config = params.section(TrainConfig, "train")
    data, image_recipe = open_images(images, index)
    size = data.shape[1]
    total_steps = max(1, top.epochs * len(data) // recipe.batch_images)
    torch.manual_seed(word(top.seed, "weights"))
    try:
        model = UNet(network, size)
    except ValueError as error:
        raise ConfigError(f"params.yaml: models.{top.model}.network: {error}") from None
    trainer = Trainer(
        data, NoiseSchedule(diffusion), recipe, config, seed=top.seed, total_steps=total_steps, device=device
    )
    state = TrainState(model, recipe, device)

    settings = {
        "network": asdict(network),
        "recipe": asdict(recipe),
        "diffusion": asdict(diffusion),
        "train": asdict(config),
        "epochs": top.epochs,
        "seed": top.seed,
        "size": size,
        "image_recipe": image_recipe,
    }
    platform = {
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "precision": str(trainer.precision),
    }
    identity = {"data": digest(images), "settings": settings, "code": code_digests(), "platform": platform}
    with working_state(repository_root() / ".cache" / "train", identity) as working:
        saved = working.load()
        if saved:
            state.load_state_dict(saved)
        fit(trainer, state, working, params.section(RuntimeConfig, "runtime").save_every_seconds)

    write_safetensors(ema, state.ema.state_dict(), settings)
    write_safetensors(raw, state.model.state_dict(), settings)
    write_csv(losses, loss_table(state.losses, recipe, len(data)))
    last_tenth = state.losses[-max(1, total_steps // 10) :]
    write_json(
        metrics,
        {
            "images": len(data),
            "steps": total_steps,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "loss": {"last_tenth": float(np.mean(last_tenth)), "n": len(last_tenth)},
        },
    )


def fit(trainer: Trainer, state: TrainState, working: WorkingState, save_every_seconds: float) -> None:
    """Train to the end with a progress bar, saving the state now and then, when told to stop and at the end."""
    images, saved_at = trainer.recipe.batch_images, time.monotonic()
    total, done = trainer.total_steps * images, state.step * images
    with stop_request() as stop, progress(total, "img", initial=done, label="train") as bar:
        for _ in trainer.fit(state):
            bar.update(images)
            if state.step % 50 == 0:
                state.read_losses()
                bar.set_postfix(loss=f"{np.mean(state.losses[-200:]):.4f}", refresh=False)
            if stop.is_set() or time.monotonic() - saved_at > save_every_seconds:
                working.save(state.state_dict())
                saved_at = time.monotonic()
            if stop.is_set():
                raise KeyboardInterrupt
    working.save(state.state_dict())


def loss_table(losses: list[float], recipe: Recipe, count: int) -> pd.DataFrame:
    """At most `ROWS` rows: the mean loss of equally long runs of steps, by what had been seen at their end."""
    rows = []
    for steps in np.array_split(np.arange(len(losses)), min(ROWS, len(losses))):
        done = int(steps[-1]) + 1
        rate = learning_rate_at(done - 1, len(losses), recipe.learning_rate, recipe.warmup_steps)
        rows.append(
            {
                "epoch": round(done * recipe.batch_images / count, 4),
                "step": done,
                "loss": round(float(np.mean([losses[step] for step in steps])), 6),
                "learning_rate": float(f"{rate:.6g}"),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    run(main)
