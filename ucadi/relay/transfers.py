"""Files on their way through the relay: how much of each may be in memory, and what comes next.

A receiving transfer takes from the budget when it asks for a chunk and gives back when the chunk is in the
file; a sending one takes when a chunk is handed to libzmq and gives back when libzmq has let go of it.
Whatever the number of peers, the chunks in memory thus never exceed the budget.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Final

import zmq

from ucadi.relay.protocol import BUDGET, CHUNK, CREDIT, Chunk, Code, RefusalError, Want
from ucadi.relay.store import Incoming


class Budget:
    """Bytes of chunks that may be in memory together."""

    def __init__(self, limit: int = BUDGET) -> None:
        self._limit: Final = limit
        self._taken = 0

    def has_room(self) -> bool:
        """Whether a whole chunk is left."""
        return self._taken + CHUNK <= self._limit

    def take(self, size: int) -> None:
        """Takes `size` bytes, at most a chunk, of the room that there is."""
        self._taken += size

    def give(self, size: int) -> None:
        """Gives back bytes that were taken."""
        self._taken -= size

    def share(self, transfers: int) -> int:
        """Chunks that each of so many transfers may have on their way: a slow one must not starve the others."""
        return max(1, min(CREDIT, self._limit // CHUNK // max(1, transfers)))


class Receiving:
    """A file that a peer puts here. `active_at` is when it last made progress, on the monotonic clock."""

    def __init__(self, request: int, incoming: Incoming, budget: Budget, now: float) -> None:
        self.incoming: Final = incoming
        self.active_at = now
        self._request = request
        self._budget = budget
        self._asked = incoming.received
        self._on_way: dict[int, int] = {}

    @property
    def is_complete(self) -> bool:
        """Whether every byte has arrived."""
        return self.incoming.received == self.incoming.size

    def next_want(self, share: int) -> Want | None:
        """What to ask the peer for now, if anything, and if fewer than `share` chunks are on their way."""
        length = min(CHUNK, self.incoming.size - self._asked)
        if not length or len(self._on_way) >= share:
            return None
        self._budget.take(length)
        want = Want(self._request, self._asked, length)
        self._on_way[want.offset] = length
        self._asked += length
        return want

    def accept(self, chunk: Chunk, now: float) -> None:
        """Adds a chunk that was asked for; one that was not, or was asked for twice, changes nothing.

        After a gap, which only a peer that reorders can make, all that is missing is asked for again.
        """
        length = self._on_way.pop(chunk.offset, None)
        if length is None:
            return
        self._budget.give(length)
        if chunk.offset != self.incoming.received or len(chunk.data) != length:
            self._forget()
            return
        self.incoming.append(chunk.data)
        self.active_at = now

    def close(self) -> None:
        """Gives back the budget, and keeps what has arrived."""
        self._forget()
        self.incoming.suspend()

    def _forget(self) -> None:
        for length in self._on_way.values():
            self._budget.give(length)
        self._on_way.clear()
        self._asked = self.incoming.received


class Sending:
    """A file that a peer gets from here; closes `handle` at its end."""

    def __init__(self, request: int, name: str, handle: int, budget: Budget, now: float) -> None:
        self.name: Final = name
        self.size: Final = os.fstat(handle).st_size
        self.active_at = now
        self._request = request
        self._handle = handle
        self._budget = budget
        self._wanted: deque[Want] = deque()
        self._on_way: deque[tuple[zmq.MessageTracker, int]] = deque()

    def want(self, want: Want, now: float) -> None:
        """Notes what the peer asks for; a RefusalError if that is more than its credit or beyond the file."""
        if len(self._wanted) >= CREDIT or want.offset + want.length > self.size:
            raise RefusalError(Code.MALFORMED, "more was asked for than the credit or the file allows")
        self._wanted.append(want)
        self.active_at = now

    def next_chunk(self, share: int) -> Chunk | None:
        """What to send now, if anything was asked for, and if fewer than `share` chunks are on their way."""
        self._let_go()
        if not self._wanted or len(self._on_way) >= share:
            return None
        want = self._wanted.popleft()
        self._budget.take(want.length)
        data = os.pread(self._handle, want.length, want.offset)
        if len(data) != want.length:
            self._budget.give(want.length)
            raise RefusalError(Code.GONE, f"{self.name} has changed")
        return Chunk(self._request, want.offset, data)

    def sent(self, size: int, tracker: zmq.MessageTracker) -> None:
        """Notes that a chunk of `size` bytes was handed to libzmq, whose `tracker` tells when it has let go."""
        self._on_way.append((tracker, size))

    def is_waiting(self) -> bool:
        """Whether more was asked for than its share lets it send now."""
        return bool(self._wanted)

    def close(self) -> None:
        """Closes the file; chunks that libzmq still holds are given back when it lets go (see `is_drained`)."""
        self._wanted.clear()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def is_drained(self) -> bool:
        """Whether libzmq holds no chunk any more."""
        self._let_go()
        return not self._on_way

    def _let_go(self) -> None:
        while self._on_way and self._on_way[0][0].done:
            self._budget.give(self._on_way.popleft()[1])
