import os
import signal
import time

import psutil
import pytest

from stages.kit.errors import StageError
from stages.kit.workers import in_order


def slow_square(number: int) -> int:
    time.sleep(0.02 * (number % 3))  # so that they don't end in the order in which they began
    return number * number


def end_itself(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    if number == 3:
        raise StageError("the fourth")
    return number


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_few_wait(write_params, workers):
    write_params({"runtime.workers": workers})
    asked = []

    def tasks():
        for number in range(30):
            asked.append(number)
            yield number

    for number, result in enumerate(in_order(slow_square, tasks())):
        assert result == number * number
        assert len(asked) <= number + 1 + 2 * workers
    assert len(asked) == 30


def test_a_killed_worker_is_one_line_and_no_hang():
    before = psutil.Process().children()
    with pytest.raises(StageError, match=r"a worker process was killed.* lower runtime\.workers, now"):
        list(in_order(end_itself, range(20)))
    assert psutil.Process().children() == before


def test_a_workers_error_is_the_callers():
    with pytest.raises(StageError, match="the fourth"):
        list(in_order(fail, range(20)))
