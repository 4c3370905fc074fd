"""KID of candidates for the default model, each trained for the same time on this machine.

Run `python -m benchmarks.default_model NAME ...` after `dvc repro`. Each candidate is `models.tiny` of `params.yaml`
with a few values changed, trained on the images that `extract` wrote for as many images as it can see in the given
minutes, and judged by 256 samples (ancestral, 50 steps) against the held-out images. Prints one table row a candidate
and writes its samples as a grid to `.cache/benchmarks/NAME.png`.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm.config import parse
from ddpm.images import tile_grid, to_model_range, to_uint8
from ddpm.metrics import kid
from ddpm.perceptual import load_lpips, pooled_features
from ddpm.predictor import make_predictor
from ddpm.rng import word
from ddpm.samplers import ImageNoise, SamplerConfig, run_sampler
from ddpm.schedule import DiffusionConfig, NoiseSchedule
from ddpm.training import Recipe, TrainConfig, Trainer, TrainState
from ddpm.unet import UNet, UNetConfig
from stages._io import read_safetensors, write_png
from stages._main import progress, setup
from stages._params import read_params

ROOT = Path(__file__).parents[1]
CANDIDATES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "batch_16": {"recipe": {"batch_images": 16, "learning_rate": 0.0015, "ema_decay": 0.995}},
    "batch_4": {"recipe": {"batch_images": 4, "learning_rate": 0.0009, "ema_decay": 0.999}},
    "rate_2": {"recipe": {"learning_rate": 0.002}},
    "uniform": {"recipe": {"timesteps": "uniform"}},
    "v": {"recipe": {"target": "v"}},
    "eps": {"recipe": {"target": "eps"}},
    "attention_12": {"network": {"attention": [12, 6]}},
    "channels_96": {"network": {"channels": 96}},
    "patch_1": {"network": {"channels": 32, "multipliers": [1, 2, 4, 4], "patch": 1}},
    "patch_4": {"network": {"channels": 96, "multipliers": [1, 2], "patch": 4, "blocks": 2}},
}
SAMPLES = 256
WARM_UP, TIMED = 10, 40
"""Steps before the rate is measured, and those it is measured over."""
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(CANDIDATES), metavar="NAME", help=", ".join(CANDIDATES))
    parser.add_argument("--minutes", type=float, default=3, help="of training for each (3)")
    arguments = parser.parse_args()
    setup(read_params())
    tensors, metadata = read_safetensors(ROOT / "data/weights/lpips.safetensors")
    lpips = load_lpips(tensors, metadata["net"])
    reference = pooled_features(lpips, to_model_range(np.load(ROOT / "data/images/val.npy")))
    print("| candidate | images/s | images | KID | 95 % interval | n |\n|---|---|---|---|---|---|", flush=True)
    for name in arguments.names:
        drawn, images = train_and_sample(name, 60 * arguments.minutes)
        write_png(ROOT / f".cache/benchmarks/{name}.png", tile_grid(drawn[:64], columns=8, scale=3))
        found = kid(pooled_features(lpips, to_model_range(drawn)), reference)
        rate, interval = images / (60 * arguments.minutes), f"{found.low:.4f} to {found.high:.4f}"
        print(f"| {name} | {rate:.0f} | {images} | {found.value:.4f} | {interval} | {found.n} |", flush=True)


def train_and_sample(name: str, seconds: float) -> tuple[np.ndarray, int]:
    """Samples of the candidate, uint8 `[SAMPLES, H, W, 3]`, and how many training images it saw."""
    params, changes = read_params(), CANDIDATES[name]
    network = parse(UNetConfig, {**params.mapping("models", "tiny", "network"), **changes.get("network", {})}, name)
    recipe = parse(Recipe, {**params.mapping("models", "tiny", "recipe"), **changes.get("recipe", {})}, name)
    schedule = NoiseSchedule(params.section(DiffusionConfig, "diffusion"))
    data = np.load(ROOT / "data/images/train.npy")
    config = params.section(TrainConfig, "train")

    def start(total_steps: int) -> tuple[Trainer, TrainState]:
        torch.manual_seed(word(0, "weights"))
        trainer = Trainer(data, schedule, recipe, config, seed=0, total_steps=total_steps, device=CPU)
        return trainer, TrainState(UNet(network, data.shape[1]), recipe, CPU)

    # The learning rate follows the number of steps, so the rate has to be known before.
    steps = round(seconds / seconds_per_step(*start(WARM_UP + TIMED)))
    trainer, state = start(steps)
    with progress(steps * recipe.batch_images, "img", label=name) as bar:
        for _ in trainer.fit(state):
            bar.update(recipe.batch_images)
    predict = make_predictor(state.ema, schedule, recipe.target, clip=True, precision=trainer.precision)
    sampler = SamplerConfig(sampler="ancestral", steps=50, clip=True, variance="small", eta=0.0)
    chunks = []
    for first in range(0, SAMPLES, 64):
        noise = ImageNoise(0, "sample", range(first, first + 64), (3, *data.shape[1:3]), CPU)
        chunks.append(to_uint8(run_sampler(sampler, predict, schedule, noise(), noise)))
    return np.concatenate(chunks), steps * recipe.batch_images


def seconds_per_step(trainer: Trainer, state: TrainState) -> float:
    for _ in trainer.fit(state):
        if state.step == WARM_UP:
            started = time.perf_counter()
    return (time.perf_counter() - started) / TIMED


if __name__ == "__main__":
    main()
