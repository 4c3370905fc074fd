"""The processes of a distributed run, as torchrun starts them: they begin, fail and end together."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from ddpm.config import ConfigError
from stages.kit.errors import StageError
from stages.kit.launch import GROUP, first_process, process_count

PATIENCE = timedelta(days=1)
"""How long one waits for another that is at work; that one has ended is noticed at once."""


@contextmanager
def distributed() -> Iterator[None]:
    """Join the processes that torchrun started with this one; without it, or with a single one, do nothing.

    Raises:
        StageError: they don't find each other, or one of them ends.
    """
    if process_count() == 1:
        yield
        return
    try:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    except (ValueError, dist.DistError) as error:
        reason = str(error).splitlines()[0]
        raise StageError(f"{', '.join(GROUP)} are set, but not as torchrun sets them: {reason}") from None
    try:
        yield
    except RuntimeError as error:
        if not lost_another(error):
            raise
        raise StageError("another process of this run ended; the same command continues from the last state") from None
    finally:
        dist.destroy_process_group()


def lost_another(error: RuntimeError) -> bool:
    """Whether `error` is about a connection to another process; gloo has no type for it."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


@contextmanager
def together() -> Iterator[None]:
    """What goes wrong in one process ends all, and the first one says it; inside, they must not communicate."""
    if not dist.is_initialized():
        yield
        return
    reason = None
    try:
        yield
    except (StageError, ConfigError, OSError) as error:
        reason = str(error)
    reasons: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(reasons, reason)
    for first_reason in filter(None, reasons):
        fail_together(first_reason)


def fail_together(reason: str) -> None:
    """End with an error that every process has: the first one says it."""
    if first_process():
        raise StageError(reason)
    sys.exit(1)
