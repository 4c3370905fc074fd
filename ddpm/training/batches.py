"""What each step of a training run sees: which images or latents, how noisy, mirrored or not, with or without label.

Everything is a function of (seed, step, position in the batch), so neither the number of processes nor the size of
their micro-batches changes it, and there is nothing to save.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ddpm.devices.transfer import ahead, sent
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.rng import normal, numpy_stream
from ddpm.training.epochs import Epochs
from ddpm.training.recipe import Pace, Recipe, epoch_images

P = TypeVar("P", bound=Pace)
B = TypeVar("B", bound=Sequence[Tensor | None])


class Batch(NamedTuple):
    """x_0 and eps `[B, C, H, W]`, t `[B]`, and the label of each image `[B]`, if there are any."""

    x0: Tensor
    t: Tensor
    eps: Tensor
    label: Tensor | None


def timestep_law(recipe: Recipe, schedule: NoiseSchedule) -> np.ndarray:
    """Probability p(t) of each time step `[T]`: uniform (Ho et al.), or a normal law of log sigma (`log_normal`).

    sigma = sqrt((1 - alpha_bar) / alpha_bar) is the noise-to-signal ratio, and log sigma has the mean `timesteps_mean`
    and the standard deviation `timesteps_std`, cut at both ends of the schedule. Karras et al. 2022 (arXiv:2206.00364,
    table 1) have -1.2 and 1.2. A mean near 0 and 1.5 spend fewer steps on almost pure noise, of which the linear
    schedule has many, and more where shapes and edges are decided.

    Where the schedule is shifted, so is the mean: p(t) is that of the schedule as it was.

    p(t) is a weight: the loss is not divided by it, so that a step counts with p(t) times `Denoiser.loss_weight`.
    With `min_snr` this is p(t) times SNR within `weighting_limits`, not the weighting of Hang et al., whose t is
    uniform.
    """
    if recipe.timesteps == "uniform":
        return np.full(schedule.steps, 1 / schedule.steps)
    log_ratio = 0.5 * ((1 - schedule.alpha_bar) / schedule.alpha_bar).log()  # [T], rising
    mean = recipe.timesteps_mean - schedule.log_snr_shift / 2
    below = torch.special.ndtr((log_ratio - mean) / recipe.timesteps_std).numpy()
    below[-1] = 1
    return np.diff(below, prepend=0)


class Stream(Epochs, ABC, Generic[P, B]):
    """What a `Loop` learns from, by `recipe`; the other arguments are those of `Epochs`."""

    def __init__(self, images: np.ndarray, recipe: P, *, flip: bool, seed: int, device: torch.device):
        shown = epoch_images(recipe, len(images))
        super().__init__(images, recipe.batch_images, shown, flip=flip, seed=seed, device=device)
        self.recipe = recipe

    @abstractmethod
    def micro_batch(self, step: int, places: range) -> B:
        """The images at `places` of the batch of `step`, on the device."""

    def ahead(self, wanted: Iterable[tuple[int, range]]) -> Iterator[B]:
        """The micro-batch of each (step, places); for CUDA the next is made while one is computed with."""
        return ahead((partial(self.micro_batch, step, places) for step, places in wanted), self.device)


class Batches(Stream[Recipe, Batch]):
    """The batches that a denoiser learns from.

    Args:
        images: those of `Epochs`.
        labels: the class of each, int64 `[N]`, for a conditional network; those that are dropped become `classes`.
        classes: how many classes there are.
        schedule: its steps are drawn from.
        recipe: batch, law of time steps, label dropout.
        flip: mirror half of the images.
        seed: of the run.
        device: where the batches are wanted.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        classes: int,
        schedule: NoiseSchedule,
        recipe: Recipe,
        *,
        flip: bool,
        seed: int,
        device: torch.device,
    ):
        super().__init__(images, recipe, flip=flip, seed=seed, device=device)
        self.labels, self.classes = labels, classes
        self.up_to = np.cumsum(timestep_law(recipe, schedule))

    def micro_batch(self, step: int, places: range) -> Batch:
        """The images at `places` of the batch of `step`, on the device."""
        indices = self.indices(step)[places]
        streams = [numpy_stream(self.seed, "batch", step, place) for place in places]
        chances = np.array([stream.random(3) for stream in streams])  # for time step, mirror, label
        t = torch.from_numpy(np.searchsorted(self.up_to[:-1], chances[:, 0], side="right"))
        eps = torch.stack([normal(stream, self.shape) for stream in streams])
        x0 = self.shown(indices, chances[:, 1])
        label = None
        if self.labels is not None:
            dropped = chances[:, 2] < self.recipe.label_dropout
            label = sent(torch.from_numpy(np.where(dropped, self.classes, self.labels[indices])), self.device)
        return Batch(x0, sent(t, self.device), sent(eps, self.device), label)
