"""Tuning (Song et al. 2023; Geng et al. 2024): training whose loss is that of a consistency function."""

import copy
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT
from ddpm.devices.precision import placed
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import q_sample
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.diffusion.unet import UNet
from ddpm.rng import word
from ddpm.training.batches import Batch, Batches
from ddpm.training.recipe import Recipe, TrainConfig, total_steps
from ddpm.training.trainer import Trainer, TrainState
from ddpm.tuning.consistency import Estimate, error, noise_step, step_down, target_estimate, teachers_end


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TuneConfig:
    """How trained weights are tuned for one or two evaluations; with the objective `none` they are not.

    `distillation` (Song et al. 2023, arXiv:2303.01469) goes from stop to stop by `teacher_steps` of the teacher, and
    all stops weigh the same. `matching` is distillation first, and then distribution matching (Yin et al. 2024,
    arXiv:2311.18828) of what is drawn in `evaluations`, at stops equally far from each other. Before each of its steps
    the fake score, which learns what is drawn, takes `fake_score_steps`. With a `critic_weight` a critic on top of it,
    which sees training images too, has a say (Yin et al. 2024, arXiv:2405.14867). `tuning` (Geng et al. 2024,
    arXiv:2406.14548) needs no teacher: it steps down with the image and the noise of x_t, and an error is divided by
    how much the noise-to-signal ratio falls in the step. The stops are `points` times, equally far apart in log SNR and
    drawn equally often; those of the teacher between them are so too. The network that sets the target is an average of
    the tuned one.
    """

    objective: Literal["none", "distillation", "matching", "tuning"]
    evaluations: PositiveInt
    epochs: PositiveInt
    points: Annotated[int, Field(ge=2)]
    teacher_steps: PositiveInt
    batch_images: PositiveInt | None
    learning_rate: PositiveFloat
    matching_epochs: PositiveInt
    matching_learning_rate: PositiveFloat
    fake_score_steps: PositiveInt
    fake_score_learning_rate: PositiveFloat
    critic_weight: NonNegativeFloat
    target_decay: Annotated[float, Field(ge=0, lt=1)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    seed: NonNegativeInt

    def __post_init__(self) -> None:
        if self.points % self.evaluations:
            raise ValueError(f"points = {self.points}: must be a multiple of evaluations = {self.evaluations}")

    @property
    def distils(self) -> bool:
        """Whether there is a teacher."""
        return self.objective in ("distillation", "matching")

    @property
    def steps_between(self) -> int:
        """The steps that lead from one stop to the next."""
        return self.teacher_steps if self.distils else 1

    def stops(self, times: list[int]) -> list[int]:
        """Which of the falling `times` the weights know at the end: all stops, or those of the matched evaluations."""
        stops = times[:: self.steps_between]
        return stops[:: self.points // self.evaluations] if self.objective == "matching" else stops

    def recipe(self, trained: Recipe, count: int) -> Recipe:
        """How a model that was `trained` so is tuned on `count` images: with its optimiser and label dropout.

        The rate falls along a cosine after a warm-up of at most a tenth of the steps.
        """
        decays = tuple(dict.fromkeys(decay for decay in (self.target_decay, self.ema_decay) if decay))
        changes: dict[str, Any] = {"loss": "mean", "drop_last": False, "rate_schedule": "cosine", "ema_decays": decays}
        batch = self.batch_images or trained.batch_images
        recipe = replace(trained, learning_rate=self.learning_rate, batch_images=batch, **changes)
        warmup = min(recipe.warmup_steps, total_steps(recipe, self.epochs, count) // 10)
        return replace(recipe, warmup_steps=warmup)

    def matching_recipe(self, trained: Recipe, count: int) -> Recipe:
        """The same for matching."""
        matching = replace(self, epochs=self.matching_epochs, learning_rate=self.matching_learning_rate)
        return matching.recipe(trained, count)

    def fake_score_recipe(self, trained: Recipe, count: int) -> Recipe:
        """How the fake score is trained meanwhile: as the model was, at a constant rate."""
        changes: dict[str, Any] = {"rate_schedule": "constant", "ema_decays": ()}
        return replace(self.matching_recipe(trained, count), learning_rate=self.fake_score_learning_rate, **changes)


class StopBatches(Batches):
    """Batches whose t are drawn from `stops`, each as often as the others."""

    def __init__(self, stops: list[int], *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        law = np.zeros(len(self.up_to))
        law[stops] = 1 / len(stops)
        self.up_to = np.cumsum(law)


class Tuner(Trainer):
    """The steps that turn a copy of `teacher` into a consistency function; `batches` have their t from its stops.

    Args:
        tune: objective, length, target network.
        times: falling time steps from T - 1: every `tune.steps_between`-th is a stop, the others are the teacher's.
        teacher: a trained network, which stays as it is.
        batches: of a recipe that `tune` has made.
        schedule: that of the teacher.
        config: as in training.
        clip: keep the teacher's estimates in [-1, 1], as its sampler does.
    """

    def __init__(
        self,
        tune: TuneConfig,
        times: list[int],
        teacher: UNet,
        batches: StopBatches,
        schedule: NoiseSchedule,
        config: TrainConfig,
        *,
        clip: bool,
    ):
        seed = word(tune.seed, "tune")
        super().__init__(batches, schedule, config, seed=seed, epochs=tune.epochs)
        self.tune, self.times, self.clip = tune, times, clip
        self.teacher = placed(copy.deepcopy(teacher), self.device).requires_grad_(False).eval()
        steps = tune.steps_between
        ways = torch.full((steps + 1, schedule.steps), -1)  # from each stop to the one below, or to -1, the image
        for first in range(0, len(times), steps):
            way = torch.tensor([*times, -1][first : first + steps + 1])
            ways[:, way[0]] = way
        self.ways = ways.to(self.device)

    def losses(self, state: TrainState, batch: Batch) -> Tensor:
        """How far each image's estimate is from that one stop further down, `[B]`."""
        way, label = self.ways[:, batch.t], batch.label
        s, xt = way[-1], q_sample(self.schedule, batch.x0, batch.t, batch.eps)
        with torch.no_grad():
            if self.tune.distils:
                xs = teachers_end(self.schedule, self.teachers_estimate, xt, way, label)
            else:
                xs = step_down(self.schedule, batch.x0, batch.eps, s)
        target = state.averages[0] if self.tune.target_decay else state.model
        wanted = target_estimate(self.estimates(target), xs, s, label)
        torch.manual_seed(torch.initial_seed())  # the same dropout for both times, where the target has any
        found = error(self.estimates(state.network)(xt, batch.t, label), wanted)
        return found / noise_step(self.schedule, batch.t, s) if self.tune.objective == "tuning" else found

    def estimates(self, network: Any) -> Estimate:
        """The estimates of x_0 by `network`."""
        return Denoiser(network, self.schedule, self.recipe.target, precision=self.precision)

    def teachers_estimate(self, xt: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """The teacher's estimate of x_0, as its sampler takes it."""
        return self.clipped(self.estimates(self.teacher)(xt, t, label))

    def clipped(self, x0: Tensor) -> Tensor:
        """An estimate of x_0 as the sampler takes it."""
        return x0.clamp(-1, 1) if self.clip else x0
