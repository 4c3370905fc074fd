"""One step of the solvers that remember: DPM-Solver++ and UniPC, from estimates of x_0 at earlier times.

Both write x as a function of lambda_t = log(sqrt(alpha_bar_t) / sqrt(1 - alpha_bar_t)), in which the process between t
and s has an exact solution but for an integral over x0_hat, and put a polynomial through the last estimates there.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule

PastEstimate = tuple[float, Tensor]
"""(lambda, x0_hat) at a time already passed. Sequences of them start with the latest, which is that at t."""


def dpmpp_step(
    schedule: NoiseSchedule,
    xt: Tensor,
    estimates: Sequence[PastEstimate],
    t: int,
    s: int,
    *,
    stochastic: bool,
    curvature: float = 1.0,
) -> tuple[Tensor, float]:
    """DPM-Solver++ of the order `len(estimates)`, 1 to 3 (Lu et al. 2022, arXiv:2211.01095).

    Orders 1 and 2 are their equations 8 and 13 ("2M"), and for `stochastic` those of appendix D. Order 1 is DDIM, with
    eta = 0 or, `stochastic`, eta = 1. Order 3 is the exact integral of the parabola through three estimates: in
    r = (lambda - lambda_t) / h the density over [0, 1] is d exp(d (r - 1)) / phi with d = h, or 2 h if `stochastic`,
    and phi = 1 - exp(-d), so that phi times the mean of r is 1 - phi / d and that of r^2 is 1 - 2 / d + 2 phi / d^2.

    `curvature` scales the weight of r^2. The code of Lu et al., diffusers and k-diffusion have 0.5, with which the
    order falls to 2 in the limit of many steps.

    Returns:
        The mean of x_s, `[B, C, H, W]`, and the standard deviation of the noise to add to it.
    """
    signal, sigma, sigma_t = schedule.at(s) ** 0.5, (1 - schedule.at(s)) ** 0.5, (1 - schedule.at(t)) ** 0.5
    h = schedule.half_log_snr(s) - estimates[0][0]
    renewed = h if stochastic else 0.0  # the old noise is multiplied by exp(-renewed), and new noise added
    decay = h + renewed
    phi = -math.expm1(-decay)
    mean = sigma / sigma_t * math.exp(-renewed) * xt + signal * phi * estimates[0][1]
    slopes = _differences(estimates, h)
    if len(slopes) == 1:
        mean = mean + signal * phi / 2 * slopes[0]
    if len(slopes) == 2:
        first = signal * (1 - phi / decay)
        second = signal * curvature * (1 - 2 * (decay - phi) / decay**2)
        mean = mean + first * slopes[0] + second * slopes[1]
    return mean, sigma * math.sqrt(-math.expm1(-2 * renewed))


def _differences(estimates: Sequence[PastEstimate], h: float) -> list[Tensor]:
    """Derivatives of x0_hat at the latest estimate, by lambda / `h`: none, the first, or the first and half the second.

    Newton's divided differences of one, two or three estimates.
    """
    if len(estimates) == 1:
        return []
    pairs = list(itertools.pairwise(estimates))
    steps = [(later[0] - earlier[0]) / h for later, earlier in pairs]
    slopes = [(later[1] - earlier[1]) / step for (later, earlier), step in zip(pairs, steps, strict=True)]
    if len(slopes) == 1:
        return slopes
    second = (slopes[0] - slopes[1]) / (steps[0] + steps[1])
    return [slopes[0] + steps[0] * second, second]


def unipc_step(
    schedule: NoiseSchedule, xt: Tensor, estimates: Sequence[PastEstimate], t: int, s: int, x0: Tensor | None = None
) -> Tensor:
    """UniPC of the order `len(estimates)` with B(h) = exp(h) - 1 (Zhao et al. 2023, arXiv:2302.04867).

    Args:
        schedule: that of the network.
        xt: `[B, C, H, W]` at t.
        estimates: the latest first.
        t: the time of x_t and of `estimates[0]`.
        s: the time to go to, s < t.
        x0: the estimate at s, if x_s is to be corrected (UniC); without it x_s is predicted (UniP).
    """
    signal, sigma, sigma_t = schedule.at(s) ** 0.5, (1 - schedule.at(s)) ** 0.5, (1 - schedule.at(t)) ** 0.5
    now, latest = estimates[0]
    h = schedule.half_log_snr(s) - now
    phi = -math.expm1(-h)
    mean = sigma / sigma_t * xt + signal * phi * latest
    places = [(earlier - now) / h for earlier, _ in estimates[1:]]
    slopes = [(estimate - latest) / place for (_, estimate), place in zip(estimates[1:], places, strict=True)]
    if x0 is not None:
        places, slopes = [*places, 1.0], [*slopes, x0 - latest]
    for weight, slope in zip(_weights(places, h), slopes, strict=True):
        mean = mean + signal * phi * weight * slope
    return mean


def _weights(places: Sequence[float], h: float) -> list[float]:
    """The weight of each slope (x0_hat at a place - the latest) / place, with which UniPC integrates x0_hat.

    Places are r = (lambda - lambda_t) / h, 0 at t and 1 at s. The exact step is the mean of x0_hat(r) over r in [0, 1]
    with the density exp(h r) / (its integral). Of r^k the slope at place p is p^(k - 1), so n weights w that solve
    sum_i w_i p_i^(k - 1) = mean of r^k, k = 1 ... n, are exact for polynomials of degree n. `moments` are these means.
    """
    if len(places) <= 1:
        return [0.5] * len(places)  # the paper's choice for one: exact in the limit of small h
    moments, moment = [], math.expm1(-h) / -h - 1
    for degree in range(1, len(places) + 1):
        moments.append(moment * math.factorial(degree) / math.expm1(-h))
        moment = moment / -h - 1 / math.factorial(degree + 1)
    return np.linalg.solve(np.vander(places, increasing=True).T, moments).tolist()
