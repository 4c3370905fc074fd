"""From noise to images: flat functions of one signature. To add one, write it here and name it in `SAMPLERS`."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import Literal, Protocol

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT
from ddpm.devices.transfer import ahead, sent
from ddpm.diffusion.process import posterior
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.rng import normal, numpy_stream
from ddpm.sampling.multistep import PastEstimate, dpmpp_step, unipc_step
from ddpm.sampling.predictor import Predict
from ddpm.sampling.timesteps import Spacing, spaced_timesteps

SamplerName = Literal[
    "ancestral", "ddim", "dpmpp_2m", "dpmpp_3m", "dpmpp_3m_compat", "dpmpp_2m_sde", "dpmpp_3m_sde",
    "dpmpp_3m_sde_compat", "unipc", "heun", "consistency",
]  # fmt: skip

Variance = Literal["small", "large"]

OnStep = Callable[[int, Tensor, Tensor], None]
"""Called after each evaluation with (t, x_t, the estimate of x_0)."""

Noise = Callable[[], Tensor]
"""Fresh standard normal noise of the shape of the batch."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SamplerConfig:
    """How a sampler walks: in `steps` steps, spaced by `spacing`; `variance` is for `ancestral`, `eta` for `ddim`."""

    sampler: SamplerName
    steps: int
    spacing: Spacing = "trailing"
    variance: Variance = "small"
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")
        if not 0 <= self.eta <= 1:
            raise ValueError("eta must be from 0 (deterministic) to 1 (ancestral)")

    @property
    def evaluations(self) -> int:
        """How often the network is asked for each image, not counting what guidance asks."""
        return 2 * self.steps - 1 if self.sampler == "heun" else self.steps

    @property
    def deterministic(self) -> bool:
        """Whether x_T alone decides the image."""
        flow = ("dpmpp_2m", "dpmpp_3m", "dpmpp_3m_compat", "unipc", "heun")
        noiseless = (self.sampler, self.eta) == ("ddim", 0) or (self.sampler, self.steps) == ("consistency", 1)
        return self.sampler in flow or noiseless


class Sampler(Protocol):
    """The signature of all samplers: from `xt` `[B, C, H, W]`, x at `timesteps[0]`, to x_0 of the same shape.

    `timesteps` fall. `predict` gives the estimate of x_0, `noise` standard normal noise of the shape of `xt`. `on_step`
    is called after each evaluation.
    """

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
    """Ho et al. algorithm 2: from noise down to x_0, one draw from the posterior a step, with the mean (13).

    sigma_t^2 is the posterior's (`small`) or the step's own beta (`large`). The last step adds no noise.
    """
    for t, s in zip(timesteps, [*timesteps[1:], -1], strict=True):
        x0 = predict(xt, t)
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
        x0 = predict(xt, t)
        if on_step:
            on_step(t, xt, x0)
        eps = schedule.noise_of(xt, x0, t)
        bar_t, bar_s = schedule.at(t), schedule.at(s)
        sigma = config.eta * ((1 - bar_s) / (1 - bar_t) * (1 - bar_t / bar_s)) ** 0.5  # Song et al. equation 16
        xt = bar_s**0.5 * x0 + (1 - bar_s - sigma**2) ** 0.5 * eps
        if sigma > 0:
            xt = xt + sigma * noise()
    return xt


def heun(
    predict: Predict,
    xt: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    noise: Noise,
    config: SamplerConfig,
    on_step: OnStep | None = None,
) -> Tensor:
    """Heun's method in x / sqrt(alpha_bar) and sigma = sqrt(1 / alpha_bar - 1), whose slope is eps.

    Karras et al. 2022 (arXiv:2206.00364) algorithm 1: two evaluations a step, one in the last.
    """
    for t, s in zip(timesteps, [*timesteps[1:], -1], strict=True):
        signal_t, signal_s = schedule.at(t) ** 0.5, schedule.at(s) ** 0.5
        step = (1 / schedule.at(s) - 1) ** 0.5 - (1 / schedule.at(t) - 1) ** 0.5
        x0 = predict(xt, t)
        if on_step:
            on_step(t, xt, x0)
        eps = schedule.noise_of(xt, x0, t)
        euler = signal_s * (xt / signal_t + step * eps)
        if s < 0:
            return euler
        x0 = predict(euler, s)
        if on_step:
            on_step(s, euler, x0)
        eps_s = schedule.noise_of(euler, x0, s)
        xt = signal_s * (xt / signal_t + step * (eps + eps_s) / 2)
    return xt


