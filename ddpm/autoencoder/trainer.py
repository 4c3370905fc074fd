"""How an autoencoder is trained: images, its recipe and its loss. No feature of another network has a part in the loss.

So whatever judges images, LPIPS and KID of AlexNet's features, judges what no training has seen.
"""

from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.autoencoder.network import Posterior
from ddpm.config import STRICT
from ddpm.devices.precision import autocast
from ddpm.devices.transfer import sent
from ddpm.rng import normal, numpy_stream
from ddpm.training.batches import Stream
from ddpm.training.optimizers import OptimizerName
from ddpm.training.recipe import Decay, RateSchedule
from ddpm.training.trainer import Loop, TrainState


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AutoencoderRecipe:
    """How an autoencoder is trained: AdamW, a linear warm-up, then half a cosine down to 0.

    The loss of an image is the mean absolute (`l1`) or squared (`l2`) error of its values plus `kl_weight` times the
    mean Kullback-Leibler divergence of its latents' values from N(0, 1). The weights that are used are averages.
    """

    epochs: PositiveInt
    reconstruction: Literal["l1", "l2"]
    kl_weight: NonNegativeFloat
    batch_images: PositiveInt
    learning_rate: PositiveFloat
    warmup_steps: NonNegativeInt
    weight_decay: NonNegativeFloat
    adam_beta2: Annotated[float, Field(ge=0, lt=1)]
    ema_decay: Decay

    drop_last: ClassVar[bool] = False
    optimizer: ClassVar[OptimizerName] = "adamw"
    rate_schedule: ClassVar[RateSchedule] = "cosine"

    @property
    def ema_decays(self) -> tuple[float, ...]:
        """The one average that is kept."""
        return (self.ema_decay,)


class AutoencoderBatch(NamedTuple):
    """Images in [-1, 1] `[B, 3, H, W]`, and standard normal noise for their latents `[B, C, h, w]`."""

    x0: Tensor
    eps: Tensor


class AutoencoderBatches(Stream[AutoencoderRecipe, AutoencoderBatch]):
    """The batches that an autoencoder with latents of `latent_shape` learns from, out of uint8 `[N, H, W, 3]`."""

    def __init__(
        self,
        images: np.ndarray,
        latent_shape: tuple[int, int, int],
        recipe: AutoencoderRecipe,
        *,
        flip: bool,
        seed: int,
        device: torch.device,
    ):
        super().__init__(images, recipe, flip=flip, seed=seed, device=device)
        self.latent_shape = latent_shape

    def micro_batch(self, step: int, places: range) -> AutoencoderBatch:
        """The images at `places` of the batch of `step`, on the device."""
        streams = [numpy_stream(self.seed, "autoencoder: batch", step, place) for place in places]
        chances = np.array([stream.random() for stream in streams])
        eps = torch.stack([normal(stream, self.latent_shape) for stream in streams])
        return AutoencoderBatch(self.shown(self.indices(step)[places], chances), sent(eps, self.device))


class AutoencoderTrainer(Loop[AutoencoderRecipe, AutoencoderBatch]):
    """The steps by which an autoencoder learns; arguments as `Loop` has them."""

    def losses(self, state: TrainState, batch: AutoencoderBatch) -> Tensor:
        """The loss of each image, `[B]`."""
        with autocast(self.device, self.precision):
            reconstruction, posterior = state.network(batch.x0, batch.eps)
        return autoencoder_losses(batch.x0, reconstruction, posterior, self.recipe)


def autoencoder_losses(
    images: Tensor, reconstruction: Tensor, posterior: Posterior, recipe: AutoencoderRecipe
) -> Tensor:
    """Error and weighted divergence of each image, `[B]`: means over its pixel values and over its latents' values."""
    error = reconstruction.float() - images
    error = error.abs() if recipe.reconstruction == "l1" else error.square()
    return error.mean((1, 2, 3)) + recipe.kl_weight * posterior.kl().mean((1, 2, 3))
