"""KID of candidates for the default model, each trained for the same time on this machine.

Run `python -m benchmarks.default_model NAME ...` after `dvc repro`. Each candidate is `models.tiny` of `params.yaml`
with a few values changed, trained on the images that `extract` wrote for as many images as it can see in the given
minutes, and judged by 256 samples (ancestral, 50 steps) against the held-out images, once for each of its averages.
How many images that is, is measured before, all candidates in turn, so that a busy moment does not fall on one of them.
Prints a table row for each average and writes its samples as a grid to `benchmarks/grids/`.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm.config import parse
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.evaluation.metrics import kid
from ddpm.evaluation.perceptual import load_lpips, pooled_features
from ddpm.images import tile_grid, to_model_range, to_uint8
from ddpm.networks.unet import UNet, UNetConfig
from ddpm.rng import word
from ddpm.sampling.predictor import PredictorConfig, make_predictor
from ddpm.sampling.samplers import ImageNoise, SamplerConfig, run_sampler
from ddpm.training.batches import Batches
from ddpm.training.initial import initial_network
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.training.trainer import Trainer, TrainState
from stages.kit.device import setup
from stages.kit.params import read_params
from stages.kit.progress import progress
from stages.shared.formats import read_safetensors, write_png

ROOT = Path(__file__).parents[1]
CANDIDATES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "batch_16": {"recipe": {"batch_images": 16, "learning_rate": 0.0015}},
    "batch_4": {"recipe": {"batch_images": 4, "learning_rate": 0.0009}},
    "rate_up": {"recipe": {"learning_rate": 0.002}},
    "rate_down": {"recipe": {"learning_rate": 0.0008}},
    "averages": {"recipe": {"ema_decays": [0.99, 0.995, 0.998, 0.999, 0.9995]}},
    "uniform": {"recipe": {"timesteps": "uniform"}},
    "snr_plus_one": {"recipe": {"weighting": "snr_plus_one"}},
    "simple": {"recipe": {"weighting": "simple"}},
    "v": {"recipe": {"target": "v"}},
    "eps": {"recipe": {"target": "eps"}},
    "attention_12": {"network": {"attention": [12, 6]}},
    "blocks_2": {"network": {"blocks": 2}},
    "groups_32": {"network": {"groups": 32}},
    "channels_48": {"network": {"channels": 48, "groups": 3}},
    "channels_64": {"network": {"channels": 64, "groups": 4}},
    "patch_1": {"network": {"channels": 16, "multipliers": [1, 2, 4, 4], "patch": 1, "groups": 1}},
    "patch_4": {"network": {"channels": 64, "multipliers": [1, 2], "patch": 4, "blocks": 2, "groups": 4}},
}
SAMPLES = 256
WARM_UP, TIMED = 5, 20
"""Steps before the rate is measured, and those it is measured over."""
CPU = torch.device("cpu")


class Candidate:
    """One of `CANDIDATES`, to be trained from its start for any number of steps."""

    def __init__(self, name: str):
        params, changes = read_params(), CANDIDATES[name]
        network = {**params.mapping("models", "tiny", "network"), **changes.get("network", {})}
        recipe = {**params.mapping("models", "tiny", "recipe"), **changes.get("recipe", {})}
        self.name, self.network, self.recipe = name, parse(UNetConfig, network, name), parse(Recipe, recipe, name)
        self.schedule = NoiseSchedule(params.section(DiffusionConfig, "diffusion"))
        self.images, self.config = np.load(ROOT / "data/images/train.npy"), params.section(TrainConfig, "train")

    def start(self, total_steps: int) -> tuple[Trainer, TrainState]:
        """A run that ends after `total_steps`; its learning rate follows from how many there are."""
        images = np.resize(self.images, (total_steps * self.recipe.batch_images, *self.images.shape[1:]))
        batches = Batches(images, None, 0, self.schedule, self.recipe, flip=self.config.flip, seed=0, device=CPU)
        trainer = Trainer(batches, self.schedule, self.recipe, self.config, seed=0, epochs=1)
        torch.manual_seed(word(0, "weights"))
        return trainer, TrainState(initial_network(UNet(self.network, images.shape[1])), self.recipe, CPU)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(CANDIDATES), metavar="NAME", help=", ".join(CANDIDATES))
    parser.add_argument("--minutes", type=float, default=3, help="of training for each (3)")
    arguments = parser.parse_args()
    setup(read_params())
    tensors, metadata = read_safetensors(ROOT / "data/weights/lpips.safetensors")
    lpips = load_lpips(tensors, metadata["net"])
    reference = pooled_features(lpips, to_model_range(np.load(ROOT / "data/images/val.npy")))
    candidates = [Candidate(name) for name in arguments.names]
    seconds = seconds_per_step(candidates)
    print(
        "| candidate | images/s | images | average | KID | 95 % interval | n |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    for candidate, each in zip(candidates, seconds, strict=True):
        batch, steps = candidate.recipe.batch_images, round(60 * arguments.minutes / each)
        for decay, drawn in train_and_sample(candidate, steps):
            write_png(ROOT / f"benchmarks/grids/{candidate.name}_{decay}.png", tile_grid(drawn[:64], columns=8))
            found = kid(pooled_features(lpips, to_model_range(drawn)), reference)
            seen, judged = (
                f"{batch / each:.0f} | {batch * steps}",
                f"{found.value:.4f} | {found.low:.4f} to {found.high:.4f}",
            )
            print(f"| {candidate.name} | {seen} | {decay} | {judged} | {found.n} |", flush=True)


def seconds_per_step(candidates: list[Candidate]) -> list[float]:
    """The median over `TIMED` rounds in which each candidate takes a step in turn."""
    runs = [Trainer.fit(*candidate.start(WARM_UP + TIMED)) for candidate in candidates]
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(WARM_UP + TIMED):
        for run, measured in zip(runs, seconds, strict=True):
            started = time.perf_counter()
            next(run)
            measured.append(time.perf_counter() - started)
    return [float(np.median(measured[WARM_UP:])) for measured in seconds]


def train_and_sample(candidate: Candidate, steps: int) -> Iterator[tuple[float, np.ndarray]]:
    """Samples of each of the candidate's averages, uint8 `[SAMPLES, H, W, 3]`, with its decay."""
    trainer, state = candidate.start(steps)
    with progress(steps * candidate.recipe.batch_images, "img", label=candidate.name) as bar:
        for _ in trainer.fit(state):
            bar.update(candidate.recipe.batch_images)
    sampler = SamplerConfig(sampler="ancestral", steps=50)
    for decay, network in zip(candidate.recipe.ema_decays, state.averages, strict=True):
        denoiser = Denoiser(network, candidate.schedule, candidate.recipe.target, precision=trainer.precision)
        predict = make_predictor(denoiser, PredictorConfig())
        chunks = []
        for first in range(0, SAMPLES, 64):
            noise = ImageNoise(0, "sample", range(first, first + 64), (3, *candidate.images.shape[1:3]), CPU)
            chunks.append(to_uint8(run_sampler(sampler, predict, candidate.schedule, noise(), noise)))
        yield decay, np.concatenate(chunks)


if __name__ == "__main__":
    main()
