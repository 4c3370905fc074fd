"""Building blocks of networks for images; names of parameters are those of `diffusers`.

Shapes: B images, C channels, H = W pixels, E time embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """torch's, in the number format of what comes in: in float32, as autocast has it on CUDA, it moves more bytes."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, ...]` to the same shape and type."""
        if not torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class ResnetBlock(nn.Module):
    """Two convolutions around the time embedding, if there is one, with a residual connection."""

    def __init__(self, inputs: int, outputs: int, embedding: int | None, dropout: float, groups: int):
        super().__init__()
        self.norm1 = GroupNorm(groups, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, outputs) if embedding else None
        self.norm2 = GroupNorm(groups, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """`[B, inputs, H, W]` and `[B, E]` to `[B, outputs, H, W]`."""
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is not None and embedding is not None:
            h = h + self.time_emb_proj(F.silu(embedding))[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    """Self-attention over all pixels in heads of so many channels, with a residual connection."""

    def __init__(self, channels: int, groups: int, head_channels: int | None = None):
        super().__init__()
        self.heads = channels // (head_channels or channels)
        if head_channels and channels % head_channels:
            raise ValueError(f"head_channels = {head_channels}: attention has {channels} channels, no multiple of that")
        self.group_norm = GroupNorm(groups, channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to the same shape."""
        h = self.group_norm(x).flatten(2).transpose(1, 2)  # [B, HW, C]
        h = attend(self.to_q(h), self.to_k(h), self.to_v(h), self.heads)
        return x + self.to_out[0](h).transpose(1, 2).unflatten(2, x.shape[2:])


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int = 1) -> Tensor:
    """softmax(q k^T / sqrt(D)) v in each of the `heads` of D channels, `[B, S, heads * D]` each."""
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # [B, heads, S, D]
    if q.is_cuda:
        h = F.scaled_dot_product_attention(q, k, v)
    else:
        # torch's fused one takes three times as long on a CPU, in bfloat16 and with its backward pass.
        scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
        h = scores.softmax(dim=3, dtype=torch.float32).to(v.dtype) @ v
    return h.transpose(1, 2).flatten(2)


class Resample(nn.Module):
    """Half the resolution by a strided convolution, or twice by nearest neighbour and a convolution."""

    def __init__(self, channels: int, *, up: bool):
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, C, H / 2, W / 2]` or `[B, C, 2 H, 2 W]`."""
        if self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        elif self.conv.padding == (0, 0):
            x = F.pad(x, (0, 1, 0, 1))  # below and on the right
        return self.conv(x)
