"""Images through the encoder."""

import numpy as np
import torch

from ddpm.autoencoder.network import Autoencoder, Posterior
from ddpm.devices.precision import autocast
from ddpm.images import Images, to_model_range
from stages.kit.progress import progress

IMAGES_AT_ONCE = 64
"""Images of one pass of the encoder where `runtime.batch_images` is empty."""


def encoded_means(
    autoencoder: Autoencoder, images: Images, at_once: int, device: torch.device, precision: torch.dtype
) -> np.ndarray:
    """Means of the latents of each image and of its mirror image, float32 `[N, 2, C, h, w]`."""
    parts = []
    with torch.inference_mode(), autocast(device, precision), progress(len(images), "img", label="encoding") as bar:
        for first in range(0, len(images), at_once):
            block = to_model_range(images[first : first + at_once]).to(device)
            both = [autoencoder.encode(each).mean.cpu() for each in (block, block.flip(3))]
            parts.append(torch.stack(both, dim=1).numpy())
            bar.update(len(block))
    return np.concatenate(parts)


def law_of(autoencoder: Autoencoder, images: Images, at_once: int, device: torch.device) -> Posterior:
    """The law of the latents of each image, float32 `[N, C, h, w]`, on the CPU."""
    laws = []
    with torch.inference_mode(), progress(len(images), "img", label="held-out images") as bar:
        for first in range(0, len(images), at_once):
            law = autoencoder.encode(to_model_range(images[first : first + at_once]).to(device))
            laws.append((law.mean.cpu(), law.log_variance.cpu()))
            bar.update(len(law.mean))
    return Posterior(*(torch.cat(parts) for parts in zip(*laws, strict=True)))
