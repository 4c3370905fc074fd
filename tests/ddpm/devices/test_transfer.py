"""What is made for a device while it computes: in order, ahead by one, and on the CPU when it is asked for."""

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch

from ddpm.devices.transfer import ahead, in_a_thread


def test_a_thread_makes_one_more_than_was_asked_for() -> None:
    begun = [threading.Event() for _ in range(5)]
    asked = iter(range(5))

    def make(number: int) -> tuple[int, int]:
        begun[number].set()
        return number, threading.get_ident()

    def makes() -> Iterator[Callable[[], tuple[int, int]]]:
        for number in asked:
            yield partial(make, number)

    coming = in_a_thread(makes())
    assert not begun[0].is_set()
    first, thread = next(coming)
    assert (first, thread != threading.get_ident()) == (0, True)
    assert begun[1].wait(10)
    assert not begun[2].is_set()
    assert [number for number, _ in coming] == [1, 2, 3, 4]


def test_an_error_comes_where_its_result_would_have_come() -> None:
    coming = in_a_thread(iter([lambda: 1, lambda: 1 // 0, lambda: 3]))
    assert next(coming) == 1
    with pytest.raises(ZeroDivisionError):
        next(coming)


def test_a_cpu_makes_what_is_asked_for_and_no_more() -> None:
    made = []
    coming = ahead((partial(lambda i: made.append(i) or (torch.tensor(i),), i) for i in range(3)), torch.device("cpu"))
    assert next(coming)[0] == 0
    assert made == [0]
