"""Loading while training: the next batches are made in a thread while the network works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

AHEAD = 2
"""Batches that wait: one is enough where loading is faster than training, two cover a slow one in between."""


def made_ahead(make: Callable[[S], T], items: Iterable[S]) -> Generator[tuple[S, T]]:
    """Each item with what `make` makes of it, in order; errors of `make` are raised where its item stands.

    One thread, as HDF5 lets only one at a time in. It has ended when the iterator is closed.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loading")
    waiting: deque[tuple[S, Future[T]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(make, item)))
            if len(waiting) > AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
