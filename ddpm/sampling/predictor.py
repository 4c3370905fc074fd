"""What a sampler asks at each step: the denoiser's estimate of x_0, guided and kept in range."""

import math
from collections.abc import Callable

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import NoiseSchedule

Predict = Callable[[Tensor, int], Tensor]
"""(x_t `[B, C, H, W]`, t) to an estimate of x_0, float32 of the same shape."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PredictorConfig:
    """What is done to the estimate of x_0 before a sampler sees it.

    `clip` keeps it in [-1, 1], without which an imperfect network drifts out of range. `threshold` instead divides it
    by that quantile of its absolute values, image by image, where that exceeds 1 (Saharia et al. 2022,
    arXiv:2205.11487, "dynamic thresholding"). `guidance` is the weight w of classifier-free guidance (Ho & Salimans
    2022, arXiv:2207.12598) as most programs count it: 1 is the class alone, 0 no class. Where another denoiser guides,
    it is the weight of autoguidance (Karras et al. 2024, arXiv:2406.02507). Guidance acts where the noise-to-signal
    ratio is above `guidance_low` and up to `guidance_high` (Kynkäänniemi et al. 2024, arXiv:2404.07724).
    """

    clip: bool = True
    threshold: float | None = None
    guidance: float = 1.0
    guidance_low: float = 0.0
    guidance_high: float = math.inf

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError("threshold must be a quantile above 0, up to 1")
        if self.guidance < 0:
            raise ValueError("guidance must be at least 0")
        if not 0 <= self.guidance_low < self.guidance_high:
            raise ValueError("guidance_low must be at least 0 and below guidance_high")

    def guides(self, schedule: NoiseSchedule) -> list[bool]:
        """Whether guidance changes the estimate, at each t."""
        if self.guidance == 1:
            return [False] * schedule.steps
        alpha_bar = schedule.alpha_bar.numpy()  # 1 / (1 + ratio^2)
        within = (alpha_bar < 1 / (1 + self.guidance_low**2)) & (alpha_bar >= 1 / (1 + self.guidance_high**2))
        guided: list[bool] = within.tolist()
        return guided


def make_predictor(
    denoiser: Denoiser, config: PredictorConfig, label: Tensor | None = None, guide: Denoiser | None = None
) -> Predict:
    """The estimates of `denoiser` as samplers see them, for the class `label` `[B]` of a conditional network.

    Where `config` guides, a step takes two evaluations. The second is that of `guide`, a weaker denoiser of the same
    images and schedule, with the label. Without a guide it is that of `denoiser` without the label.
    """
    second = guide or (denoiser if label is not None else None)
    guides = config.guides(denoiser.schedule)

    def predict(xt: Tensor, t: int) -> Tensor:
        times = torch.full((len(xt),), t, device=xt.device)
        x0 = denoiser(xt, times, label)
        if second and guides[t]:
            # The same as to mix the networks' outputs: x_0 is affine in them.
            weaker = second(xt, times, label if guide else None)
            x0 = weaker + config.guidance * (x0 - weaker)
        if config.threshold is not None:
            return within_quantile(x0, config.threshold)
        return x0.clamp(-1, 1) if config.clip else x0

    return predict


def within_quantile(x0: Tensor, quantile: float) -> Tensor:
    """Each image clipped to this quantile of its absolute values, or to 1 if that is less, and scaled to [-1, 1]."""
    limit = torch.quantile(x0.abs().flatten(1), quantile, dim=1).clamp(min=1).view(-1, 1, 1, 1)
    return x0.clamp(-limit, limit) / limit
