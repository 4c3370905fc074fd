"""Exponential averages of a network's weights."""

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from ddpm.training.recipe import ema_decay_at

M = TypeVar("M", bound=nn.Module)


def averages_of(model: M, decays: Sequence[float]) -> list[M]:
    """A copy of `model` for the average by each of `decays`, which no gradient reaches."""
    return [copy.deepcopy(model).requires_grad_(False).eval() for _ in decays]


def move_averages(
    averages: Sequence[list[Tensor]], parameters: list[Tensor], decays: Sequence[float], step: int
) -> None:
    """Move each average of the `parameters` towards them, after `step` updates before this one."""
    with torch.no_grad():  # or every step would add to a graph that is never freed
        for averaged, decay in zip(averages, decays, strict=True):
            torch._foreach_lerp_(averaged, parameters, 1 - ema_decay_at(step, decay))
