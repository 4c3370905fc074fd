"""What only the code behind the student's report does, each behind the interface of the usual way.

The code is zoubohao's DenoisingDiffusionProbabilityModel-ddpm-; benchmarks/report_parity.py compares with it.
"""

import math

from torch import nn

from ddpm.diffusion.unet import UNet, last_layers


def epoch_images(count: int, batch_images: int) -> int:
    """How many of `count` images an epoch shows (`drop_last`): only those that fill a batch."""
    return count - count % batch_images


def loss_scale(batch_images: int, pixels: int) -> float:
    """What the mean loss of a batch of images of so many values is multiplied with (`sum_per_1000`): its sum / 1000."""
    return batch_images * pixels / 1000


def rate(epoch: int, epochs: int) -> float:
    """The learning rate of an epoch in units of `learning_rate`: from 1 to 2 in a tenth of the epochs, then a cosine.

    The half cosine starts after the warm-up and is `epochs` long, so that the run ends before it reaches 0. In fewer
    than ten epochs the report's code divides by zero; here the warm-up is one epoch long then.
    """
    warmup = max(1, epochs // 10)
    if epoch <= warmup:
        return 1 + epoch / warmup
    return 1 + math.cos(math.pi * (epoch - warmup - 1) / epochs)


def start(network: UNet) -> None:
    """Initial weights (`xavier`): Xavier's uniform law and no biases; nearly zero where a residual branch ends."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for layer in last_layers(network):
        nn.init.xavier_uniform_(layer.weight, gain=1e-5)
