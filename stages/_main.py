"""What every stage does around its work: paths from the command line, errors in one line, progress, the device."""

import argparse
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass
from tqdm import tqdm

from ddpm.config import STRICT, ConfigError
from stages._io import repository_root
from stages._params import Params


class StageError(Exception):
    """Something the user can mend; the message is one line: what is wrong, where, what would be right."""


def run(main: Callable[..., None]) -> None:
    """Call `main` with one path per parameter from the command line; report what a user can mend in one line."""
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(prog=f"python -m stages.{name}", description=inspect.getdoc(main))
    for parameter in inspect.signature(main).parameters:
        parser.add_argument(parameter, type=Path, metavar=parameter.upper())
    arguments = vars(parser.parse_args())
    started = time.monotonic()
    try:
        main(**arguments)
    except (StageError, ConfigError, OSError) as error:
        sys.exit(f"{name}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; the same command starts it again" if first_process() else 1)
    if first_process():
        _log(name, time.monotonic() - started)


def first_process() -> bool:
    """Whether this is the process that speaks and writes, the only one unless torchrun started several."""
    return os.environ.get("RANK", "0") == "0"


def _log(name: str, seconds: float) -> None:
    """Durations go here and to the terminal, never into an output: two runs must give the same bytes."""
    print(f"{name}: {seconds:.1f} s", file=sys.stderr)
    file = repository_root() / ".cache" / "log" / "stages.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as log:
        log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S},{name},{seconds:.1f}\n")


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


def progress(total: int | None, unit: str, *, initial: int = 0, label: str | None = None) -> tqdm:
    """A progress bar on stderr with rate and time left; a line every half minute where stderr is no terminal."""
    interval = 0.2 if sys.stderr.isatty() else 30.0
    return tqdm(
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