def dpmpp(
    predict: Predict,
    xt: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    noise: Noise,
    config: SamplerConfig,
    on_step: OnStep | None = None,
    *,
    order: int,
    stochastic: bool,
    curvature: float = 1.0,
) -> Tensor:
    """DPM-Solver++, "multistep", of the probability flow or, `stochastic`, of the reverse process; see `dpmpp_step`.

    The order grows with the estimates there are, and falls to 1 in the last step, which ends where lambda is infinite.
    """
    estimates: list[PastEstimate] = []
    for left, t, s in zip(range(len(timesteps), 0, -1), timesteps, [*timesteps[1:], -1], strict=True):
        x0 = predict(xt, t)
        if on_step:
            on_step(t, xt, x0)
        estimates = [(schedule.half_log_snr(t), x0), *estimates][: min(order, left)]
        xt, sigma = dpmpp_step(schedule, xt, estimates, t, s, stochastic=stochastic, curvature=curvature)
        if sigma > 0:
            xt = xt + sigma * noise()
    return xt


def unipc(
    predict: Predict,
    xt: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    noise: Noise,
    config: SamplerConfig,
    on_step: OnStep | None = None,
    *,
    order: int = 3,
) -> Tensor:
    """UniPC-3: what was predicted for t is corrected by the estimate there, which costs no evaluation of its own."""
    estimates: list[PastEstimate] = []
    before, x_before = timesteps[0], xt
    for left, t, s in zip(range(len(timesteps), 0, -1), timesteps, [*timesteps[1:], -1], strict=True):
        x0 = predict(xt, t)
        if on_step:
            on_step(t, xt, x0)
        if estimates:
            xt = unipc_step(schedule, x_before, estimates, before, t, x0)
        estimates = [(schedule.half_log_snr(t), x0), *estimates][: min(order, left)]
        before, x_before = t, xt
        xt = unipc_step(schedule, xt, estimates, t, s)
    return xt


def consistency(
    predict: Predict,
    xt: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    noise: Noise,
    config: SamplerConfig,
    on_step: OnStep | None = None,
) -> Tensor:
    """Song et al. 2023 (arXiv:2303.01469) algorithm 1, for weights that were tuned: x_0 at once.

    Each further step gives that image fresh noise, less than before, and estimates x_0 again.
    """
    for t, s in zip(timesteps, [*timesteps[1:], -1], strict=True):
        x0 = predict(xt, t)
        if on_step:
            on_step(t, xt, x0)
        if s >= 0:
            xt = schedule.at(s) ** 0.5 * x0 + (1 - schedule.at(s)) ** 0.5 * noise()
    return x0


SAMPLERS: dict[SamplerName, Sampler] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "dpmpp_2m": partial(dpmpp, order=2, stochastic=False),
    "dpmpp_3m": partial(dpmpp, order=3, stochastic=False),
    "dpmpp_3m_compat": partial(dpmpp, order=3, stochastic=False, curvature=0.5),
    "dpmpp_2m_sde": partial(dpmpp, order=2, stochastic=True),
    "dpmpp_3m_sde": partial(dpmpp, order=3, stochastic=True),
    "dpmpp_3m_sde_compat": partial(dpmpp, order=3, stochastic=True, curvature=0.5),
    "unipc": unipc,
    "heun": heun,
    "consistency": consistency,
}


class ImageNoise:
    """Noise of which image i depends on (seed, purpose, i) and how often it was asked for, not on its batch."""

    def __init__(self, seed: int, purpose: str, ids: Sequence[int], shape: tuple[int, int, int], device: torch.device):
        generators = [numpy_stream(seed, purpose, i) for i in ids]

        def drawn() -> tuple[Tensor]:
            return (sent(torch.stack([normal(generator, shape) for generator in generators]), device),)

        self._coming = ahead(repeat(drawn), device)

    def __call__(self) -> Tensor:
        """The next noise, `[len(ids), *shape]` float32; for CUDA the one after it is drawn meanwhile."""
        return next(self._coming)[0]


def timesteps_of(config: SamplerConfig, schedule: NoiseSchedule, stops: Sequence[int] = ()) -> list[int]:
    """The falling time steps that a sampler stops at: every so many-th of the `stops` of tuned weights, if they are."""
    if stops:
        return list(stops[:: len(stops) // config.steps])
    return spaced_timesteps(schedule, config.steps, config.spacing)


def run_sampler(
    config: SamplerConfig,
    predict: Predict,
    schedule: NoiseSchedule,
    xt: Tensor,
    noise: Noise,
    on_step: OnStep | None = None,
    start: int | None = None,
    stops: Sequence[int] = (),
) -> Tensor:
    """Take x_T `[B, C, H, W]` to x_0 by `config.sampler` in `config.steps` steps; with `start`, from x at that t.

    From `start` those steps are taken that lie below it, and one there. `stops` are the times that tuned weights know,
    as many as the steps or a multiple.
    """
    timesteps = timesteps_of(config, schedule, stops)
    if start is not None:
        timesteps = [start, *(t for t in timesteps if t < start)]
    with torch.inference_mode():
        return SAMPLERS[config.sampler](predict, xt, schedule, timesteps, noise, config, on_step)
