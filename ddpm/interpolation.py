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
    cosine = torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0)
    angle = torch.arccos(cosine.clamp(-1, 1))
    if torch.sin(angle) < 1e-6:
        return lerp(a, b, w)
    w = w.double().view(-1, 1, 1, 1)
    path = (torch.sin((1 - w) * angle) * a + torch.sin(w * angle) * b) / torch.sin(angle)
    return path.to(a.dtype)


PATHS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"lerp": lerp, "slerp": slerp}
