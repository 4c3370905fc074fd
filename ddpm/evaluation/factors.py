"""What an image shows, by a classifier trained on factors that were drawn, and how two sets differ in it."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ddpm.evaluation.metrics import Estimate

RIDGE = 0.01
DRAWS = 1000
"""Of the bootstrap."""


def fit_classifier(features: Tensor, labels: np.ndarray) -> Callable[[Tensor], np.ndarray]:
    """Ridge regression of one-hot labels on standardised features: a closed form, and the same bytes every time.

    Args:
        features: `[N, D]`, N >= 1.
        labels: `[N]`, of any kind that can be sorted.

    Returns:
        A function from features `[M, D]` to labels `[M]`.
    """
    x = features.cpu().double()
    mean, std = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    x = (x - mean) / std
    classes, numbers = np.unique(labels, return_inverse=True)
    wanted = one_hot(torch.from_numpy(numbers)).double()
    shares = wanted.mean(0)
    covariance = x.T @ x / len(x) + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(covariance, x.T @ (wanted - shares) / len(x))

    def classify(features: Tensor) -> np.ndarray:
        scores = (features.cpu().double() - mean) / std @ weight + shares
        return classes[scores.argmax(1).numpy()]

    return classify


def total_variation(ours: np.ndarray, theirs: np.ndarray, generator: np.random.Generator) -> Estimate:
    """Half the summed differences between the shares of each class: 0 where they are the same, 1 where none is common.

    The plain value, which chance alone makes greater than 0. Its interval reaches as far as the shares' error does, in
    this same distance, in 95 % of bootstrap draws: the true value can't be further off than that error. Of draws of 64
    and 500 images it held the true distance in 95 to 98 %, also where that is 0.

    Args:
        ours: classes `[M]`.
        theirs: classes `[N]`.
        generator: of the bootstrap.
    """
    classes = np.union1d(ours, theirs)
    p, q = ((each[:, None] == classes).mean(0) for each in (ours, theirs))
    value = float(np.abs(p - q).sum() / 2)
    redrawn = [generator.multinomial(len(each), shares, DRAWS) / len(each) for each, shares in ((ours, p), (theirs, q))]
    error = np.abs(redrawn[0] - redrawn[1] - (p - q)).sum(1) / 2
    reach = float(np.quantile(error, 0.95))
    return Estimate(value=value, low=max(0.0, value - reach), high=min(1.0, value + reach), n=len(ours))
