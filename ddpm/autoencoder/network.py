"""A KL autoencoder (Kingma & Welling 2014, arXiv:1312.6114; Rombach et al. 2022, arXiv:2112.10752), and its latents.

Blocks and parameter names are those of `diffusers.AutoencoderKL` without attention and without the two 1 x 1
convolutions around the latents, so that weights move both ways without a table. A `patch` x `patch` block of pixels is
one position of the first convolution: it costs a fraction of what pixels cost, and is no part of diffusers' network.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ddpm.config import STRICT
from ddpm.diffusion.blocks import GroupNorm, Resample, ResnetBlock

LATENT_STD = 0.5
"""Standard deviation of normalised latents, near that of pixels: so a schedule's noise levels keep their meaning."""
LOG_VARIANCE = (-30.0, 20.0)
"""Limits of the logarithm of the posterior's variance, as in Rombach et al.'s code."""
NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AutoencoderConfig:
    """The autoencoder's shape.

    An image is seen in blocks of `patch` x `patch` pixels, then halved between the levels, so that one position of the
    latents, with `latent_channels` values, stands for `patch` * 2^(levels - 1) pixels each way. Each level has `blocks`
    residual blocks on the way down and one more on the way up.
    """

    channels: PositiveInt
    multipliers: tuple[PositiveInt, ...]
    blocks: PositiveInt
    patch: PositiveInt
    groups: PositiveInt
    latent_channels: PositiveInt

    def __post_init__(self) -> None:
        if self.channels % self.groups:
            raise ValueError(f"channels = {self.channels}: must be a multiple of groups = {self.groups}")
        if not self.multipliers:
            raise ValueError("multipliers must be one or more whole numbers")

    @property
    def factor(self) -> int:
        """Pixels, in width and height, that one position of the latents stands for."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    def latent_shape(self, size: int) -> tuple[int, int, int]:
        """`(C, H, W)` of the latents of a `size` x `size` image.

        Raises:
            ValueError: the size is no multiple of `factor`.
        """
        if size % self.factor:
            raise ValueError(f"images of {size} px have no latents: use a multiple of {self.factor}")
        return self.latent_channels, size // self.factor, size // self.factor


class Posterior(NamedTuple):
    """The normal law of an image's latents: its mean and the logarithm of its variance, `[B, C, H, W]` float32."""

    mean: Tensor
    log_variance: Tensor

    def draw(self, eps: Tensor) -> Tensor:
        """Latents from standard normal `eps` of the same shape."""
        return self.mean + (0.5 * self.log_variance).exp() * eps

    def kl(self) -> Tensor:
        """The Kullback-Leibler divergence of each value from N(0, 1) in nats, `[B, C, H, W]`."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance)


class Blocks(nn.Module):
    """Residual blocks of one resolution, and the way to the next, if there is one."""

    def __init__(self, widths: list[int], groups: int, down: Resample | None = None, up: Resample | None = None):
        super().__init__()
        self.resnets = nn.ModuleList(
            [ResnetBlock(inputs, outputs, None, 0.0, groups) for inputs, outputs in pairwise(widths)]
        )
        self.downsamplers = nn.ModuleList([down] if down else [])
        self.upsamplers = nn.ModuleList([up] if up else [])

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to another width and resolution."""
        for module in (*self.resnets, *self.downsamplers, *self.upsamplers):
            x = module(x)
        return x


class Encoder(nn.Module):
    """Blocks of pixels `[B, 3 * patch^2, H, W]` to `outputs` channels at the lowest resolution."""

    def __init__(self, config: AutoencoderConfig, outputs: int):
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        self.conv_in = nn.Conv2d(3 * config.patch**2, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for before, width in zip([widths[0], *widths], widths, strict=False):
            last = len(self.down_blocks) == len(widths) - 1
            down = None if last else Resample(width, up=False)
            self.down_blocks.append(Blocks([before] + [width] * config.blocks, config.groups, down=down))
        self.mid_block = Blocks([widths[-1]] * 3, config.groups)
        self.conv_norm_out = GroupNorm(config.groups, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The moments of the latents, mean above log variance."""
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents to blocks of pixels `[B, 3 * patch^2, H, W]`."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths = [config.channels * multiplier for multiplier in reversed(config.multipliers)]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Blocks([widths[0]] * 3, config.groups)
        self.up_blocks = nn.ModuleList()
        for before, width in zip([widths[0], *widths], widths, strict=False):
            last = len(self.up_blocks) == len(widths) - 1
            up = None if last else Resample(width, up=True)
            self.up_blocks.append(Blocks([before] + [width] * (config.blocks + 1), config.groups, up=up))
        self.conv_norm_out = GroupNorm(config.groups, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3 * config.patch**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """`[B, latent_channels, h, w]` to `[B, 3 * patch^2, H, W]`."""
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Autoencoder(nn.Module):
    """Images in [-1, 1] `[B, 3, H, W]` to the law of their latents, and latents to images; float32 both ways."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, 2 * config.latent_channels)
        self.decoder = Decoder(config)
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.eps = NORM_EPS
            elif isinstance(module, Resample) and not module.up:
                module.conv.padding = (0, 0)  # padded below and on the right alone

    def encode(self, images: Tensor) -> Posterior:
        """The law of the latents of `images`."""
        moments = self.encoder(F.pixel_unshuffle(images, self.config.patch)).float()
        mean, log_variance = moments.chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(*LOG_VARIANCE))

    def decode(self, z: Tensor) -> Tensor:
        """The images of latents; values beyond [-1, 1] are left as they are."""
        return F.pixel_shuffle(self.decoder(z), self.config.patch).float()

    def forward(self, images: Tensor, eps: Tensor) -> tuple[Tensor, Posterior]:
        """What becomes of `images` through latents drawn with standard normal `eps`, and the law of these."""
        posterior = self.encode(images)
        return self.decode(posterior.draw(eps)), posterior


class Codec:
    """Images to the latents that a denoiser learns, and back: the posterior's mean, normalised for each channel.

    `mean` and `std` `[C]` are those of the latents of the training set; normalised they have mean 0 and a standard
    deviation of `LATENT_STD`.
    """

    def __init__(self, autoencoder: Autoencoder, mean: Tensor, std: Tensor):
        self.autoencoder = autoencoder
        self.mean, self.scale = mean[:, None, None], std[:, None, None] / LATENT_STD

    def encode(self, images: Tensor) -> Tensor:
        """Latents `[B, C, h, w]` of images in [-1, 1] `[B, 3, H, W]`."""
        return (self.autoencoder.encode(images).mean - self.mean) / self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Images `[B, 3, H, W]`, about in [-1, 1], of latents `[B, C, h, w]`."""
        return self.autoencoder.decode(latents * self.scale + self.mean)


def channel_statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[C]` of each channel of `latents` `[N, 2, C, h, w]`, of which no copy is made."""
    variance, mean = torch.var_mean(latents, dim=(0, 1, 3, 4), correction=0)
    return mean, variance.sqrt()
