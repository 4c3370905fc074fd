"""Values with 95 % intervals: of means, of proportions, and of whatever leaving images out one by one tells."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit
from torch import Tensor

Z95 = 1.959964
"""97.5 % quantile of the standard normal law."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value, its 95 % interval from `low` to `high`, and `n`, the number of images it was taken from."""

    value: float
    low: float
    high: float
    n: int


def mean(values: Tensor) -> Estimate:
    """Mean of independent numbers `[N]`, N >= 2, with the interval of Student's law."""
    n = len(values)
    value, half = float(values.mean()), float(stdtrit(n - 1, 0.975)) * float(values.std()) / n**0.5
    return Estimate(value=value, low=value - half, high=value + half, n=n)


def proportion(value: float, n: int) -> Estimate:
    """A proportion of `n` with Wilson's interval."""
    centre = (value + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * np.sqrt(value * (1 - value) / n + Z95**2 / (4 * n**2))
    # At 0 and at 1 one end is the proportion itself, which rounding may miss to either side.
    low, high = min(value, max(0.0, float(centre - half))), max(value, min(1.0, float(centre + half)))
    return Estimate(value=value, low=low, high=high, n=n)


def mean_pairwise(sums: Tensor) -> Estimate:
    """Mean distance of all pairs of N >= 3 images, from the sum of each one's to the others `[N]`: LPIPS's diversity.

    Returns:
        The mean with the interval of a delete-one jackknife over images, not pairs, which aren't independent.
    """
    s = sums.cpu().double().numpy()
    n = len(s)
    return jackknife(float(s.sum() / (n * (n - 1))), (s.sum() - 2 * s) / ((n - 1) * (n - 2)))


def jackknife(value: float, *without: np.ndarray) -> Estimate:
    """`value` with the interval that the values without one image of each set give; `n` is the first set's."""
    half = Z95 * float(np.sqrt(jackknife_variance(*without)))
    return Estimate(value=value, low=value - half, high=value + half, n=len(without[0]))


def jackknife_variance(*without: np.ndarray) -> float:
    """The variance of a value, from the values without one image of each set, each `[n]`."""
    return sum((len(w) - 1) / len(w) * np.square(w - w.mean()).sum() for w in without)
