"""Distribution matching (Yin et al. 2024, arXiv:2311.18828): drawing each image as often as the teacher does.

The weights draw x_0 in one or a few evaluations, noise is added, and two networks estimate x_0 from that: the teacher,
and the *fake score*, which learns meanwhile what the weights draw. Where the weights draw something more often than the
teacher, the two estimates differ, and their difference is the way that the drawn image has to move. Nothing ties an
image to its noise any more, as distillation does. So this goes on from distilled weights, which draw every kind of
image already.

Three things come from a second paper (Yin et al. 2024, arXiv:2405.14867): several steps of the fake score for one of
the weights, that an evaluation learns from what those before it drew, and a critic that has seen real images.

All images are drawn in the same number of evaluations: the fake score can't tell in how many one was drawn, so too
little contrast in one evaluation would be made up for by too much in two.
"""

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.devices.transfer import sent
from ddpm.diffusion.process import q_sample
from ddpm.rng import normal, numpy_stream
from ddpm.training.batches import Batch, Batches, Stream
from ddpm.training.diverged import DivergedError
from ddpm.training.recipe import Recipe, learning_rate_at
from ddpm.training.trainer import Loop, Trainer, TrainState
from ddpm.tuning.consistency import error
from ddpm.tuning.critic import Critic, CriticTrainer, verdict
from ddpm.tuning.tuner import Tuner

NOISE_LEVELS = 64
"""Times, equally far apart in log SNR, for which drawn images are noised again, equally often."""


class Draw(NamedTuple):
    """How images are drawn and noised again: `noise` `[B, N, C, H, W]` of their N evaluations, the first of it x_T.

    Then each gets the noise eps `[B, C, H, W]` of t `[B]`. `label` `[B]` is their class, if there are any.
    `real` `[B, C, H, W]` are training images, for the critic.
    """

    noise: Tensor
    t: Tensor
    eps: Tensor
    label: Tensor | None
    real: Tensor


class DrawnBatches(Stream[Recipe, Draw]):
    """What steps by `recipe` take at random for images of so many `evaluations`; t, eps, label are of `renoising`."""

    def __init__(self, renoising: Batches, recipe: Recipe, evaluations: int):
        super().__init__(renoising.images, recipe, flip=renoising.flip, seed=renoising.seed, device=renoising.device)
        self.renoising, self.evaluations = renoising, evaluations

    def indices(self, step: int) -> np.ndarray:
        """None: a step learns from drawn images; the training images that the critic sees are those of `renoising`."""
        return np.empty(0, int)

    def micro_batch(self, step: int, places: range) -> Draw:
        """The draws at `places` of the batch of `step`, on the device."""
        real, t, eps, label = self.renoising.micro_batch(step, places)
        streams = [numpy_stream(self.seed, "matching", step, place) for place in places]
        noise = torch.stack([normal(stream, (self.evaluations, *self.shape)) for stream in streams])
        return Draw(sent(noise, self.device), t, eps, label, real)


