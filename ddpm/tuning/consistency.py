"""The loss of a consistency function: a network f whose estimate of x_0 is the same all along a path to noise.

Training compares f(x_t, t) with f(x_s, s), the estimate one stop further down the same path. At the end of the path
stands the image itself, so what holds there spreads upwards, stop by stop, until one evaluation at T - 1 gives an image
(Song et al. 2023, arXiv:2303.01469). On N stops the best f for Gaussian data of mean 0 is linear, f = a_t x, with

    a_t = a_s (sqrt(alpha_bar_t alpha_bar_s) std^2 + sqrt((1 - alpha_bar_t) (1 - alpha_bar_s)))
              / (alpha_bar_t std^2 + 1 - alpha_bar_t)

where x_s has the noise of x_t. Then few stops give too little contrast: for data with a std of 0.5 the images have 0.43
with 16 stops that are equal in log SNR, and 0.495 with 256. Where a teacher's steps lead from x_t to x_s, the best f is
what that teacher draws, begun anew at each stop, image for image.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule

Estimate = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(x_t `[B, C, H, W]`, t `[B]`, label `[B]`) to an estimate of x_0 of the shape of x_t; a `Denoiser` is one."""

SOFTNESS = 0.00054
"""Where the loss turns from the square of a small error into the error (Song & Dhariwal 2023, arXiv:2310.14189)."""


def step_down(schedule: NoiseSchedule, x0: Tensor, eps: Tensor, s: Tensor) -> Tensor:
    """x_s `[B, C, H, W]` of that image and that noise at s `[B]`; at s = -1 the image itself."""
    signal, noise = schedule.signal_noise(s.clamp(min=0))
    return torch.where(_clean(s), x0, signal * x0 + noise * eps)


def teachers_end(schedule: NoiseSchedule, teacher: Estimate, xt: Tensor, times: Tensor, label: Tensor | None) -> Tensor:
    """Where K steps of `teacher` lead: from x_t at the first of the falling `times` `[K + 1, B]` to x at the last.

    The steps are those of DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095): DDIM, with the estimate of x_0
    extrapolated to the middle of the step from the second one on, but for a step to -1, the image itself.
    """
    log_snr = [schedule.snr(each.clamp(min=0)).log().view(-1, 1, 1, 1) for each in times]
    before = None
    for index, (t, s) in enumerate(itertools.pairwise(times)):
        signal, noise = schedule.signal_noise(t)
        x0 = teacher(xt, t, label)
        middle = x0
        if before is not None:
            reach = (log_snr[index + 1] - log_snr[index]) / (log_snr[index] - log_snr[index - 1]) / 2
            middle = torch.where(_clean(s), x0, x0 + reach * (x0 - before))
        xt = step_down(schedule, middle, (xt - signal * middle) / noise, s)
        before = x0
    return xt


def target_estimate(target: Estimate, xs: Tensor, s: Tensor, label: Tensor | None) -> Tensor:
    """The target of f(x_t, t), `[B, C, H, W]`, without gradient: `target` at x_s, or x_s where it is an image."""
    with torch.no_grad():
        return torch.where(_clean(s), xs, target(xs, s.clamp(min=0), label))


def error(one: Tensor, other: Tensor) -> Tensor:
    """How far two estimates are from each other, `[B]`: the root of their mean squared difference, smooth at 0."""
    squares = (one - other).square().mean(dim=(1, 2, 3))
    return (squares + SOFTNESS**2).sqrt() - SOFTNESS


def noise_step(schedule: NoiseSchedule, t: Tensor, s: Tensor) -> Tensor:
    """By how much sigma = sqrt(1 - alpha_bar) / sqrt(alpha_bar) falls from t to s, `[B]`; at s = -1 it is 0."""
    (signal_t, noise_t), (signal_s, noise_s) = schedule.signal_noise(t), schedule.signal_noise(s.clamp(min=0))
    return (noise_t / signal_t - torch.where(_clean(s), 0.0, noise_s / signal_s)).flatten()


def _clean(s: Tensor) -> Tensor:
    return (s < 0).view(-1, 1, 1, 1)
