"""Paths between two noises. Each takes a, b `[C, H, W]` and weights w `[F]` in [0, 1] to `[F, C, H, W]`."""

from collections.abc import Callable

import torch
from torch import Tensor


def lerp(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """The straight line, as in the report. Its middle has half the variance of noise, so it leaves the shell."""
    w = w.view(-1, 1, 1, 1)
    return (1 - w) * a + w * b


def slerp(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """The great circle (Shoemake 1985), which keeps the norm of noise; the line where a and b are parallel."""
    # On the CPU, because not every device has float64.
    one, other, w64 = (tensor.cpu().double() for tensor in (a, b, w.view(-1, 1, 1, 1)))
    cosine = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
    angle = torch.arccos(cosine.clamp(-1, 1))
    if torch.sin(angle) < 1e-6:
        return lerp(a, b, w)
    path = (torch.sin((1 - w64) * angle) * one + torch.sin(w64 * angle) * other) / torch.sin(angle)
    return path.to(a)


PATHS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"lerp": lerp, "slerp": slerp}
