"""Too little memory, in one line with the parameters to lower."""

import errno
import re

import torch

from ddpm.config import ConfigError
from stages.kit.params import read_params

BATCH = ("runtime.batch_images", "64, for LPIPS 128")
WORKERS = ("runtime.workers", "as many as there is room for")
TO_LOWER = {
    "fetch": [WORKERS],
    "extract": [WORKERS],
    "autoencode": [("train.micro_batch_images", "all images of a step that a process has"), BATCH],
    "train": [("train.micro_batch_images", "all images of a step that a process has")],
    "tune": [("train.micro_batch_images", "all images of a step that a process has")],
    "gan": [("train.micro_batch_images", "all images of a step that a process has")],
    "sample": [BATCH],
    "interpolate": [BATCH, ("interpolate.pairs", "")],
    "rank": [BATCH, ("rank.samples", "")],
    "evaluate": [BATCH, ("sample.count", "")],
    "likelihood": [BATCH, ("likelihood.images", "")],
    "page": [("interpolate.shown", ""), ("rank.best", "")],
}
"""Of each stage the parameters that its memory grows with, and what an empty one means."""

WORDS = (
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "alloc_failed",  # of cuBLAS and cuDNN
    "out of memory",
    "failed to map segment",  # of a library that is loaded
    "can't start new thread",  # for want of room for its stack
)
"""Of errors that have no type of their own, in small letters."""


def out_of_memory(error: BaseException) -> bool:
    """Whether the device or the CPU has too little memory."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | ImportError) and any(words in str(error).lower() for words in WORDS)


def advice(stage: str, error: BaseException) -> str:
    """How much memory was missing, where the error says it, and what to lower."""
    wanted = re.search(r"allocate ([\d.]+ \w+)", str(error))
    return f"out of memory{f', {wanted[1]} more were wanted' if wanted else ''}{lower(stage)}"


def lower(stage: str) -> str:
    """`: lower PARAMETER, now VALUE`, with each parameter of `stage`; nothing where it has none."""
    named = []
    for name, empty in TO_LOWER.get(stage, []):
        *section, key = name.split(".")
        try:
            value = read_params().mapping(*section).get(key)
        except (ConfigError, OSError):
            continue
        named.append(f"{name}, now {f'empty ({empty})' if value is None else value}")
    return f": lower {' or '.join(named)}" if named else ""
