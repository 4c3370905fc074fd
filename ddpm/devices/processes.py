"""What the processes of one distributed run tell each other; with a single process, nothing.

Whoever starts them sets up `torch.distributed`, with gloo for tensors on the CPU whatever the device.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_count() -> tuple[int, int]:
    """The number of this process, from 0, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of all processes' `values`."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def any_process(flag: bool) -> bool:
    """Whether one of the processes says so."""
    if not dist.is_initialized():
        return flag
    dist.all_reduce(said := torch.tensor(int(flag)), dist.ReduceOp.MAX)
    return bool(said)


def from_first(value: Any) -> Any:
    """What the first process has, in all of them."""
    if dist.is_initialized():
        dist.broadcast_object_list(box := [value], src=0)
        return box[0]
    return value
