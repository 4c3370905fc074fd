"""Which images each step of a training run sees, mirrored or not, and which of them each process takes.

Everything is a function of (seed, step, position in the batch), so neither the number of processes nor the size of
their micro-batches changes it, and there is nothing to save.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ddpm.devices.processes import rank_and_count
from ddpm.devices.transfer import sent
from ddpm.images import to_model_range
from ddpm.rng import numpy_stream


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The shuffled indices `[count]` of one epoch."""
    return numpy_stream(seed, "epoch", epoch).permutation(count)


class Epochs:
    """Batches of `batch_images` from `images`, which may be memory-mapped.

    Args:
        images: uint8 `[N, H, W, 3]`, or latents, float32 `[N, 2, C, H, W]`: of each image and of its mirror image.
        batch_images: in a step.
        epoch_images: how many of the images an epoch shows.
        flip: mirror half of the images.
        seed: of the run.
        device: where the images are wanted.
    """

    def __init__(
        self,
        images: np.ndarray,
        batch_images: int,
        epoch_images: int,
        *,
        flip: bool,
        seed: int,
        device: torch.device,
    ):
        self.images, self.batch_images, self.epoch_images = images, batch_images, epoch_images
        self.flip, self.seed, self.device = flip, seed, device

    @property
    def shape(self) -> tuple[int, int, int]:
        """That of an image or of its latents, `(C, H, W)`."""
        if self.images.ndim == 5:
            return self.images.shape[2:]
        height, width, channels = self.images.shape[1:]
        return channels, height, width

    def indices(self, step: int) -> np.ndarray:
        """Which images `[batch_images]` a step sees: a slice of one endless row of shuffled epochs."""
        first = step * self.batch_images
        places = (divmod(place, self.epoch_images) for place in range(first, first + self.batch_images))
        return np.array([epoch_order(self.seed, epoch, len(self.images))[place] for epoch, place in places])

    def shown(self, indices: np.ndarray, chances: np.ndarray) -> Tensor:
        """The images `[B, 3, H, W]` in [-1, 1] on the device, mirrored where a chance `[B]`, uniform, is below 1/2.

        Or latents `[B, C, H, W]`. Those of a mirror image are not the mirrored ones: no network is equivariant so far.
        """
        mirrored = chances < (0.5 if self.flip else 0)
        if self.images.ndim == 5:
            return sent(torch.from_numpy(self.images[indices, mirrored.astype(np.int64)]), self.device)
        x0 = to_model_range(sent(torch.from_numpy(self.images[indices]), self.device))
        return torch.where(sent(torch.from_numpy(mirrored), self.device)[:, None, None, None], x0.flip(3), x0)


def own_micro_batches(batch_images: int, micro_batch_images: int | None) -> list[range]:
    """The places in a batch that this process takes, those of one pass of the network at a time.

    Raises:
        ValueError: there is a process without a micro-batch.
    """
    rank, count = rank_and_count()
    size = micro_batch_images or -(-batch_images // count)
    starts = range(0, batch_images, size)
    micro_batches = [range(first, min(first + size, batch_images)) for first in starts][rank::count]
    if not micro_batches:
        raise ValueError(
            f"batch_images = {batch_images} in micro-batches of {size} can't be shared by {count} processes"
        )
    return micro_batches
