"""Training: which images and noise a step sees, the step itself, and the state that a run can continue from.

Everything random is a function of (seed, step), so the state holds no generator.
"""

import copy
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT
from ddpm.diffusion import Target, loss_weight, q_sample, simple_loss, training_target
from ddpm.images import to_model_range
from ddpm.precision import Precision, autocast, choose_precision, placed
from ddpm.rng import normal, numpy_stream, word
from ddpm.schedule import NoiseSchedule
from ddpm.unet import UNet

TimestepLaw = Literal["uniform", "log_normal"]

LOG_RATIO_STD = 1.5
"""Standard deviation of the logarithm of the noise-to-signal ratio under `log_normal`; its mean is 0."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """What is learnt and how fast; belongs to a model."""

    target: Target
    timesteps: TimestepLaw
    batch_images: int
    learning_rate: float
    warmup_steps: int
    adam_beta2: float
    ema_decay: float

    def __post_init__(self) -> None:
        if self.batch_images < 1 or self.warmup_steps < 0:
            raise ValueError("batch_images must be at least 1 and warmup_steps at least 0")
        if self.learning_rate <= 0:
            raise ValueError("learning_rate must be above 0")
        if not (0 <= self.adam_beta2 < 1 and 0 <= self.ema_decay < 1):
            raise ValueError("adam_beta2 and ema_decay must be from 0 to below 1")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """What all models share."""

    flip: bool
    clip_norm: float
    precision: Precision

    def __post_init__(self) -> None:
        if self.clip_norm <= 0:
            raise ValueError("clip_norm must be above 0; inf switches clipping off")


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The shuffled indices `[count]` of one epoch."""
    return numpy_stream(seed, "epoch", epoch).permutation(count)


def batch_indices(seed: int, step: int, count: int, batch: int) -> np.ndarray:
    """Indices `[batch]` of the images that `step` sees: slices of one endless row of shuffled epochs."""
    positions = np.arange(step * batch, (step + 1) * batch)
    return np.array([epoch_order(seed, int(position) // count, count)[position % count] for position in positions])


def draw_timesteps(law: TimestepLaw, schedule: NoiseSchedule, batch: int, generator: np.random.Generator) -> Tensor:
    """Time steps `[batch]`, drawn uniformly (Ho et al.) or with a normal logarithm of the noise-to-signal ratio.

    The second, after Karras et al. 2022 (arXiv:2206.00364, table 1), spends fewer steps on almost pure noise, of which
    the linear schedule has many, and more where shapes and edges are decided. It is wider than theirs.
    """
    if law == "uniform":
        return torch.from_numpy(generator.integers(schedule.steps, size=batch))
    ratio = ((1 - schedule.alpha_bar) / schedule.alpha_bar).sqrt()  # [T], rising
    drawn = torch.from_numpy(LOG_RATIO_STD * generator.standard_normal(batch)).exp()
    return torch.searchsorted(ratio, drawn).clamp(max=schedule.steps - 1)


def learning_rate_at(step: int, total_steps: int, peak: float, warmup_steps: int) -> float:
    """Linear warm-up to `peak`, then a half cosine that ends at 0 after `total_steps`."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def ema_decay_at(step: int, decay: float) -> float:
    """The decay after `step` updates: short at first, or the initial weights would weigh on for long."""
    return min(decay, (1 + step) / (10 + step))


class TrainState:
    """Everything that a run needs to continue: weights, averaged weights, optimiser, step and the loss history."""

    def __init__(self, model: UNet, recipe: Recipe, device: torch.device):
        self.model = placed(model, device)
        self.ema = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimizer = torch.optim.Adam(self.model.parameters(), betas=(0.9, recipe.adam_beta2), fused=True)
        self.step = 0
        self.losses: list[float] = []
        """The loss of every step so far."""
        self.unread: list[Tensor] = []
        """Losses of the last steps that are still on the device."""

    def read_losses(self) -> None:
        """Bring the losses to the host; until then they stay on the device, and training needn't wait for it."""
        if self.unread:
            self.losses += torch.stack(self.unread).tolist()
            self.unread.clear()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        self.read_losses()
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "losses": torch.tensor(self.losses),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.losses = state["step"], state["losses"].tolist()


class Trainer:
    """The steps of one run over `images`, uint8 `[N, H, W, 3]`, which may be memory-mapped."""

    def __init__(
        self,
        images: np.ndarray,
        schedule: NoiseSchedule,
        recipe: Recipe,
        config: TrainConfig,
        *,
        seed: int,
        total_steps: int,
        device: torch.device,
    ):
        self.images, self.schedule, self.recipe, self.config = images, schedule, recipe, config
        self.seed, self.total_steps, self.device = seed, total_steps, device
        self.precision = choose_precision(config.precision, device)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """x_0 and eps `[B, 3, H, W]` and t `[B]` of `step`."""
        count = self.recipe.batch_images
        indices = batch_indices(self.seed, step, len(self.images), count)
        x0 = to_model_range(self.images[indices])
        generator = numpy_stream(self.seed, "noise", step)
        t = draw_timesteps(self.recipe.timesteps, self.schedule, count, generator)
        eps = normal(generator, x0.shape)
        if self.config.flip:
            flipped = torch.from_numpy(generator.random(count) < 0.5)
            x0 = torch.where(flipped[:, None, None, None], x0.flip(3), x0)
        return x0.to(self.device), t.to(self.device), eps.to(self.device)

    def train_step(self, state: TrainState) -> None:
        """One optimiser step, Ho et al. algorithm 1."""
        x0, t, eps = self.batch(state.step)
        torch.manual_seed(word(self.seed, "dropout", state.step))
        xt = q_sample(self.schedule, x0, t, eps)
        with autocast(self.device, self.precision):
            output = state.model(xt, t)
        target = training_target(self.recipe.target, self.schedule, x0, t, eps)
        loss = (loss_weight(self.recipe.target, self.schedule, t) * simple_loss(output, target)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), self.config.clip_norm)
        rate = learning_rate_at(state.step, self.total_steps, self.recipe.learning_rate, self.recipe.warmup_steps)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.step()
        state.optimizer.zero_grad()
        decay = ema_decay_at(state.step, self.recipe.ema_decay)
        with torch.no_grad():  # or every step would add to a graph that is never freed
            torch._foreach_lerp_(list(state.ema.parameters()), list(state.model.parameters()), 1 - decay)
        state.unread.append(loss.detach())
        state.step += 1

    def fit(self, state: TrainState) -> Iterator[TrainState]:
        """Train until `total_steps`, yielding after each step."""
        while state.step < self.total_steps:
            self.train_step(state)
            yield state
