"""How a set of samples compares with a set of images, from the features of both.

Every value comes with the number of samples it rests on and with a 95 % interval. Whose the features are, a metric's
name has to say (`kid_alexnet`): only Inception's may be called FID.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric
from torch_fidelity.metric_kid import kernel_poly
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from ddpm.evaluation.estimates import Z95, Estimate, jackknife, jackknife_variance, proportion
from ddpm.rng import numpy_stream

ROWS_AT_ONCE = 1024
"""Images whose kernels with, or distances to, all others are in memory at once, at most."""

BLOCK_BYTES = 1 << 27
"""What these may fill, in float64. It leaves the sums over up to 16,384 images as they are with `ROWS_AT_ONCE`."""

GROUPS = 10
"""The jackknife of a Frechet distance leaves out one of so many groups of samples at a time."""


def kid(samples: Tensor, reference: Tensor) -> Estimate:
    """Kernel distance (Binkowski et al. 2018, arXiv:1801.01401): the unbiased squared MMD, over all pairs.

    The kernel is torch-fidelity's, (x . y / D + 1)^3. Where it draws subsets of one size, all rows are used once here;
    the sets may differ in size. Values below 0 are valid, and mean that no difference shows.

    Args:
        samples: features `[M, D]`, M >= 3.
        reference: features `[N, D]`, N >= 3.

    Returns:
        The squared MMD with a normal interval. Its variance is modelled as V + c * distance. V is the variance between
        equal laws (Gretton et al. 2012, JMLR 13:723). c is the variance of a two-sample delete-one jackknife, divided
        by the squared distance of the kernel means. The jackknife alone falls to zero with a low value: its interval
        lay wholly below 0 in 3 of 100 draws from equal laws. `low` uses the variance at the value. `high` uses the
        variance at `high`, so that it solves (high - value)^2 = Z95^2 (V + c * high). On features of the embedded
        images the interval held the true value in 94 to 100 % of draws from seven pairs of laws, equal and unequal.
    """
    x, y = samples.cpu().double().numpy(), reference.cpu().double().numpy()
    m, n = len(x), len(y)
    (others_x, own_x), (others_y, own_y), across = _kernel_sums(x), _kernel_sums(y), _cross_kernels(x, y)
    total = across.of_rows.sum()
    between_means = (others_x + own_x).sum() / m**2 + (others_y + own_y).sum() / n**2 - 2 * total / (m * n)
    of_equal_laws = 2 * (1 / m + 1 / n) ** 2 * across.centred_squares / ((m - 1) * (n - 1))
    mean_x, mean_y = others_x.sum() / (m * (m - 1)), others_y.sum() / (n * (n - 1))
    value = mean_x + mean_y - 2 * total / (m * n)
    without_x = (others_x.sum() - 2 * others_x) / ((m - 1) * (m - 2)) + mean_y
    without_x -= 2 * (total - across.of_rows) / ((m - 1) * n)
    without_y = (others_y.sum() - 2 * others_y) / ((n - 1) * (n - 2)) + mean_x
    without_y -= 2 * (total - across.of_columns) / (m * (n - 1))
    jackknife = jackknife_variance(without_x, without_y)
    z2_v, half_z2_c = Z95**2 * of_equal_laws, Z95**2 * jackknife / max(between_means, 1e-12) / 2
    low = value - (z2_v + Z95**2 * jackknife) ** 0.5
    # The larger root of the quadratic for high; where it would lie below 0, the variance is V alone.
    root = max(0.0, half_z2_c**2 + 2 * half_z2_c * value + z2_v) ** 0.5
    high = value + half_z2_c + root if value + z2_v**0.5 > 0 else value + z2_v**0.5
    return Estimate(value=float(value), low=float(low), high=float(high), n=m)


def kid_difference(samples: Tensor, others: Tensor, reference: Tensor) -> Estimate:
    """KID of `samples` minus KID of `others`, to one `reference`: below 0 where the samples are nearer to it.

    The kernels within the reference cancel, and most of the chance in its choice. Image i of both sets counts as one
    draw, because both may come from the same noise.

    Args:
        samples: features `[M, D]`, M >= 3.
        others: features `[M, D]`.
        reference: features `[N, D]`, N >= 3.

    Returns:
        The difference with the interval of a delete-one jackknife over pairs and over the reference. It is wider than
        95 % need where all three sets are alike, up to sqrt(2) times (Efron & Stein 1981, Annals of Statistics 9).
    """
    ours, theirs = _without_reference(samples, reference), _without_reference(others, reference)
    value, of_pairs, of_reference = (a - b for a, b in zip(ours, theirs, strict=True))
    return jackknife(float(value), of_pairs, of_reference)


def _without_reference(samples: Tensor, reference: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """KID without its mean kernel within the reference, which is the same for all samples: terms of a difference.

    The value, and the jackknife's values without each of the samples `[M]` and without each of the reference `[N]`.
    """
    x, y = samples.cpu().double().numpy(), reference.cpu().double().numpy()
    m, n = len(x), len(y)
    (others, _), across = _kernel_sums(x), _cross_kernels(x, y)
    mean, total = others.sum() / (m * (m - 1)), across.of_rows.sum()
    without_x = (others.sum() - 2 * others) / ((m - 1) * (m - 2))
    without_x -= 2 * (total - across.of_rows) / ((m - 1) * n)
    return mean - 2 * total / (m * n), without_x, mean - 2 * (total - across.of_columns) / (m * (n - 1))


def rows_at_once(images: int) -> int:
    """How many rows of a matrix with so many columns, float64, are computed at once."""
    return max(1, min(ROWS_AT_ONCE, BLOCK_BYTES // (8 * images)))


def _kernel_sums(x: np.ndarray) -> np.ndarray:
    """Of each row of `x` `[M, D]` the sum of its kernels with the others, and its kernel with itself: `[2, M]`."""
    parts = []
    rows = rows_at_once(len(x))
    for first in range(0, len(x), rows):  # the matrix of 50,000 samples has 20 GB
        kernels = kernel_poly(x[first : first + rows], x)
        with_itself = kernels.diagonal(first)
        parts.append(np.stack([kernels.sum(1) - with_itself, with_itself]))
    return np.concatenate(parts, axis=1)


class _Cross(NamedTuple):
    """Kernels of M samples with N others: sums `[M]` and `[N]`, and the squares less row and column means, summed."""

    of_rows: np.ndarray
    of_columns: np.ndarray
    centred_squares: float


def _cross_kernels(x: np.ndarray, y: np.ndarray) -> _Cross:
    """The kernels of the rows of `x` `[M, D]` with those of `y` `[N, D]`, by blocks of `x`."""
    # Centring takes a constant away again; without about the mean, squares would lose digits when they are subtracted.
    constant = kernel_poly(x.mean(0, keepdims=True), y.mean(0, keepdims=True)).item()
    sums, columns, squares, rows = [], np.zeros(len(y)), 0.0, rows_at_once(len(y))
    for first in range(0, len(x), rows):
        kernels = kernel_poly(x[first : first + rows], y) - constant
        sums.append(kernels.sum(1))
        columns += kernels.sum(0)
        squares += np.square(kernels).sum()
    of_rows = np.concatenate(sums)
    m, n = len(x), len(y)
    centred = squares - np.square(of_rows).sum() / n - np.square(columns).sum() / m + of_rows.sum() ** 2 / (m * n)
    return _Cross(of_rows + n * constant, columns + m * constant, max(0.0, float(centred)))


def precision_recall(samples: Tensor, reference: Tensor, neighbourhood: int) -> tuple[Estimate, Estimate]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991) by torch-fidelity.

    Precision is the fraction of the samples that lie within a ball of the reference, recall the fraction of the
    reference within a ball of the samples. A ball reaches from an image to its `neighbourhood`-th neighbour in its own
    set. Both depend on the sizes of the sets: compare with as many real images.

    Args:
        samples: features `[M, D]`, M > `neighbourhood`.
        reference: features `[N, D]`, N > `neighbourhood`.
        neighbourhood: the paper's k.

    Returns:
        Precision and recall with Wilson's intervals. These take the balls as given, and know nothing of what their
        chance adds, so that both are made for the size of the smaller set. With 64 samples and 500 images of one law
        they held the mean over many draws in 86 (precision) and 99 of 100; recall taken as a proportion of 500, in 67.
    """
    # In float64, because cdist's matrix product leaves a float32 image at a distance from itself.
    found = prc_features_to_metric(
        samples.cpu().double(),
        reference.cpu().double(),
        prc_neighborhood=neighbourhood,
        prc_batch_size=rows_at_once(max(len(samples), len(reference))),
        save_cpu_ram=True,
        verbose=False,
    )
    smaller = min(len(samples), len(reference))
    return (
        replace(proportion(found[KEY_METRIC_PRECISION], smaller), n=len(samples)),
        replace(proportion(found[KEY_METRIC_RECALL], smaller), n=len(reference)),
    )


