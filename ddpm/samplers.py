"""From noise to images: flat functions of one signature. To add one, write it here and name it in `SAMPLERS`."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT
from ddpm.diffusion import posterior
from ddpm.predictor import Predict
from ddpm.rng import normal, numpy_stream
from ddpm.schedule import NoiseSchedule, spaced_timesteps

OnStep = Callable[[int, Tensor, Tensor], None]
"""Called after each evaluation with (t, x_t, the estimate of x_0)."""

Noise = Callable[[], Tensor]
"""Fresh standard normal noise of the shape of the batch."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SamplerConfig:
    """How a sampler walks; `variance` is for `ancestral`, `eta` for `ddim`, `clip` for the predictor of either."""

    sampler: Literal["ancestral", "ddim"]
    steps: int
    clip: bool
    variance: Literal["small", "large"]
    eta: float

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")
        if not 0 <= self.eta <= 1:
            raise ValueError("eta must be from 0 (deterministic) to 1 (ancestral)")


class Sampler(Protocol):
    """The signature of all samplers: from x_T at `timesteps[0]` to x_0."""

    def __call__(  # noqa: D102
        self,
        predict: Predict,
        xt: Tensor,
        schedule: NoiseSchedule,
        timesteps: Sequence[int],
        noise: Noise,
        config: SamplerConfig,
        on_step: OnStep | None = None,
    ) -> Tensor: ...


def ancestral(
    predict: Predict,
    xt: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    noise: Noise,
    config: SamplerConfig,
    on_step: OnStep | None = None,
) -> Tensor:
    """Ho et al. algorithm 2: the chain of equations (6) and (7), one posterior draw a step.

    sigma_t^2 is the posterior's (`small`, equation 12) or the step's own beta (`large`). The last step adds no noise.
    """
    for t, s in zip(timesteps, [*timesteps[1:], -1], strict=True):
        x0, _ = predict(xt, t)
        if on_step:
            on_step(t, xt, x0)
        xt, variance = posterior(schedule, x0, xt, t, s)
        if s >= 0:
            if config.variance == "large":
                variance = 1 - schedule.at(t) / schedule.at(s)
            xt = xt + variance**0.5 * noise()
    return xt


def ddim(
    predict: Predict,
    xt: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    noise: Noise,
    config: SamplerConfig,
    on_step: OnStep | None = None,
) -> Tensor:
    """Song et al. 2021 (arXiv:2010.02502) equation 12; eta = 0 is deterministic, eta = 1 is `ancestral` `small`."""
    for t, s in zip(timesteps, [*timesteps[1:], -1], strict=True):
        x0, eps = predict(xt, t)
        if on_step:
            on_step(t, xt, x0)
        bar_t, bar_s = schedule.at(t), schedule.at(s)
        sigma = config.eta * ((1 - bar_s) / (1 - bar_t) * (1 - bar_t / bar_s)) ** 0.5  # Song et al. equation 16
        xt = bar_s**0.5 * x0 + (1 - bar_s - sigma**2) ** 0.5 * eps
        if sigma > 0:
            xt = xt + sigma * noise()
    return xt


SAMPLERS: dict[str, Sampler] = {"ancestral": ancestral, "ddim": ddim}


class ImageNoise:
    """Noise of which image i depends on (seed, purpose, i) and how often it was asked for, not on its batch."""

    def __init__(self, seed: int, purpose: str, ids: Sequence[int], shape: tuple[int, int, int], device: torch.device):
        self.generators = [numpy_stream(seed, purpose, i) for i in ids]
        self.shape, self.device = shape, device

    def __call__(self) -> Tensor:
        """The next noise, `[len(ids), *shape]` float32."""
        return torch.stack([normal(generator, self.shape) for generator in self.generators]).to(self.device)


def run_sampler(
    config: SamplerConfig,
    predict: Predict,
    schedule: NoiseSchedule,
    xt: Tensor,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Tensor:
    """Take x_T `[B, C, H, W]` to x_0 by `config.sampler` in `config.steps` evaluations."""
    timesteps = spaced_timesteps(schedule.steps, config.steps)
    with torch.inference_mode():
        return SAMPLERS[config.sampler](predict, xt, schedule, timesteps, noise, config, on_step)
