"""The denoiser: a network with the meaning of its output, as one call from (x_t, t, label) to x_0, and its loss.

What a network predicts, its *target*, is known here and nowhere else. To add one, write its entry in `TARGETS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ddpm.devices.precision import autocast
from ddpm.diffusion.process import q_sample, simple_loss
from ddpm.diffusion.schedule import NoiseSchedule

TargetName = Literal["eps", "v", "x0"]

WeightingName = Literal["simple", "min_snr", "snr_plus_one"]

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(x_t `[B, C, H, W]`, t `[B]`, label `[B]`) to an output of the shape of x_t."""


class Target(NamedTuple):
    """What a network puts out for x_t = signal * x_0 + noise * eps; signal and noise are `[B, 1, 1, 1]`.

    `wanted` maps (x_0, eps, signal, noise) to the output that training asks for. `x0` maps (x_t, output, signal, noise)
    to the estimate of x_0. `ratio` maps the signal-to-noise ratio `[B]` to the output's squared error over that of x_0.
    """

    wanted: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    x0: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    ratio: Callable[[Tensor], Tensor]


TARGETS: dict[TargetName, Target] = {
    "eps": Target(
        wanted=lambda x0, eps, signal, noise: eps,
        x0=lambda xt, output, signal, noise: (xt - noise * output) / signal,
        ratio=lambda snr: snr,
    ),
    "x0": Target(
        wanted=lambda x0, eps, signal, noise: x0,
        x0=lambda xt, output, signal, noise: output,
        ratio=torch.ones_like,
    ),
    "v": Target(  # Salimans & Ho 2022, section 4
        wanted=lambda x0, eps, signal, noise: signal * eps - noise * x0,
        x0=lambda xt, output, signal, noise: signal * xt - noise * output,
        ratio=lambda snr: snr + 1,
    ),
}

WEIGHTINGS: dict[WeightingName, Callable[[Tensor, Tensor], Tensor]] = {
    "simple": lambda snr, ratio: ratio,
    "min_snr": lambda snr, ratio: snr,
    "snr_plus_one": lambda snr, ratio: snr + 1,
}
"""The weight of the squared error of x_0 `[B]`, from the signal-to-noise ratio and the target's `ratio` `[B]`.

`simple` is the mean squared error of the target itself (Ho et al. section 3.4). The others are limited: min(SNR, 5)
(Hang et al. 2023, arXiv:2303.09556), whatever the target, and SNR + 1 (Salimans & Ho 2022, arXiv:2202.00512, section
4). Where the image is almost all noise, min(SNR, 5) counts next to nothing: light and colours, which are decided there,
are then learnt badly, unless a least weight keeps them. A weight of x_0 that stays is one of eps without limit: 1 /
SNR is 2.5e4 at the end of the linear schedule, 4e8 of the cosine. So `Recipe` refuses that.
"""


@dataclass(frozen=True)
class Denoiser:
    """A network that was or will be trained for `target` with the `weighting`, on the noise of `schedule`.

    `weighting_limits` are the least and the greatest weight of the squared error of x_0, but for `simple`. The network
    computes in the number format `precision`, all else in float32.
    """

    network: Network
    schedule: NoiseSchedule
    target: TargetName
    weighting: WeightingName = "simple"
    weighting_limits: tuple[float, float] = (0.0, 5.0)
    precision: torch.dtype = torch.float32

    def __call__(self, xt: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The estimate of x_0 for x_t `[B, C, H, W]` at t `[B]`, float32, of the class `label` `[B]`, or of none."""
        return TARGETS[self.target].x0(xt, self._output(xt, t, label), *self.schedule.signal_noise(t))

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, label: Tensor | None = None) -> Tensor:
        """Equation (14) of each image, weighted, `[B]`: x_0 and standard normal eps `[B, C, H, W]`, t `[B]`."""
        output = self._output(q_sample(self.schedule, x0, t, eps), t, label)
        wanted = TARGETS[self.target].wanted(x0, eps, *self.schedule.signal_noise(t))
        return self.loss_weight(t) * simple_loss(output, wanted)

    def loss_weight(self, t: Tensor) -> Tensor:
        """What the squared error of the network's output is multiplied with at t `[B]`, `[B]`.

        In training the probability of t is a second weight, see `timestep_law`.
        """
        snr = self.schedule.snr(t)
        ratio = TARGETS[self.target].ratio(snr)
        weight = WEIGHTINGS[self.weighting](snr, ratio)
        return (weight if self.weighting == "simple" else weight.clamp(*self.weighting_limits)) / ratio

    def _output(self, xt: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        with autocast(xt.device, self.precision):
            return self.network(xt, t, label).float()