def frechet(samples: Tensor, reference: Tensor, strata: np.ndarray | None = None) -> Estimate:
    """Frechet distance of two normal laws with the sets' means and covariances, by torch-fidelity.

    With Inception's features it is FID (Heusel et al. 2017, arXiv:1706.08500). It grows as the sets shrink: compare at
    equal sizes, and with a value of another program at the sizes used there.

    Args:
        samples: features `[M, D]`.
        reference: features `[N, D]`.
        strata: the class of each sample `[M]`, where a fixed number of each class was drawn.

    Returns:
        The distance with the interval of a jackknife that leaves out one of `GROUPS` groups of samples, chosen at
        random within each class; the reference is taken as given, and the interval holds the value that is expected at
        this M.

    Raises:
        ValueError: as `require_full_rank` does.
    """
    require_full_rank(len(samples), len(reference), samples.shape[1])
    ours, theirs = _moments(samples, _groups(len(samples), strata)), _moments(reference, np.zeros(len(reference), int))
    real = _statistics(*(part.sum(0) for part in theirs))

    def distance(count: Tensor, first: Tensor, second: Tensor) -> float:
        return fid_statistics_to_metric(_statistics(count, first, second), real, verbose=False)[KEY_METRIC_FID]

    whole = [part.sum(0) for part in ours]
    without = [
        distance(*(all_of - part[group] for all_of, part in zip(whole, ours, strict=True)))
        for group in range(len(ours[0]))
    ]
    return replace(jackknife(distance(*whole), np.array(without)), n=len(samples))


