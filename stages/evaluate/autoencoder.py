"""The floor of every model that draws latents: real images after the way to latents and back."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.evaluation.estimates import Estimate, mean
from ddpm.evaluation.metrics import kid
from ddpm.evaluation.perceptual import Metric
from stages.evaluate.sets import Kept, Sets
from stages.shared.models.codec import decoded, read_codec

LEAST = 3
"""Images of a set that KID compares."""


def compare_decoded(
    measure: Kept, file: Path, sets: Sets, features: Tensor, device: torch.device
) -> dict[str, Estimate | dict[str, Estimate]]:
    """PSNR in decibels, LPIPS and KID of held-out images, with these `features`, after the autoencoder in `file`.

    KID compares every second image, decoded and as it is, with the others as they are: what no model that draws these
    latents should get clearly below. Every second, because the images lie category by category.
    """
    images, others = sets.images["held_out"], features[1::2]
    after = decoded(read_codec(file, device), images, measure.at_once, device)
    lpips = Metric(measure.model, at_once=measure.at_once).pair_distances(after, images)
    found: dict[str, Any] = {"psnr": mean(psnr(images, after)), "lpips": mean(lpips)}
    if len(others) >= LEAST:
        halves = {"decoded": measure.features("decoded", after[::2]), "real": features[::2]}
        found["kid"] = {name: kid(each, others) for name, each in halves.items()}
    return found


def psnr(images: np.ndarray, after: np.ndarray) -> Tensor:
    """Peak signal-to-noise ratio of each image in decibels, `[N]`; at most that of one level in one value."""
    squared = [np.square(a.astype(np.float64) - b).mean() for a, b in zip(images, after, strict=True)]
    least = 1 / images[0].size
    return torch.tensor([10 * np.log10(255**2 / max(each, least)) for each in squared])
