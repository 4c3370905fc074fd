"""Training a GAN: in each step the critic takes one, and then the generator.

Everything random is a function of (seed, step, position in the batch), so the state holds no generator of numbers.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.optim import Adam

from ddpm.config import STRICT
from ddpm.devices.precision import autocast, autocast_dtype, placed, set_float32_products
from ddpm.devices.processes import rank_and_count, sum_over_processes
from ddpm.devices.transfer import ahead, sent
from ddpm.gan.networks import Critic, Generator
from ddpm.gan.pairing import critic_loss, generator_loss, squared_gradient
from ddpm.rng import normal, numpy_stream
from ddpm.training.averages import averages_of, move_averages
from ddpm.training.diverged import WINDOW, DivergedError
from ddpm.training.epochs import Epochs, own_micro_batches
from ddpm.training.recipe import Decay, TrainConfig

CRITIC_WINS = 0.01
"""Mean loss of the critic over `PATIENCE` steps below which the generator has nothing left to learn from."""
PATIENCE = 4 * WINDOW
"""Steps, of `CRITIC_WINS` and before `STEEP` counts."""
STEEP = 1e3
"""How many times its median the squared gradient of generated images' scores may be."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GanRecipe:
    """How a GAN is trained.

    `learning_rate` and `gamma`, the weight of the penalties, fall by half a cosine to `last_learning_rate` and
    `last_gamma` in the first `burn_in` of the steps. Both networks have the same rates and Adam without momentum.
    """

    batch_images: PositiveInt
    learning_rate: PositiveFloat
    last_learning_rate: PositiveFloat
    gamma: NonNegativeFloat
    last_gamma: NonNegativeFloat
    burn_in: Annotated[float, Field(ge=0, le=1)]
    adam_beta2: Annotated[float, Field(ge=0, lt=1)]
    ema_decays: tuple[Decay, ...]

    def __post_init__(self) -> None:
        if len(set(self.ema_decays)) < len(self.ema_decays):
            raise ValueError(f"ema_decays = {list(self.ema_decays)}: each once")

    def total_steps(self, epochs: int, count: int) -> int:
        """Steps in which the critic sees `epochs` of `count` images, at least one."""
        return max(1, epochs * count // self.batch_images)

    def at(self, step: int, total_steps: int) -> tuple[float, float]:
        """The learning rate and gamma of `step`."""
        done = min(1.0, step / max(1.0, self.burn_in * total_steps))
        left = 0.5 * (1 + math.cos(math.pi * done))
        return (
            self.last_learning_rate + left * (self.learning_rate - self.last_learning_rate),
            self.last_gamma + left * (self.gamma - self.last_gamma),
        )


class Pairs(NamedTuple):
    """Real images `[B, 3, H, W]`, as much noise `[B, Z]`, and the class of each pair `[B]`, if there are any."""

    real: Tensor
    z: Tensor
    label: Tensor | None


class PairBatches(Epochs):
    """The pairs that critic and generator see; both of a pair have the class of the real image.

    Args:
        images: the real ones, uint8 `[N, H, W, 3]`.
        labels: the class of each, int64 `[N]`, for conditional networks.
        latent_channels: of the noise.
        recipe: the batch.
        flip: mirror half of the images.
        seed: of the run.
        device: where the pairs are wanted.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        latent_channels: int,
        recipe: GanRecipe,
        *,
        flip: bool,
        seed: int,
        device: torch.device,
    ):
        super().__init__(images, recipe.batch_images, len(images), flip=flip, seed=seed, device=device)
        self.labels, self.latent_channels = labels, latent_channels

    def micro_batch(self, step: int, places: range, turn: str) -> Pairs:
        """The pairs at `places` of the batch of `step` in the `turn` of the critic or of the generator.

        The generator is compared with the real images that the critic sees one step later.
        """
        indices = self.indices(step + (turn == "generator"))[places]
        streams = [numpy_stream(self.seed, f"gan: {turn}", step, place) for place in places]
        chances = np.array([stream.random() for stream in streams])
        z = torch.stack([normal(stream, (self.latent_channels,)) for stream in streams])
        label = None if self.labels is None else sent(torch.from_numpy(self.labels[indices]), self.device)
        return Pairs(self.shown(indices, chances), sent(z, self.device), label)


class Signs(NamedTuple):
    """What tells how the game goes, means over a batch of pairs.

    The losses are near log 2 where neither network can tell the images apart. `wins` is the fraction of pairs of which
    the critic scores the real one higher, `margin` by how much it does, `steep_real` and `steep_fake` are the squared
    gradients of the scores, and `out_of_range` is the fraction of the generator's values outside [-1, 1].
    """

    critic_loss: float
    generator_loss: float
    margin: float
    wins: float
    steep_real: float
    steep_fake: float
    out_of_range: float


class GanState:
    """Everything that a run needs to continue: both networks and optimisers, averages of the generator, and the signs.

    Args:
        generator: with its initial weights.
        critic: the same.
        recipe: optimisers and averages.
        device: where they are trained.
    """

    def __init__(self, generator: Generator, critic: Critic, recipe: GanRecipe, device: torch.device):
        self.generator, self.critic = placed(generator, device), placed(critic, device)
        self.averages = averages_of(self.generator, recipe.ema_decays)
        self.averaged: list[list[Tensor]] = [list(average.parameters()) for average in self.averages]
        betas = (0.0, recipe.adam_beta2)
        self.networks: list[nn.Module] = [self.critic, self.generator]
        self.optimizers = [Adam(network.parameters(), betas=betas, fused=True) for network in self.networks]
        self.step = 0
        self.signs: list[Signs] = []
        """Of every step so far."""
        self.unread: list[Tensor] = []
        """The signs of the last steps, of this process's pairs alone, still on the device."""

    def read_losses(self) -> None:
        """Bring the signs to the host; all processes of a run do it after the same step.

        Raises:
            DivergedError: nothing will come of the run.
        """
        if not self.unread:
            return
        read = sum_over_processes(torch.stack(self.unread)).tolist()
        self.unread.clear()
        for values in read:
            self.signs.append(Signs(*values))
            if not all(map(math.isfinite, values)):
                raise DivergedError(len(self.signs) - 1, f"step {len(self.signs) - 1} gives values that are not finite")
        require_a_game(self.signs, len(read))

    def summary(self) -> str:
        """The mean losses of the last steps."""
        critic, generator, *_ = np.mean(self.signs[-200:], axis=0)
        return f"critic={critic:.4f}, generator={generator:.4f}"

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes.

        Raises:
            DivergedError: as `read_losses`, or the last step has spoilt the weights.
        """
        self.read_losses()
        weights = [parameter for network in self.networks for parameter in network.parameters()]
        if not torch.stack([parameter.isfinite().all() for parameter in weights]).all():
            raise DivergedError(self.step, f"step {self.step} has weights that are not finite")
        return {
            "networks": [network.state_dict() for network in self.networks],
            "averages": [average.state_dict() for average in self.averages],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "signs": torch.tensor(self.signs, dtype=torch.float64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        for kind in ("networks", "averages", "optimizers"):
            for ours, saved in zip(getattr(self, kind), state[kind], strict=True):
                ours.load_state_dict(saved)
        self.step, self.signs = state["step"], [Signs(*values) for values in state["signs"].tolist()]


def require_a_game(signs: Sequence[Signs], new: int) -> None:
    """Fail where the last signs, of which so many are `new`, show that the critic has won or diverges.

    Raises:
        DivergedError: naming the step and the sign.
    """
    if len(signs) < PATIENCE:
        return
    step, loss = len(signs) - 1, float(np.mean([sign.critic_loss for sign in signs[-PATIENCE:]]))
    if loss < CRITIC_WINS:
        raise DivergedError(step, f"the critic wins: its loss up to step {step} is {loss:.4g}, and should be near 0.69")
    usual = float(np.median([sign.steep_fake for sign in signs]))
    steepest = max(range(len(signs) - new, len(signs)), key=lambda index: signs[index].steep_fake)
    if signs[steepest].steep_fake > STEEP * usual:
        found = f"{signs[steepest].steep_fake:.4g} at step {steepest}, and usually {usual:.4g}"
        raise DivergedError(steepest, f"the critic diverges: its squared gradient is {found}")


class GanTrainer:
    """The steps of one run over `batches`. Of several processes each takes some `micro_batches`, places in the batch.

    Raises:
        ValueError: there is a process without a micro-batch.
    """

    def __init__(self, batches: PairBatches, recipe: GanRecipe, config: TrainConfig, *, epochs: int):
        self.batches, self.recipe, self.epochs = batches, recipe, epochs
        self.device = batches.device
        self.total_steps = recipe.total_steps(epochs, len(batches.images))
        set_float32_products(config.precision)
        self.precision = autocast_dtype(config.precision, self.device)
        self.micro_batches = own_micro_batches(recipe.batch_images, config.micro_batch_images)

    def train_step(self, state: GanState, critic_pairs: Sequence[Pairs], generator_pairs: Sequence[Pairs]) -> None:
        """One step of the critic and one of the generator, with the micro-batches of this process."""
        rate, gamma = self.recipe.at(state.step, self.total_steps)
        state.critic.requires_grad_(True)
        seen = [self.critic_gradient(state, pairs, gamma) for pairs in critic_pairs]
        self.move(state.critic, state.optimizers[0], rate)
        state.critic.requires_grad_(False)
        learnt = [self.generator_gradient(state, pairs) for pairs in generator_pairs]
        self.move(state.generator, state.optimizers[1], rate)
        move_averages(state.averaged, [*state.generator.parameters()], self.recipe.ema_decays, state.step)
        critic, generator = torch.stack(seen).sum(0), torch.stack(learnt).sum(0)
        loss, margin, wins, steep_real, steep_fake, out_of_range = critic
        signs = torch.stack([loss, generator, margin, wins, steep_real, steep_fake, out_of_range])
        state.unread.append(signs / self.recipe.batch_images)
        state.step += 1

    def critic_gradient(self, state: GanState, pairs: Pairs, gamma: float) -> Tensor:
        """Derive the critic's loss of `pairs` with both penalties; return sums of what `Signs` has of them."""
        real = pairs.real.requires_grad_()
        with autocast(self.device, self.precision):
            with torch.no_grad():
                fake = state.generator(pairs.z, pairs.label).float()
            scores = [state.critic(images, pairs.label).float() for images in (real, fake.requires_grad_())]
            steep_real, steep_fake = map(squared_gradient, scores, (real, fake))
            loss = critic_loss(*scores)
            penalty = gamma / 2 * (steep_real + steep_fake)
        ((loss + penalty).sum() / self.recipe.batch_images).backward()
        margin = scores[0] - scores[1]
        outside = (fake.abs() > 1).float().flatten(1).mean(1)
        signs = [loss, margin, (margin > 0).float(), steep_real, steep_fake, outside]
        return torch.stack([sign.detach().sum() for sign in signs])

    def generator_gradient(self, state: GanState, pairs: Pairs) -> Tensor:
        """Derive the generator's loss of `pairs`; return its sum."""
        with autocast(self.device, self.precision):
            fake = state.generator(pairs.z, pairs.label)
            scores = [state.critic(images, pairs.label).float() for images in (pairs.real, fake)]
            loss = generator_loss(*scores)
        (loss.sum() / self.recipe.batch_images).backward()
        return loss.detach().sum()

    def move(self, network: nn.Module, optimizer: Adam, rate: float) -> None:
        """A step along the gradients of all processes."""
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        if rank_and_count()[1] > 1:
            summed = sum_over_processes(torch.cat([gradient.flatten() for gradient in gradients]))
            for gradient, values in zip(gradients, summed.split([each.numel() for each in gradients]), strict=True):
                gradient.copy_(values.view_as(gradient))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()

    def fit(self, state: GanState) -> Iterator[GanState]:
        """Train until `total_steps`, yielding after each step."""
        steps, turns = range(state.step, self.total_steps), ("critic", "generator")
        wanted = ((step, places, turn) for step in steps for turn in turns for places in self.micro_batches)
        stream = ahead((partial(self.batches.micro_batch, *each) for each in wanted), self.device)
        for _ in steps:
            critic, generator = ([next(stream) for _ in self.micro_batches] for _ in turns)
            self.train_step(state, critic, generator)
            yield state