def _moments(features: Tensor, group: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Of each group of rows of `features` `[N, D]`: count `[G]`, sums `[G, D]`, sums of products `[G, D, D]`."""
    groups, dimensions = int(group.max()) + 1, features.shape[1]
    count = torch.from_numpy(np.bincount(group)).double()
    first, second = torch.zeros(groups, dimensions).double(), torch.zeros(groups, dimensions, dimensions).double()
    for number in range(groups):
        for rows in torch.from_numpy(np.flatnonzero(group == number)).split(ROWS_AT_ONCE):
            block = features[rows].cpu().double()
            first[number] += block.sum(0)
            second[number] += block.T @ block
    return count, first, second


def _statistics(count: Tensor, first: Tensor, second: Tensor) -> dict[str, np.ndarray]:
    """Mean and covariance from a count, a sum `[D]` and a sum of products `[D, D]`, as torch-fidelity takes them."""
    covariance = (second - torch.outer(first, first) / count) / (count - 1)
    return {"mu": (first / count).numpy(), "sigma": covariance.numpy()}


def _groups(count: int, strata: np.ndarray | None) -> np.ndarray:
    """The group of each of `count` rows, `[count]`: of equal sizes, and with equal shares of each class."""
    shuffled = numpy_stream(0, "frechet: groups").permutation(count)
    order = shuffled if strata is None else shuffled[np.argsort(strata[shuffled], kind="stable")]
    group = np.empty(count, int)
    group[order] = np.arange(count) % GROUPS
    return group


def require_full_rank(samples: int, reference: int, dimensions: int) -> None:
    """Fail where a covariance would be singular, and a Frechet distance say more about n than about the images.

    The interval takes covariances without one of `GROUPS` groups of the samples.

    Raises:
        ValueError: giving the numbers.
    """
    needed = dimensions * GROUPS // (GROUPS - 1) + 2
    if samples < needed or reference <= dimensions:
        raise ValueError(
            f"for {dimensions:,} features it needs {needed:,} samples and {dimensions + 1:,} real images; here are "
            f"{samples:,} and {reference:,}"
        )
