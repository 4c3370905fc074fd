"""Which of the T time steps a sampler stops at: always from T - 1, where x_T is noise, down to the clean image.

A stride that starts lower ("leading" and "linspace" as other programs have them) gives the network noise and calls it
something else (Lin et al. 2024, arXiv:2305.08891, section 3.3).
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from ddpm.config import ConfigError
from ddpm.diffusion.schedule import NoiseSchedule

MOST_NOISE = 160
"""In units of the image's amplitude; of `logsnr_trailing`."""

Spacing = Literal["trailing", "leading", "linspace", "logsnr", "logsnr_trailing"]


def trailing(schedule: NoiseSchedule, steps: int) -> np.ndarray:
    """Equal strides down from T, `[steps]`; the last ends at the clean image."""
    return schedule.steps * np.arange(steps, 0, -1) / steps - 1


def leading(schedule: NoiseSchedule, steps: int) -> np.ndarray:
    """Equal strides up from 0, `[steps]`, falling; `spaced_timesteps` puts the highest at T - 1."""
    return (schedule.steps // steps) * np.arange(steps - 1, -1, -1)


def linspace(schedule: NoiseSchedule, steps: int) -> np.ndarray:
    """Equal strides from T - 1 to 0, both included, `[steps]`."""
    return np.linspace(schedule.steps - 1, 0, steps)


def logsnr(schedule: NoiseSchedule, steps: int, highest_ratio: float = math.inf) -> np.ndarray:
    """Equal strides of log SNR from T - 1 to 0 (Lu et al. 2022, arXiv:2206.00927, section 3.3): dense at the end.

    They begin where the noise-to-signal ratio is `highest_ratio`, if T - 1 has more.
    """
    known = np.array([schedule.half_log_snr(t) for t in range(schedule.steps)])
    wanted = np.linspace(max(known[-1], -math.log(highest_ratio)), known[0], steps)
    return np.interp(-wanted, -known, np.arange(schedule.steps))


def logsnr_trailing(schedule: NoiseSchedule, steps: int) -> np.ndarray:
    """The same without 0, where the last stride ends, `[steps]`; `spaced_timesteps` puts the highest at T - 1.

    The strides begin where the noise is 160 times the image, just above T - 1 of the linear schedule: the cosine
    schedule goes on to 20,000 times, in steps of t too large for equal strides.
    """
    return logsnr(schedule, steps + 1, MOST_NOISE)[:-1]


SPACINGS: dict[Spacing, Callable[[NoiseSchedule, int], np.ndarray]] = {
    "trailing": trailing,
    "leading": leading,
    "linspace": linspace,
    "logsnr": logsnr,
    "logsnr_trailing": logsnr_trailing,
}


def spaced_timesteps(schedule: NoiseSchedule, steps: int, spacing: Spacing) -> list[int]:
    """`steps` different time steps, falling, the first of them T - 1.

    Raises:
        ConfigError: more steps than there are.
    """
    if not 1 <= steps <= schedule.steps:
        raise ConfigError(f"steps = {steps}: a sampler takes from 1 to diffusion.steps = {schedule.steps}")
    wanted = np.round(SPACINGS[spacing](schedule, steps)).astype(int)
    wanted[0] = schedule.steps - 1
    # Where two were rounded to one, the earlier moves up if it must leave room, then the later moves down.
    timesteps = np.maximum(wanted, np.arange(steps - 1, -1, -1)).tolist()
    for i in range(1, steps):
        timesteps[i] = min(timesteps[i], timesteps[i - 1] - 1)
    return timesteps
