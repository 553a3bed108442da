"""Work on many pieces by several threads, with what comes out in order and no more pieces in memory than needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`function` of each item, in the order of the items.

    Threads help where `function` spends its time in numpy and scipy, which let others run meanwhile. Each library is
    held to one thread of its own: they do not fight for the cores, and the numbers do not depend on `threads`.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), ThreadPoolExecutor(max(1, threads)) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            # one more than there are threads, so that none waits while the next item is read
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
