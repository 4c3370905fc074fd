"""What the ruler trains: a model of params.yaml with other values, from its start to its samples."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML
from torch import Tensor

from benchmarks._judges import IMAGES, ROOT
from ddpm.config import parse
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.gan.networks import Critic, GanConfig, Generator
from ddpm.gan.trainer import GanRecipe, GanState, GanTrainer, PairBatches
from ddpm.images import to_uint8
from ddpm.rng import normal, numpy_stream, word
from ddpm.sampling.predictor import PredictorConfig, make_predictor
from ddpm.sampling.samplers import ImageNoise, SamplerConfig, run_sampler
from ddpm.training.batches import Batches
from ddpm.training.initial import initial_network
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.training.trainer import Trainer, TrainState
from stages.kit.params import read_params
from stages.shared.models.diffusion import IMAGES_AT_ONCE, ModelSampling
from stages.shared.models.gan import GanSampling

CHANGES = ROOT / "benchmarks/changes.yaml"
CPU = torch.device("cpu")
SAMPLES_SEED = 1
"""Another than the pipeline's, so that nothing is chosen on the noise that it draws from."""


def read_changes() -> dict[str, dict[str, Any]]:
    """The named changes."""
    changes: dict[str, dict[str, Any]] = YAML(typ="safe").load(CHANGES)
    return changes


def model_of(name: str) -> str:
    """The entry of `models` that is changed."""
    return str(read_changes()[name].get("model", "tiny"))


def values_of(name: str, part: str) -> dict[str, Any]:
    """The values of one PART of the changed model: network, recipe or sampling."""
    return {**read_params().mapping("models", model_of(name), part), **read_changes()[name].get(part, {})}


def change_of(name: str) -> "Change | GanChange":
    """The change of this name."""
    return GanChange(name) if read_params().mapping("models", model_of(name))["kind"] == "gan" else Change(name)


@dataclass(frozen=True)
class Run:
    """A training, a step at a time from its start; `draw` makes `IMAGES` samples with what it has learnt, uint8."""

    fit: Iterator[Any]
    precision: torch.dtype
    draw: Callable[[], np.ndarray]


class Change:
    """A diffusion model with the values of one entry of `benchmarks/changes.yaml`, for any number of steps."""

    def __init__(self, name: str):
        self.network = parse(UNetConfig, values_of(name, "network"), name)
        self.recipe = parse(Recipe, values_of(name, "recipe"), name)
        self.sampling = parse(ModelSampling, values_of(name, "sampling"), name)
        self.schedule = NoiseSchedule(read_params().section(DiffusionConfig, "diffusion"))
        self.config = read_params().section(TrainConfig, "train")

    def start(self, steps: int, seed: int) -> Run:
        """A run that ends after `steps`; its learning rate follows from how many there are."""
        images = images_of(steps * self.recipe.batch_images)
        batches = Batches(images, None, 0, self.schedule, self.recipe, flip=self.config.flip, seed=seed, device=CPU)
        trainer = Trainer(batches, self.schedule, self.config, seed=seed, epochs=1)
        torch.manual_seed(word(seed, "weights"))
        state = TrainState(initial_network(UNet(self.network, images.shape[1])), self.recipe, CPU)
        return Run(trainer.fit(state), trainer.precision, partial(self.draw, trainer, state))

    def draw(self, trainer: Trainer, state: TrainState) -> np.ndarray:
        """Samples of the average that the sampling names."""
        how, decay = self.sampling, self.sampling.ema_decay
        network = state.averages[self.recipe.ema_decays.index(decay)] if decay else state.model
        denoiser = Denoiser(network, self.schedule, self.recipe.target, precision=trainer.precision)
        sampler = SamplerConfig(sampler=how.sampler, steps=how.steps, spacing=how.spacing, variance=how.variance)
        predict = make_predictor(denoiser, PredictorConfig(clip=how.clip))

        def drawn(ids: range) -> Tensor:
            noise = ImageNoise(SAMPLES_SEED, "sample", ids, trainer.batches.shape, CPU)
            return run_sampler(sampler, predict, self.schedule, noise(), noise)

        return in_parts(drawn)


class GanChange:
    """The same of a GAN."""

    def __init__(self, name: str):
        self.network = parse(GanConfig, values_of(name, "network"), name)
        self.recipe = parse(GanRecipe, values_of(name, "recipe"), name)
        self.sampling = parse(GanSampling, values_of(name, "sampling"), name)
        self.config = read_params().section(TrainConfig, "train")

    def start(self, steps: int, seed: int) -> Run:
        """A run that ends after `steps`; what falls in it follows from how many there are."""
        images, latents = images_of(steps * self.recipe.batch_images), self.network.latent_channels
        batches = PairBatches(images, None, latents, self.recipe, flip=self.config.flip, seed=seed, device=CPU)
        trainer = GanTrainer(batches, self.recipe, self.config, epochs=1)
        torch.manual_seed(word(seed, "weights"))
        made = self.network, images.shape[1]
        state = GanState(Generator(*made), Critic(*made), self.recipe, CPU)
        return Run(trainer.fit(state), trainer.precision, partial(self.draw, state))

    @torch.inference_mode()
    def draw(self, state: GanState) -> np.ndarray:
        """Samples of the average that the sampling names."""
        decay = self.sampling.ema_decay
        generator = state.averages[self.recipe.ema_decays.index(decay)] if decay else state.generator

        def drawn(ids: range) -> Tensor:
            noise = [normal(numpy_stream(SAMPLES_SEED, "sample", i), (self.network.latent_channels,)) for i in ids]
            return generator(torch.stack(noise))

        return in_parts(drawn)


def images_of(count: int) -> np.ndarray:
    """So many training images, from the first again where the set ends."""
    images = np.load(ROOT / "data/images/train.npy")
    return np.resize(images, (count, *images.shape[1:]))


def in_parts(drawn: Callable[[range], Tensor]) -> np.ndarray:
    """`IMAGES` images, as many at once as the pipeline draws."""
    starts = range(0, IMAGES, IMAGES_AT_ONCE)
    return np.concatenate([to_uint8(drawn(range(first, min(first + IMAGES_AT_ONCE, IMAGES)))) for first in starts])
