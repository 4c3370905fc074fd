"""Progress bars, and loops that stop between two steps."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from stages.kit.launch import first_process


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
