"""Work that waits for the disk, done by a few threads whose results come back to the one loop of the relay."""

from __future__ import annotations

import queue
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar

from ucadi.relay.protocol import RefusalError

T = TypeVar("T")
Owner = TypeVar("Owner")

_THREADS = 4


class Work(Generic[Owner]):
    """Calls functions in threads, and hands the outcomes back in the thread that calls `collect`.

    `bell` becomes readable when there is something to collect; `ring` makes it so, from any thread.
    """

    def __init__(self) -> None:
        self.bell, self._rope = socket.socketpair()
        self.bell.setblocking(False)
        self._rope.setblocking(False)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="disk")
        self._finished: queue.SimpleQueue[tuple[Owner, Future[Any], Callable[[Any], None]]] = queue.SimpleQueue()
        self._under_way: Counter[Owner] = Counter()

    def begin(self, owner: Owner, function: Callable[[], T], then: Callable[[T], None]) -> None:
        """Calls `function` in a thread; `then`, with its result, is for `collect` to call."""
        self._under_way[owner] += 1

        def finish(future: Future[T]) -> None:
            self._finished.put((owner, future, then))
            self.ring()

        self._pool.submit(function).add_done_callback(finish)

    def collect(self, failed: Callable[[Owner, RefusalError | OSError], None]) -> None:
        """Calls the `then` of all that is finished; `failed` for what raised a RefusalError or an OSError."""
        with suppress(BlockingIOError):
            self.bell.recv(4096)
        while not self._finished.empty():
            owner, future, then = self._finished.get()
            self._under_way[owner] -= 1
            if not self._under_way[owner]:
                del self._under_way[owner]
            try:
                then(future.result())
            except (RefusalError, OSError) as error:
                failed(owner, error)

    def count(self, belongs: Callable[[Owner], bool]) -> int:
        """How much is under way for owners of whom `belongs` is true."""
        return sum(number for owner, number in self._under_way.items() if belongs(owner))

    def ring(self) -> None:
        """Makes `bell` readable."""
        with suppress(BlockingIOError):
            self._rope.send(b"!")

    def finish(self) -> None:
        """Waits for all that is under way; it can still be collected."""
        self._pool.shutdown(wait=True)

    def close(self) -> None:
        """Closes the bell."""
        self.bell.close()
        self._rope.close()
