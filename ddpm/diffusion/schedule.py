"""Noise schedule: the float64 tables that everything else gathers from.

alpha_t = 1 - beta_t, alpha_bar_t is the product of alpha up to t, and beta_t rises linearly or along a cosine.
"""

import math
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT

COSINE_OFFSET = 0.008
LARGEST_BETA = 0.999
"""Of the cosine schedule, as Nichol & Dhariwal chose them."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DiffusionConfig:
    """The forward process: `steps` (T) steps whose variances grow by the `schedule`.

    `linear` (Ho et al.) runs from `beta_start` to `beta_end` at T = 1000; `cosine` (Nichol & Dhariwal 2021,
    arXiv:2102.09672, equation 17) takes no notice of the two.
    """

    steps: int
    schedule: Literal["linear", "cosine"]
    beta_start: float
    beta_end: float

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")
        if self.schedule == "linear" and not 0 < self._scaled(self.beta_start) <= self._scaled(self.beta_end) < 1:
            raise ValueError("0 < beta_start <= beta_end < 1 must hold after scaling by 1000 / steps")

    def _scaled(self, beta: float) -> float:
        """Fewer steps must each add more noise, or x_T isn't noise (alpha_bar_T is 0.6 at T = 50 unscaled)."""
        return beta * 1000 / self.steps

    def betas(self) -> Tensor:
        """`[T]` float64; `linear` is Ho et al.'s."""
        if self.schedule == "cosine":
            progress = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
            alpha_bar = ((progress + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2).cos().square()
            return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=LARGEST_BETA)
        ends = self._scaled(self.beta_start), self._scaled(self.beta_end)
        return torch.linspace(*ends, self.steps, dtype=torch.float64)


class NoiseSchedule:
    """Tables of a `DiffusionConfig`, float64 on the CPU, indexed by the 0-based t.

    `log_snr_shift` is added to the logarithm of the signal-to-noise ratio at every t (Hoogeboom et al. 2023,
    arXiv:2301.11093). The mean of k x k pixels has k^2 times their ratio, so that with 2 ln(48 / size) the means of an
    image of `size` px are as noisy at t as the pixels of one of 48 px.
    """

    def __init__(self, config: DiffusionConfig, log_snr_shift: float = 0.0):
        self.steps, self.log_snr_shift = config.steps, log_snr_shift
        self.beta = config.betas()  # [T]
        self.alpha_bar = torch.cumprod(1 - self.beta, dim=0)  # [T]
        if log_snr_shift:
            self.alpha_bar = torch.sigmoid(torch.logit(self.alpha_bar) + log_snr_shift)
            self.beta = 1 - self.alpha_bar / torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])
        self._rounded = torch.stack([self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt()]).float()  # [2, T]
        self._on_device: dict[torch.device, Tensor] = {}

    def at(self, t: int) -> float:
        """alpha_bar_t; 1 for t = -1, the clean image."""
        return float(self.alpha_bar[t]) if t >= 0 else 1.0

    def half_log_snr(self, t: int) -> float:
        """lambda_t = log(sqrt(alpha_bar_t) / sqrt(1 - alpha_bar_t)), falling in t; infinite for t = -1."""
        signal = self.at(t)
        return math.log(signal / (1 - signal)) / 2 if signal < 1 else math.inf

    def signal_noise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t) as float32 `[B, 1, 1, 1]` on the device of `t` `[B]`."""
        # One copy a device: to look up on the CPU would make it wait for the device at every step.
        if t.device not in self._on_device:
            self._on_device[t.device] = self._rounded.to(t.device)
        signal, noise = self._on_device[t.device][:, t].view(2, -1, 1, 1, 1)
        return signal, noise

    def noise_of(self, xt: Tensor, x0: Tensor, t: int) -> Tensor:
        """The eps in x_t `[B, C, H, W]` if its image is `x0`, of the same shape: equation (2), solved for eps."""
        return (xt - math.sqrt(self.at(t)) * x0) / math.sqrt(1 - self.at(t))

    def snr(self, t: Tensor) -> Tensor:
        """alpha_bar_t / (1 - alpha_bar_t), the signal-to-noise ratio, `[B]`."""
        signal, noise = self.signal_noise(t)
        return (signal / noise).square().flatten()
