"""The two networks of a GAN: a generator from noise to images, and a critic that scores images.

Both are plain residual convolutions as in Huang et al. 2024 (arXiv:2501.05441, R3GAN), section 3: no normalisation,
leaky ReLU, resampling with a low-pass filter, no tanh, and initial weights that are scaled as in Zhang et al. 2019
(arXiv:1901.09321, Fixup). Shapes: B images, C channels, H = W pixels, Z latent channels.
"""

from typing import Annotated, TypeVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ddpm.config import STRICT

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

SLOPE = 0.2
"""Of the leaky ReLU, for negative values."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GanConfig:
    """The shape of generator and critic, which mirror each other.

    The generator starts from `latent_channels` of noise. `channels` are those of its levels, of the coarsest first;
    each level doubles the resolution, and has so many residual `blocks`. `conditional` networks are told the class.
    """

    latent_channels: PositiveInt
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    blocks: PositiveInt
    conditional: bool

    def coarsest(self, size: int) -> int:
        """The resolution of the first level, for `size` x `size` images: 3 for 48 in five levels.

        Raises:
            ValueError: `size` can't be halved so often.
        """
        divisor = 2 ** (len(self.channels) - 1)
        if size % divisor:
            raise ValueError(
                f"images of {size} px can't be halved through {len(self.channels)} levels: use a multiple of {divisor}"
            )
        return size // divisor


class Block(nn.Module):
    """Two convolutions with a residual connection. The second starts at zero, so that the block starts as identity.

    Args:
        channels: of what comes in and goes out.
        depth: the residual blocks of the whole network.
    """

    def __init__(self, channels: int, depth: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        _initial(self.conv1, SLOPE, depth**-0.5)  # Fixup: depth^(-1 / (2m - 2)) for branches of m = 2 layers
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to the same shape."""
        return x + self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(x, SLOPE)), SLOPE))


class Generator(nn.Module):
    """Noise to images.

    Args:
        config: the shape.
        size: pixels, height and width.
        classes: how many there are, for a `conditional` one.

    Raises:
        ValueError: images of that size can't be halved so often.
    """

    def __init__(self, config: GanConfig, size: int, classes: int = 0):
        super().__init__()
        first, coarsest = config.channels[0], config.coarsest(size)
        self.config = config
        self.class_embedding = nn.Embedding(classes, config.latent_channels) if config.conditional else None
        inputs = config.latent_channels * (2 if config.conditional else 1)
        self.to_basis = _initial(nn.Linear(inputs, first))
        self.basis = nn.Parameter(torch.randn(first, coarsest, coarsest))
        self.levels = _levels(config.channels, config.blocks)
        self.to_image = _initial(nn.Conv2d(config.channels[-1], 3, 1))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Standard normal `[B, Z]`, and the class of each image `[B]`, to images `[B, 3, H, W]`; no range is forced."""
        if self.class_embedding is not None:
            z = torch.cat([z, self.class_embedding(label)], dim=1)
        x = self.to_basis(z)[:, :, None, None] * self.basis
        for index, level in enumerate(self.levels):
            x = level(x if index == 0 else upsampled(x))
        return self.to_image(x)


class Critic(nn.Module):
    """Images to scores, of which only differences mean anything; the levels of the generator in reverse.

    Args: as the generator's.
    """

    def __init__(self, config: GanConfig, size: int, classes: int = 0):
        super().__init__()
        channels, coarsest = config.channels[::-1], config.coarsest(size)
        self.from_image = _initial(nn.Conv2d(3, channels[0], 1))
        self.levels = _levels(channels, config.blocks)
        self.basis = nn.Parameter(torch.randn(channels[-1], coarsest, coarsest) / coarsest)
        outputs = config.latent_channels if config.conditional else 1
        self.to_score = _initial(nn.Linear(channels[-1], outputs))
        self.class_embedding = nn.Embedding(classes, outputs) if config.conditional else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """`[B, 3, H, W]`, and the class of each image `[B]`, to `[B]`."""
        x = self.from_image(x)
        for index, level in enumerate(self.levels):
            x = level(x if index == 0 else downsampled(x))
        score = self.to_score((x * self.basis).sum((2, 3)))
        if self.class_embedding is None:
            return score[:, 0]
        # Projection (Miyato & Koyama 2018, arXiv:1802.05637), of features on the class.
        return (score * self.class_embedding(label)).sum(1) / score.shape[1] ** 0.5


def upsampled(x: Tensor) -> Tensor:
    """Bilinear, `[B, C, H, W]` to `[B, C, 2H, 2W]`: the low-pass filter [1, 3, 3, 1] after zeros in between."""
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def downsampled(x: Tensor) -> Tensor:
    """`[B, C, 2H, 2W]` to `[B, C, H, W]`, by the same low-pass filter, [1, 3, 3, 1] / 8 in both directions."""
    return F.interpolate(x.float(), scale_factor=0.5, mode="bilinear", antialias=True)  # CPUs have no other for it


def _levels(channels: tuple[int, ...], blocks: int) -> nn.ModuleList:
    """For each level a 1 x 1 convolution to its channels, where they change, and its blocks."""
    depth = len(channels) * blocks
    levels = []
    for before, here in zip((channels[0], *channels), channels, strict=False):
        change = [_initial(nn.Conv2d(before, here, 1))] if before != here else []
        levels.append(nn.Sequential(*change, *(Block(here, depth) for _ in range(blocks))))
    return nn.ModuleList(levels)


def _initial(layer: Layer, slope: float = 1.0, factor: float = 1.0) -> Layer:
    """He's normal weights, for what comes in through a leaky ReLU of `slope` (1: as it is), times `factor`; no bias."""
    nn.init.kaiming_normal_(layer.weight, a=slope)
    layer.weight.data.mul_(factor)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
