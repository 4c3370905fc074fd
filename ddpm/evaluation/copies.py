"""Whether an image copies a training image: whether it comes nearer to one than real images do that can't be copies.

LPIPS finds the training images to compare with, but it doesn't decide: its network strides by four pixels, so that an
image moved by one is as far from itself as another church may be. The correlation of pixels tells them apart.
"""

import math

import numpy as np

from ddpm.evaluation.neighbours import take
from ddpm.images import Images

SHIFT = 1
"""Pixels by which a copy may be out of place."""

QUERIES_AT_ONCE, BYTES_AT_ONCE = 32, 1 << 21
"""How many images are compared at once, and how much of large ones; the result doesn't depend on it."""


def copy_distances(images: Images, reference: Images, rows: np.ndarray) -> np.ndarray:
    """One minus the correlation of pixel values: 0 for a copy, however bright or contrasty, about 1 for strangers.

    The least over shifts of up to `SHIFT` pixels and over mirroring.

    Args:
        images: uint8 `[N, H, W, 3]`.
        reference: uint8 `[M, H, W, 3]`.
        rows: those of the reference to compare each image with, `[N, k]`.

    Returns:
        float32 `[N, k]`.
    """
    found, at_once = [], max(1, min(QUERIES_AT_ONCE, BYTES_AT_ONCE // max(1, images[:1].nbytes)))
    for start in range(0, len(images), at_once):
        some, others = images[start : start + at_once], rows[start : start + at_once]
        height, width = (side - 2 * SHIFT for side in some.shape[1:3])
        shifts = [(y, x) for y in range(2 * SHIFT + 1) for x in range(2 * SHIFT + 1)]
        moved = np.stack([some[:, y : y + height, x : x + width] for y, x in shifts], axis=1)
        middles = take(reference, others.ravel())[:, SHIFT : SHIFT + height, SHIFT : SHIFT + width]
        middles = middles.reshape(*others.shape, *middles.shape[1:])
        both = np.concatenate([middles, middles[:, :, :, ::-1]], axis=1)  # [n, 2 k, height, width, 3]
        correlations = _standardised(moved) @ _standardised(both).swapaxes(1, 2)  # [n, shifts, 2 k]
        found.append(1 - correlations.max(axis=1).reshape(len(some), 2, -1).max(axis=1))
    return np.concatenate(found).clip(0)


def _standardised(images: np.ndarray) -> np.ndarray:
    """uint8 `[..., H, W, 3]` as vectors of mean 0 and length 1, float32 `[..., H * W * 3]`; zeros where all is even."""
    pixels = images.reshape(*images.shape[:-3], -1).astype(np.float32)
    pixels -= pixels.mean(axis=-1, keepdims=True)
    return pixels / np.linalg.norm(pixels, axis=-1, keepdims=True).clip(1e-3)


def p_values(distances: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Conformal p-values (Vovk et al. 2005) of `distances`, in their shape, against those of held-out images `[n]`.

    The fraction of the held-out distances that are at most this distance, counting the image itself: at least
    1 / (n + 1). Of images drawn from the same law as the held-out ones, a fraction of at most r has a p-value of r or
    less, whatever the law is.
    """
    return (1 + np.searchsorted(np.sort(held_out), distances, side="right")) / (len(held_out) + 1)


def threshold(held_out: np.ndarray, rate: float) -> float:
    """The distance below which a p-value is at most `rate`; 0 where the held-out distances `[n]` are too few for it."""
    allowed = math.floor(rate * (len(held_out) + 1) + 1e-9)
    return float(np.sort(held_out)[allowed - 1]) if allowed else 0.0
