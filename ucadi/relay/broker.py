"""The relay: one loop over one ROUTER socket, moving the files of one directory, never looking inside.

The loop alone touches the sockets and the transfers; what waits for the disk (digests of whole files,
flushing) is done by a few threads, which hand their results back to the loop. All that must outlast a
crash is in the directory, so a relay that is killed and started again goes on where it was.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Self, TypeVar

import zmq

from ucadi.errors import RelayError
from ucadi.files import allow_open_files
from ucadi.relay import protocol
from ucadi.relay.admission import Admission, Entrance, Pace, Peers
from ucadi.relay.desk import Desk, RelayLimits
from ucadi.relay.protocol import (
    Chunk,
    Code,
    Done,
    File,
    Get,
    Hello,
    List,
    Message,
    Peer,
    Put,
    RefusalError,
    Refuse,
    Want,
    Welcome,
)
from ucadi.relay.resources import resident_bytes, return_memory
from ucadi.relay.store import Entry, Incoming, Store
from ucadi.relay.transfers import Budget, Receiving, Sending
from ucadi.relay.work import Work

T = TypeVar("T")

Log = Callable[[str, Mapping[str, Any]], None]
"""Takes an event's name and its fields: names of peers and files, sizes in bytes, reasons. Nothing secret."""

_MESSAGES_A_TURN = 64
_TICK_MS = 500
_LINGER_MS = 500
"""How long a relay that stops lets its last answers leave, in milliseconds."""
_STARVED_MS = 5
"""How soon to look again whether libzmq has let go of chunks, for which it gives no signal."""


class Route(NamedTuple):
    """Where a request came from: the authenticated key, the connection that answers go to, and its number."""

    key: bytes
    connection: bytes
    request: int


