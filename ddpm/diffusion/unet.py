"""The noise-predicting U-Net (Ho et al. 2020, appendix B).

Blocks and parameter names are those of `diffusers.UNet2DModel`, so that weights move both ways without a table.
Shapes: B images, C channels, H = W pixels, E time embedding.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ddpm.config import STRICT
from ddpm.diffusion.blocks import Attention, GroupNorm, Resample, ResnetBlock


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UNetConfig:
    """The network's shape.

    `attention` names the resolutions, in feature-map pixels, that get self-attention, or levels from the lowest one on,
    which is -1, so that it suits images of any size. It has heads of `head_channels`; an empty one is one head, as in
    Ho et al. `groups` are those of every GroupNorm, 32 in Ho et al.; a `conditional`
    network is told the class of an image; `training.initial` gives it its `initial` weights. `conventions` are torch's,
    those of Ho et al.'s TensorFlow code, which the checkpoints google/ddpm-* have (`follow_tensorflow`), or those that
    `diffusers` starts from: torch's, with the cosines of the time embedding before its sines.
    """

    channels: int
    multipliers: tuple[int, ...]
    attention: tuple[int, ...]
    blocks: int
    dropout: float
    patch: int
    groups: int
    conditional: bool
    initial: Literal["zero", "xavier"]
    conventions: Literal["torch", "tensorflow", "diffusers"] = "torch"
    head_channels: PositiveInt | None = None

    def __post_init__(self) -> None:
        if self.groups < 1 or self.channels < 4 or self.channels % math.lcm(2, self.groups):
            message = f"must be even, at least 4, and a multiple of groups = {self.groups}"
            raise ValueError(f"channels = {self.channels}: {message}")
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError("multipliers must be one or more whole numbers, each at least 1")
        if self.blocks < 1 or self.patch < 1 or not 0 <= self.dropout < 1:
            raise ValueError("blocks and patch must be at least 1 and dropout from 0 to below 1")

    def ladder(self, size: int) -> list[int]:
        """The resolutions of the levels for `size` x `size` images: 48, 24, 12, 6.

        Raises:
            ValueError: a level that can't be halved, or an attention resolution that is no level.
        """
        levels = len(self.multipliers)
        divisor = self.patch * 2 ** (levels - 1)
        if size % divisor:
            raise ValueError(
                f"images of {size} px can't be halved through {levels} levels: use a multiple of {divisor}"
            )
        ladder = [size // self.patch // 2**level for level in range(levels)]
        missing = set(self.attention) - set(ladder) - set(range(-levels, 0))
        if missing:
            raise ValueError(f"attention at {min(missing)} px, but the levels of a {size} px image are {ladder}")
        return ladder

    def attended(self, size: int) -> list[bool]:
        """Which of the levels for `size` x `size` images have self-attention; errors as `ladder`."""
        ladder = self.ladder(size)
        return [side in self.attention or i - len(ladder) in self.attention for i, side in enumerate(ladder)]


def timestep_embedding(t: Tensor, dim: int, conventions: str = "torch") -> Tensor:
    """Sines and cosines of t `[B]` at `dim` / 2 geometric frequencies, float32 `[B, dim]`; cosines first in diffusers.

    From 1 down towards 1 / 10,000, which in TensorFlow's conventions is the last one.
    """
    closed = conventions == "tensorflow"
    intervals = dim // 2 - closed
    frequencies = torch.exp(-math.log(10_000) * torch.arange(dim // 2, device=t.device) / intervals)
    angles = t.float()[:, None] * frequencies  # [B, dim / 2]
    waves = [angles.sin(), angles.cos()]
    return torch.cat(waves[::-1] if conventions == "diffusers" else waves, dim=1)


class TimeEmbedding(nn.Module):
    """Two linear layers over the sinusoids."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.linear_1 = nn.Linear(channels, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, sinusoids: Tensor) -> Tensor:
        """`[B, channels]` to `[B, E]`."""
        return self.linear_2(F.silu(self.linear_1(sinusoids)))


class Level(nn.Module):
    """The residual blocks of one resolution: all are followed by attention, or none is."""

    def __init__(self, resnets: list[ResnetBlock], attentions: list[Attention]):
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)

    def block(self, index: int, x: Tensor, embedding: Tensor) -> Tensor:
        """One residual block and the attention behind it."""
        x = self.resnets[index](x, embedding)
        return self.attentions[index](x) if self.attentions else x


