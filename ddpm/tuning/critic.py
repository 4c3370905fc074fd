"""A critic of drawn images, which shows real ones to distribution matching (Yin et al. 2024, arXiv:2405.14867).

Matching by itself can at best draw what the teacher draws, and the fake score lags behind the weights. The critic is a
head on the fake score's own network. It learns to tell noised drawn images from noised training images, at the same t,
and the weights that draw learn to have theirs taken for real.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.diffusion.unet import UNet
from ddpm.training.batches import Batch
from ddpm.training.trainer import Trainer, TrainState

LOSS_RATIO = 10 / 3
"""The weight of the critic's own loss, over the weight of what it says to the weights that draw."""


class Critic(nn.Module):
    """A head on the lowest level of `network`: whether the noised images that the network saw last are real."""

    def __init__(self, network: UNet):
        super().__init__()
        config = network.config
        width = config.channels * config.multipliers[-1]
        convolved = nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(config.groups, width), nn.SiLU()
        self.head = nn.Sequential(*convolved, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1))
        self.seen = torch.empty(0)
        network.mid_block.register_forward_hook(self._see)

    def _see(self, block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.seen = output

    def forward(self) -> Tensor:
        """Logits `[B]`, high for real images."""
        logits: Tensor = self.head(self.seen.float())
        return logits.flatten()


def verdict(network: Any) -> Tensor:
    """The logits of the critic of `network` for what it saw last, `[B]`."""
    logits: Tensor = network.critic()
    return logits


class CriticTrainer(Trainer):
    """The steps of a fake score with a critic; half of each batch is drawn, half is real, at the same t.

    Args:
        weight: that of the critic in the loss of the weights that draw.
    """

    def __init__(self, weight: float, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.weight = LOSS_RATIO * weight

    def losses(self, state: TrainState, batch: Batch) -> Tensor:
        """The fake score's loss of each drawn image and the critic's loss of it and of a real one, `[B / 2]`."""
        drawn, _ = super().losses(state, batch).chunk(2)
        fake, real = verdict(state.model).chunk(2)
        return drawn + self.weight * (F.softplus(fake) + F.softplus(-real))