class Broker:
    """Serves `store` to the keys that `peers` gives, which is asked again twice a second.

    `secret` is the relay's own transport key. Call `bind`, then `run`, at last `close`.
    """

    def __init__(
        self, store: Store, secret: bytes, peers: Peers, *, limits: RelayLimits | None = None, log: Log | None = None
    ) -> None:
        self._limits: Final = limits or RelayLimits()
        self._desk: Final = Desk(store, self._limits)
        self._log: Final = log or (lambda _event, _fields: None)
        self._read_peers: Final = peers
        self._peers: Mapping[bytes, Peer] = peers()
        self._budget: Final = Budget()
        self._transfers: dict[Route, Receiving | Sending] = {}
        self._hungry: dict[Route, None] = {}
        self._draining: list[Sending] = []
        self._paces: dict[bytes, Pace] = {}
        self._ticked_at = 0.0
        self._tolerated_bytes = resident_bytes() + self._limits.memory_bytes
        self._denials = Pace(rate=2, burst=20, tokens=20, at=time.monotonic())

        self._stopping = False
        self._work: Final = Work[Route]()
        allow_open_files(2 * self._limits.connections)  # at the limit, libzmq can accept nobody
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 64)
        self._gate: Final = Admission(self._context, lambda: self._peers, self._limits.connections)
        self._poller: Final = zmq.Poller()
        self._poller.register(self._gate.socket, zmq.POLLIN)
        self._poller.register(self._work.bell, zmq.POLLIN)
        self._entrance: Final = Entrance(self._context, secret, self._poller)

    def bind(self, address: str) -> str:
        """Listens at `tcp://HOST:PORT` (port 0: any) and returns the address with the port that it is."""
        try:
            return self._entrance.bind(address)
        except zmq.ZMQError as error:
            raise RelayError(
                f"{address}: {error.strerror}", hint="--bind tcp://HOST:PORT, an address of this machine"
            ) from None

    def run(self) -> None:
        """Serves until `stop`."""
        while not self._stopping:
            starved = self._feed()
            self._poller.poll(_STARVED_MS if starved else _TICK_MS)
            self._admit()
            self._work.collect(self._fail)
            self._read()
            self._tick(time.monotonic())

    def stop(self) -> None:
        """Makes `run` return soon. Safe in a signal handler and from other threads."""
        self._stopping = True
        self._work.ring()

    def close(self) -> None:
        """Lets files that are complete reach the disk and last answers leave, and closes everything."""
        self._work.finish()
        self._work.collect(self._fail)
        for route in list(self._transfers):
            self._drop(route)
        self._entrance.close(linger=_LINGER_MS)
        self._context.destroy(linger=_LINGER_MS)
        self._work.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # what comes in

    def _admit(self) -> None:
        for address in self._gate.answer_all(self._entrance.count()):
            if self._denials.allows(time.monotonic()):
                self._log("denied", {"from": address})

    def _read(self) -> None:
        for _ in range(_MESSAGES_A_TURN):
            try:
                connection = self._entrance.router.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            frames: list[memoryview] = []
            user = ""
            while self._entrance.router.getsockopt(zmq.RCVMORE):
                frame = self._entrance.router.recv(copy=False)
                if not frames:
                    user = str(frame.get("User-Id") or "")
                if len(frames) <= protocol.MAX_PARTS:  # one too many shows what it is; the rest is not kept
                    frames.append(frame.buffer)
            self._handle(bytes.fromhex(user), connection, frames)
            self._feed()  # at once, so that the peer has something to do meanwhile

    def _handle(self, key: bytes, connection: bytes, frames: list[memoryview]) -> None:
        """Understands and answers one message of an admitted key."""
        route = Route(key, connection, 0)
        try:
            peer = self._peers.get(key)
            if peer is None:
                raise RefusalError(Code.UNKNOWN_KEY, "this key is not in the roster any more")
            message = protocol.parse(frames)
            route = Route(key, connection, message.request)
            if not isinstance(message, Chunk | Want | Done) and not self._pace(key).allows(time.monotonic()):
                raise RefusalError(Code.SLOW_DOWN, "too many requests in a second")
            self._answer(route, peer, message)
        except RefusalError as refusal:
            self._refuse(route, refusal)

    def _answer(self, route: Route, peer: Peer, message: Message) -> None:
        transfer = self._transfers.get(route)
        match message, transfer:
            case Hello(), _:
                self._send(route, Welcome(route.request, peer.name, peer.coordinator, self._limits.file_bytes))
            case List(), _:
                self._begin(route, lambda: self._desk.page(peer, message), lambda page: self._send(route, page))
            case Put(), None:
                self._desk.check(peer, message)
                self._drop_older(route, message.name)
                self._begin(route, lambda: self._desk.receive(message), lambda got: self._begin_put(route, got))
            case Get(), None:
                name = message.name
                self._begin(route, lambda: self._desk.open(peer, name), lambda got: self._begin_get(route, *got))
            case Chunk(), Receiving():
                transfer.accept(message, time.monotonic())
                self._advance(route, transfer)
            case Want(), Sending():
                transfer.want(message, time.monotonic())
                self._hungry[route] = None
            case Done(), Sending():
                self._log("sent", {"peer": peer.name, "name": transfer.name, "size": transfer.size})
                self._drop(route)
            case Done(), None:
                pass  # it was dropped as idle, but had all been sent
            case Chunk(), None if self._work.count(lambda other: other == route):
                pass  # all has arrived and is being published; this is a chunk once more
            case ((Chunk() | Want()), None):
                raise RefusalError(Code.GONE, "no such transfer is under way: begin it again")
            case _:
                raise RefusalError(Code.MALFORMED, f"{type(message).__name__} is not expected here")

    def _begin(self, route: Route, function: Callable[[], T], then: Callable[[T], None]) -> None:
        """Begins work in a thread for a request, unless its peer has too much under way; `then` answers it."""
        transfers = sum(other.key == route.key for other in self._transfers)
        if transfers + self._work.count(lambda other: other.key == route.key) >= self._limits.transfers_per_peer:
            raise RefusalError(Code.SLOW_DOWN, "too much is under way at once")
        self._work.begin(route, function, then)

    def _fail(self, route: Route, error: RefusalError | OSError) -> None:
        if isinstance(error, OSError):
            error = RefusalError(Code.FAILED, f"the relay's disk fails: {error.strerror}")
        self._refuse(route, error)

    def _pace(self, key: bytes) -> Pace:
        rate = self._limits.requests_per_second
        return self._paces.setdefault(key, Pace(rate, 2 * rate, 2 * rate, time.monotonic()))

    # files that come

    def _begin_put(self, route: Route, incoming: Incoming | None) -> None:
        if incoming is None:
            self._send(route, Done(route.request))
            return
        self._drop(route)
        transfer = self._transfers[route] = Receiving(route.request, incoming, self._budget, time.monotonic())
        event = {"peer": self._name(route), "name": incoming.name, "size": incoming.size, "from": incoming.received}
        self._log("receiving", event)
        self._advance(route, transfer)

    def _advance(self, route: Route, transfer: Receiving) -> None:
        if not transfer.is_complete:
            self._hungry[route] = None
            return
        del self._transfers[route]
        incoming = transfer.incoming
        self._work.begin(route, incoming.publish, lambda _: self._end_put(route, incoming))

    def _end_put(self, route: Route, incoming: Incoming) -> None:
        self._log("received", {"peer": self._name(route), "name": incoming.name, "size": incoming.size})
        self._send(route, Done(route.request))

    # files that go

    def _begin_get(self, route: Route, entry: Entry, handle: int) -> None:
        self._drop(route)
        self._transfers[route] = Sending(route.request, entry.name, handle, self._budget, time.monotonic())
        self._send(route, File(route.request, entry.size, entry.digest))

    # turns of the loop

    def _feed(self) -> bool:
        """Asks for and sends chunks, in turn, while there is room; whether to look again soon if there is more."""
        share = self._budget.share(len(self._transfers))
        waiting: dict[Route, None] = {}
        while self._hungry and self._budget.has_room():
            route = next(iter(self._hungry))
            del self._hungry[route]
            try:
                match self._transfers.get(route):
                    case Receiving() as transfer if (want := transfer.next_want(share)) is not None:
                        self._hungry[route] = None
                        self._send(route, want)
                    case Sending() as transfer if (chunk := transfer.next_chunk(share)) is not None:
                        self._hungry[route] = None
                        self._send_chunk(route, transfer, chunk)
                    case Sending() as transfer if transfer.is_waiting():
                        waiting[route] = None
            except RefusalError as refusal:
                self._refuse(route, refusal)
        self._hungry |= waiting
        return bool(self._hungry)

    def _tick(self, now: float) -> None:
        """What is done twice a second: a new roster, idle transfers, a look at the memory."""
        if 1000 * (now - self._ticked_at) < _TICK_MS:
            return
        if resident_bytes() > self._tolerated_bytes:
            self._shake_off()
        self._ticked_at = now
        self._peers = self._read_peers()
        for route, transfer in list(self._transfers.items()):
            if route.key not in self._peers:
                self._refuse(route, RefusalError(Code.UNKNOWN_KEY, "this key is not in the roster any more"))
            elif now - transfer.active_at > self._limits.idle_seconds:
                self._refuse(route, RefusalError(Code.IDLE, "nothing came for too long; it can be continued"))
        self._draining = [transfer for transfer in self._draining if not transfer.is_drained()]
        self._paces = {key: pace for key, pace in self._paces.items() if now - pace.at < 60}

    def _shake_off(self) -> None:
        """Ends all connections, because a peer fills the memory with a message that has no end of parts.

        libzmq limits a part's size but not their number, and keeps them until the last. Honest peers come
        back and go on where they were.
        """
        for route in list(self._transfers):
            self._drop(route)
        self._entrance.reopen()
        return_memory()
        self._log("connections ended", {"why": "memory", "limit": self._tolerated_bytes})
        self._tolerated_bytes = max(self._tolerated_bytes, resident_bytes() + self._limits.memory_bytes // 2)

    def _drop(self, route: Route) -> None:
        transfer = self._transfers.pop(route, None)
        if transfer is not None:
            transfer.close()
        if isinstance(transfer, Sending):
            self._draining.append(transfer)

    def _drop_older(self, route: Route, name: str) -> None:
        """Drops what the same key has begun for the same file: it has lost that connection, and comes again."""
        for other, transfer in list(self._transfers.items()):
            if other.key == route.key and isinstance(transfer, Receiving) and transfer.incoming.name == name:
                self._drop(other)

    # what goes out

    def _send(self, route: Route, message: Message) -> None:
        """Sends, or drops the transfer if its peer has gone or does not read: the peer will begin again."""
        try:
            self._entrance.router.send_multipart([route.connection, *protocol.encode(message)], zmq.DONTWAIT)
        except zmq.ZMQError as error:
            self._on_send_error(route, error)

    def _send_chunk(self, route: Route, transfer: Sending, chunk: Chunk) -> None:
        *head, data = protocol.encode(chunk)
        try:
            self._entrance.router.send_multipart([route.connection, *head], zmq.DONTWAIT | zmq.SNDMORE)
            tracker = self._entrance.router.send(data, zmq.DONTWAIT, copy=False, track=True)
        except zmq.ZMQError as error:
            self._budget.give(len(data))
            self._on_send_error(route, error)
        else:
            transfer.sent(len(data), tracker)

    def _on_send_error(self, route: Route, error: zmq.ZMQError) -> None:
        if error.errno not in (errno.EAGAIN, errno.EHOSTUNREACH):
            raise error
        self._drop(route)

    def _refuse(self, route: Route, refusal: RefusalError) -> None:
        if refusal.code != Code.SLOW_DOWN:
            self._log("refused", {"peer": self._name(route), "code": refusal.code.value, "why": refusal.text})
        self._drop(route)
        self._send(route, Refuse(route.request, refusal.code, refusal.text))

    def _name(self, route: Route) -> str:
        peer = self._peers.get(route.key)
        return peer.name if peer else route.key.hex()[:8]
