"""Tensors made on the CPU for a device: to CUDA they are sent ahead, so that making them does not hold it up."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

R = TypeVar("R")
S = TypeVar("S", bound=Sequence[Tensor | None])

Make = Callable[[], S]
"""Makes tensors, or None where there are none, and sends them to the device."""


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; to CUDA from pinned memory, so that neither host nor device waits for the copy."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def ahead(makes: Iterable[Make[S]], device: torch.device) -> Iterator[S]:
    """What each of `makes` returns, in order; on CUDA a thread makes and sends the next on a stream of its own."""
    if device.type != "cuda":
        yield from (make() for make in makes)
        return
    side = torch.cuda.Stream(device)

    def aside(make: Make[S]) -> tuple[S, torch.cuda.Event]:
        with torch.cuda.stream(side):
            return make(), side.record_event()

    for made, copied in in_a_thread(partial(aside, make) for make in makes):
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for tensor in made:
            if tensor is not None:
                tensor.record_stream(current)  # its memory is kept until that stream has used it
        yield made


def in_a_thread(calls: Iterable[Callable[[], R]]) -> Iterator[R]:
    """What each of `calls` returns, in order; a thread makes one call more than has been asked for."""
    with ThreadPoolExecutor(1) as maker:
        coming: deque[Future[R]] = deque()
        for call in calls:
            coming.append(maker.submit(call))
            if len(coming) > 1:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
