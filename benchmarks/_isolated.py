"""Other programs as they are: loaded from a file, in a folder and a process of their own, without their output."""

import contextlib
import functools
import importlib.util
import io
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from stages.kit.workers import end_with_parent

P = ParamSpec("P")
R = TypeVar("R")


def recorded(make: Callable[P, R], made: list[R]) -> Callable[P, R]:
    """A stand-in for `make` that keeps in `made` what it returns: what a peer builds inside its own function."""

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        made.append(make(*args, **kwargs))
        return made[-1]

    return call


def module_at(script: Path) -> Any:
    """The script as a module: its functions, and nothing of it run."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None:
        raise ImportError(f"{script}: no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_new_process(threads: int, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """What `function` returns in a new process with so many threads, which loads torch with today's environment."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent) as pool:
        return pool.submit(_started, threads, functools.partial(function, *args, **kwargs)).result()


def isolated(threads: int, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """The same, and what `function` prints is thrown away."""
    return in_new_process(threads, _quietly, functools.partial(function, *args, **kwargs))


def _started(threads: int, call: Callable[[], R]) -> R:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return call()


def _quietly(call: Callable[[], R]) -> R:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return call()
