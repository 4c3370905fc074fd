"""The one adapter between a network and the samplers: whatever the network predicts, they see (x_0, eps)."""

from collections.abc import Callable

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT
from ddpm.diffusion.process import Target, to_x0_eps
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.networks.precision import autocast

Predict = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""(x_t `[B, C, H, W]`, t) to estimates of x_0 and eps, float32 of the same shape."""

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(x_t `[B, C, H, W]`, t `[B]`, label `[B]`) to an output of the shape of x_t."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PredictorConfig:
    """What is done to the network's output before a sampler sees it.

    `clip` keeps the estimate of x_0 in [-1, 1], without which an imperfect network drifts out of range. `threshold`
    instead divides it by that quantile of its absolute values, image by image, where that exceeds 1 (Saharia et al.
    2022, arXiv:2205.11487, "dynamic thresholding"). `guidance` is the weight w of classifier-free guidance (Ho &
    Salimans 2022, arXiv:2207.12598) as most programs count it: 1 is the class alone, 0 no class.
    """

    clip: bool = True
    threshold: float | None = None
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError("threshold must be a quantile above 0, up to 1")
        if self.guidance < 0:
            raise ValueError("guidance must be at least 0")


def make_predictor(
    network: Network,
    schedule: NoiseSchedule,
    target: Target,
    config: PredictorConfig,
    *,
    precision: torch.dtype,
    label: Tensor | None = None,
) -> Predict:
    """Adapt `network`, trained for `target`.

    Args:
        network: the trained network.
        schedule: the schedule it was trained with.
        target: what its output means.
        config: what is done to it.
        precision: of the network's convolutions and matrix products; all else is float32.
        label: the class of each image of the batch, `[B]`, for a conditional network; none: no class. With
            `config.guidance` other than 1 the network is asked with it and without.
    """

    def asked(xt: Tensor, ts: Tensor) -> Tensor:
        with autocast(xt.device, precision):
            output = network(xt, ts, label).float()
            if label is None or config.guidance == 1:
                return output
            without = network(xt, ts, None).float()
        return without + config.guidance * (output - without)

    def predict(xt: Tensor, t: int) -> tuple[Tensor, Tensor]:
        ts = torch.full((len(xt),), t, device=xt.device)
        x0, eps = to_x0_eps(target, schedule, xt, ts, asked(xt, ts))
        if not config.clip and config.threshold is None:
            return x0, eps
        x0 = x0.clamp(-1, 1) if config.threshold is None else within_quantile(x0, config.threshold)
        signal, noise = schedule.signal_noise(ts)
        return x0, (xt - signal * x0) / noise  # eps that belongs to the new x_0

    return predict


def within_quantile(x0: Tensor, share: float) -> Tensor:
    """Each image clipped to the `share`-quantile of its absolute values, or to 1 if that is less, and scaled to 1."""
    limit = torch.quantile(x0.abs().flatten(1), share, dim=1).clamp(min=1).view(-1, 1, 1, 1)
    return x0.clamp(-limit, limit) / limit
