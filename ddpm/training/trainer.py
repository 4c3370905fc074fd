"""Training (Ho et al. algorithm 1): the loop, its state that a run can continue from, and the step of a denoiser.

Everything random is a function of (seed, step), so the state holds no generator.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Generic

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ddpm.devices.precision import autocast_dtype, placed, set_float32_products
from ddpm.devices.processes import rank_and_count, sum_over_processes
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.rng import word
from ddpm.training.averages import averages_of, move_averages
from ddpm.training.batches import B, Batch, Batches, P, Stream
from ddpm.training.diverged import WINDOW, DivergedError
from ddpm.training.epochs import own_micro_batches
from ddpm.training.optimizers import optimizers_of
from ddpm.training.recipe import Pace, Recipe, TrainConfig, epoch_images, learning_rate_at, total_steps

DIVERGED = 10.0
"""How many times the loss of the first window is too much for a later one."""


def diverged(step: int, loss: float) -> DivergedError:
    """The error of a run whose `loss` at `step` is no number, or far above where it began."""
    return DivergedError(step, f"the loss of step {step} is {loss:.4g}")


class TrainState:
    """Everything that a run needs to continue: weights, their averages, optimisers, step and the loss history.

    Args:
        model: with its initial weights.
        recipe: optimiser and averages.
        device: where it is trained.
        compiled: let `torch.compile` make the network's kernels.
    """

    def __init__(self, model: nn.Module, recipe: Pace, device: torch.device, *, compiled: bool = False):
        self.model = placed(model, device)
        self.averages = averages_of(self.model, recipe.ema_decays)
        # Lists, because to walk through the modules at every step would take longer than to average.
        self.parameters: list[Tensor] = list(self.model.parameters())
        self.averaged: list[list[Tensor]] = [list(average.parameters()) for average in self.averages]
        self.optimizers = optimizers_of(self.model, recipe.optimizer, recipe.adam_beta2, recipe.weight_decay)
        self.network: Any = self.model
        if rank_and_count()[1] > 1:
            self.network = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        if compiled:
            # On CUDA with graphs: at 48 px the launches of small kernels take longer than the kernels.
            self.network = torch.compile(self.network, mode="reduce-overhead" if device.type == "cuda" else "default")
        self.step = 0
        self.losses: list[float] = []
        """The loss of every step so far."""
        self.unread: list[Tensor] = []
        """The losses of the last steps, of this process's images alone, still on the device."""

    def read_losses(self) -> None:
        """Bring the losses to the host; until then they stay on the device, and training needn't wait for it.

        All processes of a run do it after the same step.

        Raises:
            DivergedError: a loss is no number, or those of the last steps are far above the first ones.
        """
        if not self.unread:
            return
        read = sum_over_processes(torch.stack(self.unread)).tolist()
        self.unread.clear()
        first, self.losses = len(self.losses), self.losses + read
        for step, loss in enumerate(read, start=first):
            if not np.isfinite(loss):
                raise diverged(step, loss)
        last = float(np.mean(self.losses[-WINDOW:]))
        if last > DIVERGED * float(np.mean(self.losses[:WINDOW])):
            raise diverged(self.step - 1, last)

    def summary(self) -> str:
        """The mean loss of the last steps."""
        return f"loss={np.mean(self.losses[-200:]):.4f}"

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes.

        Raises:
            DivergedError: as `read_losses`, or the last step has spoilt the weights.
        """
        self.read_losses()
        finite = torch.stack([parameter.isfinite().all() for parameter in self.model.parameters()]).all()
        if not finite:
            raise diverged(self.step, math.nan)
        return {
            "model": self.model.state_dict(),
            "averages": [average.state_dict() for average in self.averages],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "losses": torch.tensor(self.losses),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.model.load_state_dict(state["model"])
        for average, saved in zip(self.averages, state["averages"], strict=True):
            average.load_state_dict(saved)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.losses = state["step"], state["losses"].tolist()


class Loop(ABC, Generic[P, B]):
    """The steps of one run over `batches`. Of several processes each takes some `micro_batches`, places in the batch.

    Raises:
        ValueError: there is a process without a micro-batch, or an epoch without a batch.
    """

    def __init__(self, batches: Stream[P, B], config: TrainConfig, *, seed: int, epochs: int):
        self.batches, self.recipe, self.config = batches, batches.recipe, config
        self.seed, self.epochs, self.device = seed, epochs, batches.device
        self.total_steps = total_steps(self.recipe, epochs, len(batches.images))
        set_float32_products(config.precision)
        self.precision = autocast_dtype(config.precision, self.device)
        batch = self.recipe.batch_images
        if not epoch_images(self.recipe, len(batches.images)):
            raise ValueError(f"batch_images = {batch} and drop_last leave nothing of {len(batches.images)} images")
        self.micro_batches = own_micro_batches(batch, config.micro_batch_images)

    def learning_rate(self, step: int) -> float:
        """The rate of `step`."""
        return learning_rate_at(self.recipe, step, self.epochs, len(self.batches.images))

    @abstractmethod
    def losses(self, state: TrainState, batch: B) -> Tensor:
        """The loss of each image, `[B]`."""

    def loss_scale(self) -> float:
        """What the loss of a batch, a mean, is multiplied with before it is differentiated."""
        return 1.0

    def train_step(self, state: TrainState, batches: Sequence[B]) -> None:
        """One optimiser step with the micro-batches of this process."""
        scale = self.loss_scale()
        losses = []
        for places, batch in zip(self.micro_batches, batches, strict=True):
            torch.manual_seed(word(self.seed, "dropout", state.step, places.start))
            more = rank_and_count()[1] > 1 and places is not self.micro_batches[-1]
            with state.network.no_sync() if more else nullcontext():  # gradients are exchanged once a step
                loss = self.losses(state, batch).sum() / self.recipe.batch_images
                # Processes' gradients are averaged; their sum is wanted.
                (scale * rank_and_count()[1] * loss).backward()
            losses.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(state.parameters, self.config.clip_norm)
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(state.step)
            optimizer.step()
            optimizer.zero_grad()
        move_averages(state.averaged, state.parameters, self.recipe.ema_decays, state.step)
        state.unread.append(torch.stack(losses).sum())
        state.step += 1

    def fit(self, state: TrainState) -> Iterator[TrainState]:
        """Train until `total_steps`, yielding after each step."""
        steps = range(state.step, self.total_steps)
        stream = self.batches.ahead((step, places) for step in steps for places in self.micro_batches)
        for _ in steps:
            self.train_step(state, [next(stream) for _ in self.micro_batches])
            yield state


class Trainer(Loop[Recipe, Batch]):
    """The steps by which a denoiser learns to see through the noise of `schedule`."""

    def __init__(self, batches: Batches, schedule: NoiseSchedule, config: TrainConfig, *, seed: int, epochs: int):
        super().__init__(batches, config, seed=seed, epochs=epochs)
        self.schedule = schedule

    def losses(self, state: TrainState, batch: Batch) -> Tensor:
        """The weighted loss of each image, `[B]`."""
        recipe = self.recipe
        denoiser = Denoiser(
            state.network, self.schedule, recipe.target, recipe.weighting, recipe.weighting_limits, self.precision
        )
        return denoiser.losses(batch.x0, batch.t, batch.eps, batch.label)

    def loss_scale(self) -> float:
        """That of the recipe, for images of this size."""
        return self.recipe.loss_scale(math.prod(self.batches.shape))
