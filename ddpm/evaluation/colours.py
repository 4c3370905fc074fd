"""How the colours of two sets of images differ."""

import numpy as np

from ddpm.evaluation.estimates import Estimate, jackknife

CHANNELS = ("red", "green", "blue")


def colour_drift(samples: np.ndarray, reference: np.ndarray) -> dict[str, dict[str, Estimate]]:
    """Colours of the samples minus those of the reference, both uint8 `[N, H, W, 3]`, N >= 2.

    Returns:
        By channel: `mean` and `std` over all pixels in levels of 0 to 255, and `saturated`, the fraction of the
        values at 0 or 255; with the intervals of a jackknife over images.
    """
    ours, theirs = _colour_sums(samples), _colour_sums(reference)
    value = _colours(ours.sum(0)) - _colours(theirs.sum(0))
    without = _colours(ours.sum(0) - ours), _colours(theirs.sum(0) - theirs)
    return {
        name: {
            channel: jackknife(float(value[row, column]), *(values[:, row, column] for values in without))
            for column, channel in enumerate(CHANNELS)
        }
        for row, name in enumerate(("mean", "std", "saturated"))
    }


def _colour_sums(images: np.ndarray) -> np.ndarray:
    """Of each image and channel the count, the sum, the sum of squares and the saturated of its levels, `[N, 4, 3]`."""
    levels = np.arange(256)
    counts = np.stack([[np.bincount(image[..., c].ravel(), minlength=256) for c in range(3)] for image in images])
    saturated = counts[..., 0] + counts[..., 255]
    return np.stack([counts.sum(-1), counts @ levels, counts @ levels**2, saturated], axis=1)


def _colours(sums: np.ndarray) -> np.ndarray:
    """Mean, standard deviation and saturated fraction by channel, `[..., 3, 3]`, from sums `[..., 4, 3]`."""
    count, first, second, saturated = np.moveaxis(sums, -2, 0)
    mean = first / count
    return np.stack([mean, np.sqrt(second / count - mean**2), saturated / count], axis=-2)
