"""Stages that are killed at any moment and run again."""

import contextlib
import multiprocessing
import random
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

MOMENTS = 25


def _run(start_method: str, main: Callable[..., None], options: dict[str, Any]) -> None:
    """In a process of a fork server, which would start workers of its own kind."""
    multiprocessing.set_start_method(start_method, force=True)
    main(**options)


def kill_and_repeat(
    processes: ForkServerContext,
    main: Callable[..., object],
    options: dict[str, Any],
    outputs: list[Path],
    forget: Callable[[], None] = lambda: None,
) -> None:
    """Run `main` of a stage whole, then kill it once in each 25th of its time, and run it again: the same outputs.

    A kill leaves no process behind, and no output that isn't whole. `forget` removes what `main` keeps from run to run;
    it is called whenever a run got to its end.
    """

    def started() -> BaseProcess:
        process = processes.Process(target=_run, args=(multiprocessing.get_start_method(), main, options))
        process.start()
        return process

    for _ in range(2):  # the first starts the server
        forget()
        begun = time.monotonic()
        started().join()
        seconds = time.monotonic() - begun
    whole = [path.read_bytes() for path in outputs]
    killed, draw = 0, random.Random(0)
    while killed < MOMENTS:
        for path in outputs:
            path.unlink(missing_ok=True)
        begun = time.monotonic()
        process = started()
        process.join((killed + draw.random()) / MOMENTS * seconds)
        workers = []
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
            workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.join()
        if process.exitcode == 0:
            seconds = min(seconds, time.monotonic() - begun)  # quicker than before
            forget()
        else:
            killed += 1
        assert psutil.wait_procs(workers, timeout=10)[1] == []
        for path, content in zip(outputs, whole, strict=True):
            assert not path.exists() or path.read_bytes() == content
    started().join()
    assert [path.read_bytes() for path in outputs] == whole
