"""What is learnt, how fast, and what is averaged: the numbers of a training run, as functions of its step."""

import math
from typing import Annotated, Literal, Protocol

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from ddpm.config import STRICT
from ddpm.devices.precision import Precision
from ddpm.diffusion.denoiser import TargetName, WeightingName
from ddpm.training import report
from ddpm.training.optimizers import OptimizerName

TimestepLaw = Literal["uniform", "log_normal"]

RateSchedule = Literal["constant", "cosine", "report"]

Decay = Annotated[float, Field(gt=0, lt=1)]


class Pace(Protocol):
    """What a training loop asks of a recipe, whatever is learnt."""

    @property
    def batch_images(self) -> int: ...  # noqa: D102
    @property
    def drop_last(self) -> bool: ...  # noqa: D102
    @property
    def optimizer(self) -> OptimizerName: ...  # noqa: D102
    @property
    def learning_rate(self) -> float: ...  # noqa: D102
    @property
    def rate_schedule(self) -> RateSchedule: ...  # noqa: D102
    @property
    def warmup_steps(self) -> int: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def adam_beta2(self) -> float: ...  # noqa: D102
    @property
    def ema_decays(self) -> tuple[float, ...]: ...  # noqa: D102


def epoch_images(recipe: Pace, count: int) -> int:
    """How many of `count` images an epoch shows; with `drop_last` only those that fill a batch."""
    return report.epoch_images(count, recipe.batch_images) if recipe.drop_last else count


def total_steps(recipe: Pace, epochs: int, count: int) -> int:
    """Steps in which `epochs` of `count` images are seen, at least one."""
    return max(1, epochs * epoch_images(recipe, count) // recipe.batch_images)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """How a model is trained; `loss`, `rate_schedule` and `drop_last` have a value that repeats the report's code.

    The loss of a time step counts with the product of `weighting` and the probability that `timesteps` draws it with.
    `timesteps_mean` and `timesteps_std` belong to `log_normal`; `weighting_limits`, the least and the greatest weight
    of the squared error of x_0, to all weightings but `simple`.
    """

    target: TargetName
    weighting: WeightingName
    weighting_limits: tuple[NonNegativeFloat, PositiveFloat]
    timesteps: TimestepLaw
    timesteps_mean: Annotated[float, Field(allow_inf_nan=False)]
    timesteps_std: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    loss: Literal["mean", "sum_per_1000"]
    batch_images: PositiveInt
    drop_last: bool
    optimizer: OptimizerName
    learning_rate: PositiveFloat
    rate_schedule: RateSchedule
    warmup_steps: NonNegativeInt
    weight_decay: NonNegativeFloat
    adam_beta2: Annotated[float, Field(ge=0, lt=1)]
    ema_decays: tuple[Decay, ...]
    label_dropout: Annotated[float, Field(ge=0, le=1)]

    def __post_init__(self) -> None:
        if len(set(self.ema_decays)) < len(self.ema_decays):
            raise ValueError(f"ema_decays = {list(self.ema_decays)}: each once")
        least, greatest = self.weighting_limits
        if least > greatest:
            raise ValueError(f"weighting_limits = [{least}, {greatest}]: the least weight is above the greatest")
        stays = self.weighting == "snr_plus_one" or (self.weighting == "min_snr" and least > 0)
        if self.target == "eps" and stays:
            raise ValueError(
                f"weighting = {self.weighting} with target = eps and weighting_limits = [{least}, {greatest}]: the "
                "loss of eps at t near T would have far more weight than others; take target x0 or v, weighting "
                "simple, or min_snr with a least weight of 0"
            )

    def loss_scale(self, pixels: int) -> float:
        """What the loss, a mean over images of so many values, is multiplied with before it is differentiated."""
        return report.loss_scale(self.batch_images, pixels) if self.loss == "sum_per_1000" else 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """What all models share. `micro_batch_images` are taken through the network at once; empty: all that a process has.

    Dropout is drawn for each micro-batch, so its size counts among what a result depends on.
    """

    flip: bool
    clip_norm: PositiveFloat
    micro_batch_images: PositiveInt | None
    precision: Precision


def learning_rate_at(recipe: Pace, step: int, epochs: int, count: int) -> float:
    """The rate of `step` in a run of `epochs` over `count` images.

    After a linear warm-up it stays (`constant`) or follows half a cosine that ends at 0 (`cosine`). `report` changes
    with the epoch alone, see `report.rate`.
    """
    if recipe.rate_schedule == "report":
        return recipe.learning_rate * report.rate(step * recipe.batch_images // epoch_images(recipe, count), epochs)
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    if recipe.rate_schedule == "constant":
        return recipe.learning_rate
    done = (step - recipe.warmup_steps) / max(1, total_steps(recipe, epochs, count) - recipe.warmup_steps)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def ema_decay_at(step: int, decay: float) -> float:
    """The factor of the old average after `step` updates: 0 at first, then rising to `decay`.

    With it the weights of k updates ago count in proportion to decay^k in a run of any length, those before the first
    update not at all (the bias correction of Adam, Kingma & Ba 2015, section 3, folded into the factor). So the mean
    age of what is averaged is decay / (1 - decay) updates, and half a run in runs that are shorter than that.
    """
    return 1 - (1 - decay) / (1 - decay ** (step + 1))
