"""The variational bound on real images: how many bits an image costs, and at which noise they arise.

    -log p(x_0) <= L_T + sum over t > 0 of L_t + L_0                    (Ho et al. 2020 equation 5, with our 0-based t)

    L_T = KL(q(x_{T-1} | x_0) || N(0, I))                               no network has a part in it
    L_t = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))                 two normal laws
    L_0 = -log p(x_0 | x_t at t = 0)                                    the decoder of Ho et al. section 3.3

p is ancestral sampling in all T steps, whatever sampler and steps the images are drawn with.
"""

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm.config import ConfigError
from ddpm.diffusion.process import q_sample
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.sampling.samplers import Noise, Variance

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_t `[B, C, H, W]`, t `[B]`) to an estimate of x_0, of the same shape."""


class Terms(NamedTuple):
    """Of each evaluated image, float64 `[B]`: mean squared errors of eps and of x_0, and L_t in nats."""

    eps_error: Tensor
    x0_error: Tensor
    nats: Tensor


class VariationalBound:
    """The bound for a `schedule` and the `variance` that the reverse process has.

    Raises:
        ConfigError: there is one step, so that no term L_t lies between L_T and L_0.
    """

    def __init__(self, schedule: NoiseSchedule, variance: Variance):
        if schedule.steps < 2:
            raise ConfigError(f"diffusion.steps = {schedule.steps}: the variational bound needs at least 2")
        bar, beta = schedule.alpha_bar, schedule.beta
        before = torch.cat([bar.new_ones(1), bar[:-1]])
        posterior = (1 - before) / (1 - bar) * beta  # Ho et al. equation 7
        sigma2 = beta.clone() if variance == "large" else posterior.clone()
        sigma2[0] = posterior[1]  # as in Ho et al.'s code, for both: the posterior's own is 0, and beta_0 costs bits
        ratio = posterior / sigma2
        self.schedule = schedule
        self.decoder_std = float(sigma2[0].sqrt())
        # L_t = offset for each value + factor * |x_0 - x0_hat|^2, by the report's (11); L_0 is none of these.
        self.offset = (ratio - 1 - ratio.log()) / 2
        self.factor = before * (beta / (1 - bar)).square() / (2 * sigma2)

    def prior(self, x0: Tensor) -> Tensor:
        """L_T of each image in nats, float64 `[B]`."""
        signal2 = self.schedule.at(self.schedule.steps - 1)
        return ((signal2 * (x0.double().square() - 1) - math.log(1 - signal2)) / 2).sum((1, 2, 3))

    def terms(self, denoise: Denoise, x0: Tensor, t: Tensor, eps: Tensor) -> Terms:
        """Evaluate x_0 `[B, C, H, W]` at t `[B]` with noise `eps`."""
        estimate = denoise(q_sample(self.schedule, x0, t, eps), t)
        squared = (estimate - x0).double().square()
        steps = t.cpu()
        x0_error = squared.mean((1, 2, 3)).cpu()
        bar = self.schedule.alpha_bar[steps]
        nats = x0[0].numel() * (self.offset[steps] + self.factor[steps] * x0_error)
        first = t == 0
        nats[first.cpu()] = decoder_nats(x0[first], estimate[first], self.decoder_std).cpu()
        return Terms(x0_error * bar / (1 - bar), x0_error, nats)


def decoder_nats(x0: Tensor, mean: Tensor, std: float) -> Tensor:
    """-log of the probability that a normal law gives to each value's level of 256, summed over an image, `[B]`.

    Equation (13) of Ho et al.: the lowest and the highest level also take all that lies beyond them.

    Args:
        x0: one of 256 levels in [-1, 1] for each value, `[B, C, H, W]`.
        mean: of the law, of the same shape.
        std: of the law.
    """
    level, centre = x0.double(), mean.double()
    above = torch.where(level > 1 - 1 / 255, math.inf, (level + 1 / 255 - centre) / std)
    below = torch.where(level < -1 + 1 / 255, -math.inf, (level - 1 / 255 - centre) / std)
    # Where both ends are positive, their mirror images: a difference of two numbers near 1 would be rounded away.
    mirrored = below > 0
    low, high = torch.where(mirrored, -above, below), torch.where(mirrored, -below, above)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return -(log_high + torch.log1p(-(log_low - log_high).exp())).sum((1, 2, 3))


def noise_levels(schedule: NoiseSchedule, count: int) -> list[range]:
    """All t in runs: t = 0, then `count` runs of equal strides of log SNR, in which the terms of the bound are alike.

    Runs that would be empty are left out.
    """
    first, last = schedule.half_log_snr(0), schedule.half_log_snr(schedule.steps - 1)

    def level(t: int) -> int:
        return min(count - 1, int((first - schedule.half_log_snr(t)) / (first - last) * count))

    groups = [list(group) for _, group in groupby(range(1, schedule.steps), level)]
    return [range(1), *(range(group[0], group[-1] + 1) for group in groups)]


def measure(
    bound: VariationalBound,
    denoise: Denoise,
    x0: Tensor,
    levels: Sequence[range],
    draws: int,
    generators: Sequence[np.random.Generator],
    noise: Noise,
) -> Terms:
    """Evaluate each image `draws` times in each of `levels`, at random t: a stratified sample of all t.

    Args:
        bound: the bound.
        denoise: the network.
        x0: `[B, C, H, W]` in [-1, 1].
        levels: runs that together hold all t once.
        draws: evaluations of an image in each.
        generators: of the t, one for each image.
        noise: gives eps.

    Returns:
        Means over the draws, `[B, len(levels)]`. The nats are those of all steps of a level, so that their sum over
        levels plus `prior` is an unbiased estimate of the image's bound.
    """
    columns = []
    for level in levels:
        drawn = []
        for _ in range(draws):
            t = torch.tensor([int(generator.integers(level.start, level.stop)) for generator in generators])
            drawn.append(bound.terms(denoise, x0, t.to(x0.device), noise()))
        eps_error, x0_error, nats = (torch.stack(values).mean(0) for values in zip(*drawn, strict=True))
        columns.append(Terms(eps_error, x0_error, nats * len(level)))
    return Terms(*(torch.stack(values, dim=1) for values in zip(*columns, strict=True)))
