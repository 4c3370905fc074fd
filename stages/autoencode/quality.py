"""What of an image survives its latents, the floor of every model that draws them, and whether these are sound."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.autoencoder.network import LATENT_STD, Codec, Posterior
from ddpm.devices.precision import autocast
from ddpm.evaluation.estimates import mean
from ddpm.evaluation.metrics import kid
from ddpm.evaluation.perceptual import IMAGES_AT_ONCE, Metric, load_lpips, pooled_features
from ddpm.images import to_model_range, to_uint8
from ddpm.training.trainer import Loop
from stages.kit.progress import progress
from stages.kit.runtime import RuntimeConfig
from stages.shared.files.formats import read_safetensors

DEAD = 0.01
"""Nats: with a smaller mean divergence a channel of the latents says nothing of the image."""
DRIFT = 0.1
"""How far the held-out images' statistics of a channel may be from the training images', in its deviation."""
LEAST = 3
"""Images of a set that KID compares."""


class Quality:
    """What the quality of `codec` is measured with."""

    def __init__(self, backbone: Path, codec: Codec, trainer: Loop[Any, Any], runtime: RuntimeConfig):
        self.codec, self.device, self.precision = codec, trainer.device, trainer.precision
        tensors, metadata = read_safetensors(backbone)
        self.net, self.at_once = metadata["net"], runtime.at_once(IMAGES_AT_ONCE)
        self.lpips = load_lpips(tensors, self.net).to(self.device)
        self.laws: list[Posterior] = []
        """Of the held-out images, on the CPU, once they have been reconstructed."""

    def features(self, images: np.ndarray) -> Tensor:
        """What KID compares, of uint8 `[N, H, W, 3]`."""
        blocks = range(0, len(images), self.at_once)
        x = (to_model_range(images[first : first + self.at_once]).to(self.device) for first in blocks)
        return torch.cat([pooled_features(self.lpips, block, self.at_once).cpu() for block in x])


def reconstructed(quality: Quality, images: np.ndarray) -> np.ndarray:
    """Images decoded from the means of their latents, uint8 like `images`; `quality.laws` gets those latents."""
    parts, codec, device = [], quality.codec, quality.device
    with (
        torch.inference_mode(),
        autocast(device, quality.precision),
        progress(len(images), "img", label="held-out images") as bar,
    ):
        for first in range(0, len(images), quality.at_once):
            law = codec.autoencoder.encode(to_model_range(images[first : first + quality.at_once]).to(device))
            quality.laws.append(Posterior(law.mean.cpu(), law.log_variance.cpu()))
            parts.append(to_uint8(codec.autoencoder.decode(law.mean)))
            bar.update(len(law.mean))
    return np.concatenate(parts)


def told(quality: Quality, images: np.ndarray, decoded: np.ndarray) -> dict[str, Any]:
    """How near `decoded` is to `images`, as images and as a set, and what their latents are like.

    KID compares one half of the images, as they are and decoded, with the other half as they are: what no model that
    draws these latents should get clearly below.
    """
    metric, half = Metric(quality.lpips, at_once=quality.at_once), len(images) // 2
    found: dict[str, Any] = {
        "held_out_images": len(images),
        "psnr": asdict(mean(psnr(images, decoded))),
        f"lpips_{quality.net}": asdict(mean(metric.pair_distances(decoded, images))),
    }
    if half >= LEAST:
        others = quality.features(images[half:])
        sets = {"decoded": decoded[:half], "real": images[:half]}
        found["kid"] = {name: asdict(kid(quality.features(each), others)) for name, each in sets.items()}
    channels = channels_of(quality)
    return {**found, "channels": channels, "warnings": warnings_of(channels)}


def psnr(images: np.ndarray, decoded: np.ndarray) -> Tensor:
    """Peak signal-to-noise ratio of each image in decibels, `[N]`; at most that of one level in one value."""
    squared = [np.square(a.astype(np.float64) - b).mean() for a, b in zip(images, decoded, strict=True)]
    least = 1 / images[0].size
    return torch.tensor([10 * np.log10(255**2 / max(each, least)) for each in squared])


def channels_of(quality: Quality) -> list[dict[str, float]]:
    """Of each channel of the held-out images' latents: divergence, and statistics of the normalised means."""
    law, codec = Posterior(*(torch.cat(each) for each in zip(*quality.laws, strict=True))), quality.codec
    normalised = ((law.mean - codec.mean.cpu()) / codec.scale.cpu()).transpose(0, 1).flatten(1).double()
    deviation = (law.log_variance / 2).exp().mean((0, 2, 3)) / codec.scale.cpu().flatten()
    divergence = law.kl().mean((0, 2, 3))
    rows = []
    for values, noise, nats in zip(normalised, deviation, divergence, strict=True):
        centred = values - values.mean()
        rows.append(
            {
                "kl": float(nats),
                "mean": float(values.mean()),
                "std": float(values.std()),
                "posterior_std_over_std": float(noise) / LATENT_STD,
                "kurtosis": float(centred.pow(4).mean() / centred.square().mean().square()),
                "min": float(values.min()),
                "max": float(values.max()),
            }
        )
    return rows


def warnings_of(channels: list[dict[str, float]]) -> list[str]:
    """Dead channels, and those whose statistics differ between training and held-out images."""
    found = [f"channel {i} is dead: KL {row['kl']:.2g} nats" for i, row in enumerate(channels) if row["kl"] < DEAD]
    for i, row in enumerate(channels):
        if abs(row["mean"]) > DRIFT * LATENT_STD or abs(row["std"] / LATENT_STD - 1) > DRIFT:
            found.append(
                f"channel {i} drifts: on held-out images mean {row['mean']:.2g}, deviation {row['std']:.2g}, "
                f"on training images 0 and {LATENT_STD}"
            )
    return found
