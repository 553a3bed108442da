"""What threads give comes in order, is bounded, and passes errors on."""

import threading
import time

import numpy as np
import pytest

from cellscribe.parallel import in_order


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(threads):
    def slow_at_first(i: int) -> int:
        time.sleep(0.02 if i == 0 else 0)
        return i * i

    assert list(in_order(slow_at_first, range(20), threads)) == [i * i for i in range(20)]


def test_no_more_items_are_read_than_threads_can_take():
    read: list[int] = []

    def items():
        for i in range(50):
            read.append(i)
            yield i

    results = in_order(lambda i: i, items(), 2)
    for done in range(50):
        assert next(results) == done
        assert len(read) <= done + 3


def test_the_threads_are_as_many_as_asked():
    names: set[str] = set()

    def note(_: int) -> None:
        names.add(threading.current_thread().name)
        time.sleep(0.01)

    list(in_order(note, range(12), 3))
    assert len(names) == 3


def test_an_error_is_raised_where_its_result_would_have_come():
    def fail(i: int) -> int:
        if i == 3:
            raise ValueError("three")
        return i

    results = in_order(fail, range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_no_items_give_no_results():
    assert list(in_order(np.sqrt, [], 2)) == []
