"""How paths of images run, by LPIPS. P paths of F frames are uint8 `[P, F, H, W, 3]`."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpm.evaluation.perceptual import Metric

STILL = 1e-12
"""Stands in for a distance of 0 that is divided by: a path that doesn't move has ratios of 0."""


@dataclass(frozen=True)
class PathMetrics:
    """How P paths run: LPIPS of neighbouring frames, `steps` `[P, F - 1]`, and of the first and last frame, `[P]`.

    LPIPS is a squared distance. The two ratios `[P]` are of its root, the Euclidean distance between embeddings: the
    largest step over the mean step, and the path's length over the distance of its endpoints. Both are at least 1, and
    1 for equal steps along a straight line.
    """

    steps: Tensor
    end_distance: Tensor
    largest_over_mean: Tensor
    length_over_end_distance: Tensor


def path_metrics(metric: Metric, paths: np.ndarray) -> PathMetrics:
    """Compare neighbouring frames of each of `paths`, uint8 `[P, F, H, W, 3]`, and its endpoints."""
    before, after = (frames.reshape(-1, *paths.shape[2:]) for frames in (paths[:, :-1], paths[:, 1:]))
    steps = metric.pair_distances(before, after).view(len(paths), -1)
    end_distance = metric.pair_distances(paths[:, 0], paths[:, -1])
    moves = steps.sqrt()
    return PathMetrics(
        steps=steps,
        end_distance=end_distance,
        largest_over_mean=moves.amax(dim=1) / moves.mean(dim=1).clamp(min=STILL),
        length_over_end_distance=moves.sum(dim=1) / end_distance.sqrt().clamp(min=STILL),
    )


def detail(images: np.ndarray) -> Tensor:
    """How much neighbouring pixels of images, uint8 `[..., H, W, 3]`, differ, in levels of 255: `[...]`."""
    levels = torch.from_numpy(images.astype(np.float32))
    down, across = (levels.diff(dim=axis).abs().mean(dim=(-3, -2, -1)) for axis in (-3, -2))
    return (down + across) / 2


def rms_error(images: np.ndarray, others: np.ndarray) -> Tensor:
    """Root of the mean squared difference of two images, uint8 `[N, H, W, 3]`, in levels of 255: `[N]`."""
    return torch.from_numpy((images.astype(np.float32) - others) ** 2).mean(dim=(1, 2, 3)).sqrt()