class DownLevel(Level):
    """A level on the way down: every result is kept for the way up. The last level has no `down`."""

    def __init__(self, resnets: list[ResnetBlock], attentions: list[Attention], down: Resample | None):
        super().__init__(resnets, attentions)
        self.downsamplers = nn.ModuleList([down] if down else [])

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Append to `skips` what `UpLevel` takes from it."""
        for index in range(len(self.resnets)):
            x = self.block(index, x, embedding)
            skips.append(x)
        for down in self.downsamplers:
            x = down(x)
            skips.append(x)
        return x


class UpLevel(Level):
    """A level on the way up: each block also gets a result from the way down."""

    def __init__(self, resnets: list[ResnetBlock], attentions: list[Attention], up: Resample | None):
        super().__init__(resnets, attentions)
        self.upsamplers = nn.ModuleList([up] if up else [])

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Take one of `skips` for each block."""
        for index in range(len(self.resnets)):
            x = self.block(index, torch.cat([x, skips.pop()], dim=1), embedding)
        for up in self.upsamplers:
            x = up(x)
        return x


class Bottom(Level):
    """The lowest resolution: two residual blocks with attention between them, whatever `attention` says."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """`[B, C, H, W]` to the same shape."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x, embedding)), embedding)


class UNet(nn.Module):
    """The network for `size` x `size` images of so many `classes`, if it is a conditional one, or for latents."""

    def __init__(self, config: UNetConfig, size: int, classes: int = 0, channels: int = 3):
        super().__init__()
        self.config = config
        attended = config.attended(size)
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        pixels, last = channels * config.patch**2, len(widths) - 1

        def resnet(inputs: int, outputs: int) -> ResnetBlock:
            return ResnetBlock(inputs, outputs, 4 * config.channels, config.dropout, config.groups)

        def attentions(channels: int, count: int) -> list[Attention]:
            return [Attention(channels, config.groups, config.head_channels) for _ in range(count)]

        self.conv_in = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(config.channels, 4 * config.channels)
        # The last row stands for no class.
        self.class_embedding = nn.Embedding(classes + 1, 4 * config.channels) if config.conditional else None
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for i, outputs in enumerate(widths):
            resnets = [resnet(width if j == 0 else outputs, outputs) for j in range(config.blocks)]
            down = Resample(outputs, up=False) if i < last else None
            self.down_blocks.append(DownLevel(resnets, attentions(outputs, attended[i] * config.blocks), down))
            skips += [outputs] * (config.blocks + (i < last))
            width = outputs
        self.mid_block = Bottom([resnet(width, width), resnet(width, width)], attentions(width, 1))
        for i, outputs in reversed(list(enumerate(widths))):
            inputs = [width] + [outputs] * config.blocks
            resnets = [resnet(channels + skips.pop(), outputs) for channels in inputs]
            up = Resample(outputs, up=True) if i else None
            self.up_blocks.append(UpLevel(resnets, attentions(outputs, attended[i] * len(resnets)), up))
            width = outputs
        self.conv_norm_out = GroupNorm(config.groups, width)
        self.conv_out = nn.Conv2d(width, pixels, 3, padding=1)
        if config.conventions == "tensorflow":
            follow_tensorflow(self)

    def forward(self, xt: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The output for x_t `[B, channels, size, size]` at t `[B]`, float32 whatever the autocast.

        `label` `[B]` is each image's class, or the number of classes for none; without labels all have none.
        """
        waves = timestep_embedding(t, self.config.channels, self.config.conventions)
        embedding = self.time_embedding(waves)  # [B, E]
        if self.class_embedding is not None:
            none = self.class_embedding.num_embeddings - 1
            embedding = embedding + self.class_embedding(torch.full_like(t, none) if label is None else label)
        x = self.conv_in(F.pixel_unshuffle(xt, self.config.patch))
        skips = [x]
        for level in self.down_blocks:
            x = level(x, embedding, skips)
        x = self.mid_block(x, embedding)
        for level in self.up_blocks:
            x = level(x, embedding, skips)
        x = self.conv_out(F.silu(self.conv_norm_out(x)))
        return F.pixel_shuffle(x, self.config.patch).float()


def follow_tensorflow(network: UNet) -> None:
    """Pad before a strided convolution on two sides only, and give norms their epsilon, as Ho et al.'s code does."""
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-6
        elif isinstance(module, Resample) and not module.up:
            module.conv.padding = (0, 0)


def last_layers(network: UNet) -> list[nn.Conv2d]:
    """The last layer of the network and of each residual branch of its convolutions."""
    return [network.conv_out, *(module.conv2 for module in network.modules() if isinstance(module, ResnetBlock))]
