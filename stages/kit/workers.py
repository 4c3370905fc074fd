"""Work in several processes, with the results in order."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

import torch

from stages.kit.errors import StageError
from stages.kit.memory import lower
from stages.kit.params import read_params
from stages.kit.quotas import room
from stages.kit.runtime import RuntimeConfig

Task = TypeVar("Task")
Result = TypeVar("Result")


def worker_count() -> int:
    """What `runtime.workers` says; where it is empty, as many as there is room for."""
    return read_params().section(RuntimeConfig, "runtime").workers or room()


def in_order(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """Yield `function(task)` for each task, computed by `worker_count` processes.

    Few results wait at a time, so that memory doesn't grow with the number of tasks.

    Raises:
        StageError: a process was killed, most likely for want of memory.
    """
    remaining, workers = iter(tasks), worker_count()
    waiting: deque[Future[Result]] = deque()
    with ProcessPoolExecutor(workers, initializer=_start_worker) as pool:
        try:
            waiting.extend(pool.submit(function, task) for task in islice(remaining, 2 * workers))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, task) for task in islice(remaining, 1))
        except BrokenProcessPool:
            raise StageError(f"a worker process was killed, perhaps for want of memory{lower('fetch')}") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent reports it
    torch.set_num_threads(1)
    end_with_parent()


def end_with_parent() -> None:
    """End this worker when its parent is killed: it would go on, and then wait for its next task forever."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
