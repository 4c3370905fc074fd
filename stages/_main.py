"""What every stage has around its work: its kind of error, its share of processes, progress, the device."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass
from tqdm import tqdm

from ddpm.config import STRICT, ConfigError
from stages._params import Params


class StageError(Exception):
    """Something the user can mend; the message is one line: what is wrong, where, what would be right."""


def first_process() -> bool:
    """Whether this is the process that speaks and writes, the only one unless torchrun started several."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def stop_request() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, for loops that stop between two steps rather than anywhere in one."""
    event = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: event.set()) for number in signals]
    try:
        yield event
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


class _Lines:
    """Stands for stderr where that is no terminal: what tqdm would write over and over becomes a line each time."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


def progress(total: int | None, unit: str, *, initial: int = 0, label: str | None = None) -> tqdm:
    """A progress bar on stderr with rate and time left; a line every half minute where stderr is no terminal."""
    terminal = sys.stderr.isatty()
    interval = 0.2 if terminal else 30.0
    return tqdm(
        file=None if terminal else _Lines(),
        total=total,
        initial=initial,
        unit=unit,
        unit_scale=unit == "B",
        desc=label,
        mininterval=interval,
        maxinterval=interval,
        dynamic_ncols=True,
        disable=not first_process(),
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RuntimeConfig:
    """What no output's content depends on, beyond the rounding of another kind of device."""

    device: str
    threads: PositiveInt
    compile: bool
    save_every_seconds: NonNegativeFloat


def setup(params: Params) -> torch.device:
    """The device that `runtime.device` asks for (`auto`: CUDA where there is one), and `runtime.threads` threads.

    Of several processes on a machine each gets a CUDA device of its own.
    """
    runtime = params.section(RuntimeConfig, "runtime")
    torch.set_num_threads(runtime.threads)
    name = runtime.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        device = torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"params.yaml: runtime.device = {runtime.device!r}: {reason}; try auto or cpu") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
