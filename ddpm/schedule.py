"""Noise schedule: the float64 tables that everything else gathers from.

The report's equations (3) and (4): alpha_t = 1 - beta_t, alpha_bar_t = prod_{s<=t} alpha_s, and beta_t linear in t.
"""

from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT, ConfigError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DiffusionConfig:
    """The forward process: `steps` (T) steps whose variances run from `beta_start` to `beta_end` at T = 1000."""

    steps: int
    schedule: Literal["linear"]
    beta_start: float
    beta_end: float

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")
        if not 0 < self._scaled(self.beta_start) <= self._scaled(self.beta_end) < 1:
            raise ValueError("0 < beta_start <= beta_end < 1 must hold after scaling by 1000 / steps")

    def _scaled(self, beta: float) -> float:
        """Fewer steps must each add more noise, or x_T isn't noise (alpha_bar_T is 0.6 at T = 50 unscaled)."""
        return beta * 1000 / self.steps

    def betas(self) -> Tensor:
        """The report's equation (4): `[T]` float64, linear."""
        ends = self._scaled(self.beta_start), self._scaled(self.beta_end)
        return torch.linspace(*ends, self.steps, dtype=torch.float64)


class NoiseSchedule:
    """Tables of a `DiffusionConfig`, float64 on the CPU, indexed by the 0-based t."""

    def __init__(self, config: DiffusionConfig):
        self.steps = config.steps
        self.beta = config.betas()  # [T]
        self.alpha_bar = torch.cumprod(1 - self.beta, dim=0)  # [T], equation (3)

    def at(self, t: int) -> float:
        """alpha_bar_t; 1 for t = -1, the clean image."""
        return float(self.alpha_bar[t]) if t >= 0 else 1.0

    def signal_noise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t) as float32 `[B, 1, 1, 1]` on the device of `t` `[B]`."""
        alpha_bar = self.alpha_bar[t.cpu()].view(-1, 1, 1, 1)
        return alpha_bar.sqrt().float().to(t.device), (1 - alpha_bar).sqrt().float().to(t.device)


def spaced_timesteps(total: int, steps: int) -> list[int]:
    """`steps` of the `total` time steps, falling, evenly spaced and always starting at T - 1 ("trailing").

    Raises:
        ConfigError: more steps than there are.
    """
    if not 1 <= steps <= total:
        raise ConfigError(f"steps = {steps}: must be from 1 to the schedule's {total}")
    return [round(total * (steps - i) / steps) - 1 for i in range(steps)]
