"""Paths between two noises, and the way from an image back to its noise."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.sampling.predictor import Predict
from ddpm.sampling.samplers import OnStep

NoisePath = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(a `[C, H, W]`, b, weights w `[F]` in [0, 1]) to `[F, C, H, W]`, from a at w = 0 to b at w = 1."""


def lerp(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """The straight line, as in the report, `[F, C, H, W]`; its middle has half the variance of noise."""
    w = w.view(-1, 1, 1, 1)
    return (1 - w) * a + w * b


def lerp_vp(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """The straight line scaled so that between independent noises it keeps their variance, `[F, C, H, W]`."""
    return lerp(a, b, w) / ((1 - w).square() + w.square()).sqrt().view(-1, 1, 1, 1)


def slerp(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """The great circle (Shoemake 1985), `[F, C, H, W]`: it keeps the norm of noise. For parallel a and b the line."""
    # On the CPU, because not every device has float64.
    one, other, w64 = (tensor.cpu().double() for tensor in (a, b, w.view(-1, 1, 1, 1)))
    cosine = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
    angle = torch.arccos(cosine.clamp(-1, 1))
    if torch.sin(angle) < 1e-6:
        return lerp(a, b, w)
    path = (torch.sin((1 - w64) * angle) * one + torch.sin(w64 * angle) * other) / torch.sin(angle)
    return path.to(a)


PATHS: dict[str, NoisePath] = {"lerp": lerp, "lerp_vp": lerp_vp, "slerp": slerp}


def invert(
    predict: Predict,
    x0: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    iterations: int,
    on_step: OnStep | None = None,
) -> Tensor:
    """The x_T from which `samplers.ddim` with eta = 0 comes to `x0` `[B, C, H, W]` at the same falling `timesteps`.

    A step of DDIM from t to s is x_s = (x_t - k eps(x_t, t)) / c. Its inverse x_t = c x_s + k eps(x_t, t) has x_t on
    both sides, and is iterated from x_t = x_s (Pan et al. 2023, arXiv:2309.04907). One iteration is DDIM inversion as
    it is commonly done; more come nearer to the exact inverse. `predict` must not clip, or there is none.
    """
    x = x0
    with torch.inference_mode():
        for s, t in pairwise([-1, *reversed(timesteps)]):
            bar_s, bar_t = schedule.at(s), schedule.at(t)
            c = (bar_t / bar_s) ** 0.5
            known, k = c * x, (1 - bar_t) ** 0.5 - c * (1 - bar_s) ** 0.5
            for _ in range(iterations):
                estimate = predict(x, t)
                x = known + k * schedule.noise_of(x, estimate, t)
                if on_step:
                    on_step(t, x, estimate)
    return x
