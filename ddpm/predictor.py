"""The one adapter between a network and the samplers: whatever the network predicts, they see (x_0, eps)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm.diffusion import Target, to_x0_eps
from ddpm.precision import autocast
from ddpm.schedule import NoiseSchedule

Predict = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""(x_t `[B, C, H, W]`, t) to estimates of x_0 and eps, float32 of the same shape."""

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(x_t `[B, C, H, W]`, t `[B]`, label `[B]`) to an output of the shape of x_t."""


def make_predictor(
    network: Network,
    schedule: NoiseSchedule,
    target: Target,
    *,
    clip: bool,
    precision: torch.dtype,
    label: Tensor | None = None,
) -> Predict:
    """Adapt `network`, trained for `target`.

    Args:
        network: the trained network.
        schedule: the schedule it was trained with.
        target: what its output means.
        clip: keep the estimate of x_0 in [-1, 1] and derive eps again from the clipped one; without it an imperfect
            network drifts out of range.
        precision: of the network's convolutions and matrix products; all else is float32.
        label: the class of each image of the batch, `[B]`, for a conditional network; none: no class.
    """

    def predict(xt: Tensor, t: int) -> tuple[Tensor, Tensor]:
        ts = torch.full((len(xt),), t, device=xt.device)
        with autocast(xt.device, precision):
            output = network(xt, ts, label)
        x0, eps = to_x0_eps(target, schedule, xt, ts, output.float())
        if clip:
            x0 = x0.clamp(-1, 1)
            signal, noise = schedule.signal_noise(ts)
            eps = (xt - signal * x0) / noise
        return x0, eps

    return predict