class MatchState(TrainState):
    """The state of tuned weights, and in it that of the fake score, a copy of the network trained by `fake_recipe`.

    A `critic` is part of the fake score's network, and keeps that from being compiled.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        device: torch.device,
        *,
        fake_recipe: Recipe,
        critic: bool,
        compiled: bool = False,
    ):
        fake: Any = copy.deepcopy(model)
        if critic:
            fake.critic = Critic(fake)
        super().__init__(model, recipe, device, compiled=compiled)
        self.fake = TrainState(fake, fake_recipe, device, compiled=compiled and not critic)

    def read_losses(self) -> None:
        """Bring those of both to the host."""
        super().read_losses()
        with self._fake_named():
            self.fake.read_losses()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        with self._fake_named():
            return {**super().state_dict(), "fake": self.fake.state_dict()}

    @contextmanager
    def _fake_named(self) -> Iterator[None]:
        """Let the fake score diverge by its name at a step of the run, of which each has several of its own."""
        try:
            yield
        except DivergedError as error:
            raise DivergedError(self.step, f"fake score: {error}") from None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        super().load_state_dict(state)
        self.fake.load_state_dict(state["fake"])


class Matcher(Loop[Recipe, Draw]):
    """The steps of `distillation`, then those of matching by `recipe`; dropout ends with the former.

    Args:
        distillation: it has the teacher, the times, and in `tune` how long both are.
        renoising: t, eps and labels by which drawn images are noised again, with the recipe of the fake score.
        recipe: of the tuned weights while they are matched.
    """

    def __init__(self, distillation: Tuner, renoising: Batches, recipe: Recipe):
        tune, config, seed = distillation.tune, distillation.config, distillation.seed
        own = DrawnBatches(renoising, recipe, tune.evaluations)
        super().__init__(own, config, seed=seed, epochs=tune.matching_epochs)
        self.distillation, self.schedule, self.tune = distillation, distillation.schedule, tune
        self.critic_weight = tune.critic_weight
        trainer = partial(CriticTrainer, tune.critic_weight) if tune.critic_weight else Trainer
        self.fake_trainer = trainer(renoising, self.schedule, config, seed=seed, epochs=tune.matching_epochs)
        self.stops = tune.stops(distillation.times)
        self.epochs += distillation.epochs
        self.total_steps += distillation.total_steps

    def learning_rate(self, step: int) -> float:
        """The rate of `step`: each part begins and ends its own course."""
        before = self.distillation.total_steps
        if step < before:
            return self.distillation.learning_rate(step)
        return learning_rate_at(self.recipe, step - before, self.tune.matching_epochs, len(self.batches.images))

    def fit(self, state: MatchState) -> Iterator[MatchState]:  # type: ignore[override]
        """Train until `total_steps`, yielding after each step of the tuned weights."""
        for _ in self.distillation.fit(state):
            yield state
        state.model.eval()
        state.fake.model.eval()
        steps, turns = range(state.step, self.total_steps), range(self.tune.fake_score_steps + 1)
        stream = self.batches.ahead(
            (step * len(turns) + turn, places) for step in steps for turn in turns for places in self.micro_batches
        )
        for _ in steps:
            for _ in turns[1:]:
                self.fake_trainer.train_step(state.fake, [self.image(state, next(stream)) for _ in self.micro_batches])
            self.train_step(state, [next(stream) for _ in self.micro_batches])
            yield state

    def losses(self, state: MatchState, draw: Draw) -> Tensor:  # type: ignore[override]
        """How far the two estimates are from each other, `[B]`; its gradient moves what is drawn towards the teacher's.

        It moves by the difference of the estimates over how far the image is from the teacher's, as in the code of Yin
        et al. 2024, so that no t outweighs the others, and to where the critic takes it for real.
        """
        x0 = self.drawn(state, draw)
        xt = q_sample(self.schedule, x0, draw.t, draw.eps)
        state.fake.model.requires_grad_(False)  # it learns in steps of its own
        with torch.set_grad_enabled(self.critic_weight > 0):
            fake = self.distillation.estimates(state.fake.model)(xt, draw.t, draw.label)
            doubt = self.critic_weight * F.softplus(-verdict(state.fake.model)) if self.critic_weight else 0.0
        state.fake.model.requires_grad_(True)
        with torch.no_grad():
            real = self.distillation.teachers_estimate(xt, draw.t, draw.label)
            away = (fake - real) / (x0 - real).abs().mean(dim=(1, 2, 3), keepdim=True)
        moved = (x0 * away).mean(dim=(1, 2, 3)) + doubt
        return error(fake, real).detach() + moved - moved.detach()

    def image(self, state: MatchState, draw: Draw) -> Batch:
        """What the fake score learns from: drawn images and, for the critic, real ones behind them, with the same t."""
        with torch.no_grad():
            x0, t, eps, label = self.drawn(state, draw), draw.t, draw.eps, draw.label
        if self.critic_weight:
            x0, t, eps = torch.cat([x0, draw.real]), t.repeat(2), eps.repeat(2, 1, 1, 1)
            label = label.repeat(2) if label is not None else None
        return Batch(x0, t, eps, label)

    def drawn(self, state: MatchState, draw: Draw) -> Tensor:
        """The images x_0 of `draw`, `[B, C, H, W]`, as the sampler makes them; the last evaluation has a gradient."""
        stops = [torch.full_like(draw.t, stop) for stop in self.stops]
        xt, *again = draw.noise.unbind(1)
        with torch.no_grad():
            estimate = self.distillation.estimates(state.model)
            for (t, s), noise in zip(itertools.pairwise(stops), again, strict=True):
                xt = q_sample(self.schedule, self.distillation.clipped(estimate(xt, t, draw.label)), s, noise)
        return self.distillation.estimates(state.network)(xt, stops[-1], draw.label)
