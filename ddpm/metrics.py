"""How a set of samples compares with a set of images, from features and from pixels.

Every value comes with the number of samples it rests on, and with a 95 % interval where one can be had. There is no
Frechet distance here: its covariance has as many rows as the features have dimensions (256 and more), and 64 samples
leave it singular, so that the value says more about n than about the samples. KID is unbiased at any n.

The features aren't Inception's; a metric's name has to say whose they are (`kid_alexnet`).
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch_fidelity.metric_kid import kernel_poly
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

Z95 = 1.959964
"""97.5 % quantile of the standard normal law."""

CHANNELS = ("red", "green", "blue")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value, its 95 % interval from `low` to `high`, and `n`, the number of images it was taken from."""

    value: float
    low: float
    high: float
    n: int


def kid(samples: Tensor, reference: Tensor) -> Estimate:
    """Kernel distance (Binkowski et al. 2018, arXiv:1801.01401): the unbiased squared MMD, over all pairs.

    The kernel is torch-fidelity's, (x . y / D + 1)^3. Where it draws subsets of one size, all rows are used once here;
    the sets may differ in size. Values below 0 are valid, and mean that no difference shows.

    Args:
        samples: features `[M, D]`, M >= 3.
        reference: features `[N, D]`, N >= 3.

    Returns:
        The squared MMD with the interval of a two-sample delete-one jackknife.
    """
    x, y = samples.cpu().double().numpy(), reference.cpu().double().numpy()
    m, n = len(x), len(y)
    within_x, within_y, across = kernel_poly(x, x), kernel_poly(y, y), kernel_poly(x, y)
    np.fill_diagonal(within_x, 0)
    np.fill_diagonal(within_y, 0)
    mean_x, mean_y = within_x.sum() / (m * (m - 1)), within_y.sum() / (n * (n - 1))
    value = mean_x + mean_y - 2 * across.mean()
    without_x = (within_x.sum() - 2 * within_x.sum(1)) / ((m - 1) * (m - 2)) + mean_y
    without_x -= 2 * (across.sum() - across.sum(1)) / ((m - 1) * n)
    without_y = (within_y.sum() - 2 * within_y.sum(1)) / ((n - 1) * (n - 2)) + mean_x
    without_y -= 2 * (across.sum() - across.sum(0)) / (m * (n - 1))
    return _jackknife(float(value), without_x, without_y)


def mean_pairwise(distances: Tensor) -> Estimate:
    """Mean over all pairs of one set of N >= 3 images, from their distances `[N, N]`: with LPIPS, the set's diversity.

    Returns:
        The mean with the interval of a delete-one jackknife over images, not pairs, which aren't independent.
    """
    d = distances.cpu().double().numpy().copy()
    np.fill_diagonal(d, 0)
    n = len(d)
    value = d.sum() / (n * (n - 1))
    return _jackknife(float(value), (d.sum() - 2 * d.sum(1)) / ((n - 1) * (n - 2)))


def _jackknife(value: float, *without: np.ndarray) -> Estimate:
    """`value` with the interval that the values without one image of each set give; `n` is the first set's."""
    variance = sum((len(w) - 1) / len(w) * np.square(w - w.mean()).sum() for w in without)
    half = Z95 * float(np.sqrt(variance))
    return Estimate(value=value, low=value - half, high=value + half, n=len(without[0]))


def precision_recall(samples: Tensor, reference: Tensor, neighbourhood: int) -> tuple[Estimate, Estimate]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991) by torch-fidelity.

    Precision is the share of the samples that lie within a ball of the reference, recall the share of the reference
    within a ball of the samples; a ball reaches from an image to its `neighbourhood`-th neighbour in its own set. Both
    depend on the sizes of the sets: compare with real images in the same number.

    Args:
        samples: features `[M, D]`, M > `neighbourhood`.
        reference: features `[N, D]`, N > `neighbourhood`.
        neighbourhood: the paper's k.

    Returns:
        Precision and recall with Wilson's intervals, which take the balls as given.
    """
    # In float64, because cdist's matrix product leaves a float32 image at a distance from itself.
    found = prc_features_to_metric(
        samples.cpu().double(), reference.cpu().double(), prc_neighborhood=neighbourhood, verbose=False
    )
    return _share(found[KEY_METRIC_PRECISION], len(samples)), _share(found[KEY_METRIC_RECALL], len(reference))


def _share(value: float, n: int) -> Estimate:
    """A share of `n` with Wilson's interval."""
    centre = (value + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * np.sqrt(value * (1 - value) / n + Z95**2 / (4 * n**2))
    # At 0 and at 1 one end is the share itself, which rounding may miss to either side.
    low, high = min(value, max(0.0, float(centre - half))), max(value, min(1.0, float(centre + half)))
    return Estimate(value=value, low=low, high=high, n=n)


def colour_drift(samples: np.ndarray, reference: np.ndarray) -> dict[str, dict[str, float]]:
    """Colours of the samples less those of the reference, both uint8 `[N, H, W, 3]`.

    Returns:
        By channel: `mean` and `std` over all pixels in levels of 0 to 255, and `saturated`, the share of the values at
        0 or 255.
    """
    ours, theirs = _colours(samples), _colours(reference)
    return {name: dict(zip(CHANNELS, (ours[name] - theirs[name]).tolist(), strict=True)) for name in ours}


def _colours(images: np.ndarray) -> dict[str, np.ndarray]:
    """Per channel `[3]`, from sums over the 256 levels: exact, and without a copy of the images in float."""
    levels = np.arange(256)
    counts = np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)])
    total = counts.sum(1)
    mean = counts @ levels / total
    std = np.sqrt(counts @ levels**2 / total - mean**2)
    return {"mean": mean, "std": std, "saturated": (counts[:, 0] + counts[:, 255]) / total}
