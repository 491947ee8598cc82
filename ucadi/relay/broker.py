"""The relay: one loop over one ROUTER socket, moving the files of one directory, never looking inside.

The loop alone touches the sockets and the transfers; what waits for the disk (digests of whole files,
flushing) is done by a few threads, which hand their results back to the loop. All that must outlast a
crash is in the directory, so a relay that is killed and started again goes on where it was.
"""

from __future__ import annotations

import errno
import resource
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import zmq

from ucadi.errors import RelayError
from ucadi.relay import protocol
from ucadi.relay.admission import MAX_CONNECTIONS, Connections, Gate, Pace, Peers
from ucadi.relay.protocol import (
    Chunk,
    Code,
    Done,
    Entries,
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
from ucadi.relay.sockets import server_socket
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


@dataclass(frozen=True)
class Limits:
    """What the relay bears from its peers, all of whom it knows."""

    file_bytes: int = protocol.MAX_FILE
    files_per_round: int = 32
    transfers_per_peer: int = 16
    requests_per_second: float = 50.0
    connections: int = MAX_CONNECTIONS
    idle_seconds: float = protocol.IDLE_SECONDS


class Route(NamedTuple):
    """Where a request came from: the authenticated key, the connection that answers go to, and its number."""

    key: bytes
    connection: bytes
    request: int


class Broker:
    """Serves `store` to the keys that `peers` gives, which is asked again twice a second.

    `secret` is the relay's own transport key. Call `bind`, then `run`; `stop` ends `run` from a signal handler.
    """

    def __init__(
        self, store: Store, secret: bytes, peers: Peers, *, limits: Limits | None = None, log: Log | None = None
    ) -> None:
        self._store: Final = store
        self._limits: Final = limits or Limits()
        self._log: Final = log or (lambda _event, _fields: None)
        self._read_peers: Final = peers
        self._peers: Mapping[bytes, Peer] = peers()
        self._budget: Final = Budget()
        self._transfers: dict[Route, Receiving | Sending] = {}
        self._hungry: deque[Route] = deque()
        self._draining: list[Sending] = []
        self._paces: dict[bytes, Pace] = {}
        self._ticked_at = 0.0
        self._denials = Pace(rate=2, burst=20, tokens=20, at=time.monotonic())

        self._stopping = False
        self._work: Final = Work[Route]()
        _allow_open_files(2 * self._limits.connections)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 64)
        self._gate: Final = Gate(self._context, lambda: self._peers, self._limits.connections)
        self._router: Final = server_socket(self._context, secret)
        self._connections: Final = Connections(self._router)
        self._poller: Final = zmq.Poller()
        for ready in (self._router, self._gate.socket, self._connections.socket, self._work.bell):
            self._poller.register(ready, zmq.POLLIN)

    def bind(self, address: str) -> str:
        """Listens at `tcp://HOST:PORT` (port 0: any) and returns the address with the port that it is."""
        self._router.ipv6 = "[" in address  # where it is set, IPv4 addresses are shown in IPv6's clothes
        try:
            self._router.bind(address)
        except zmq.ZMQError as error:
            raise RelayError(
                f"{address}: {error.strerror}", hint="--bind tcp://HOST:PORT, an address of this machine"
            ) from None
        return bytes(self._router.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()

    def run(self) -> None:
        """Serves until `stop`; then lets files that are complete reach the disk, and closes everything."""
        try:
            while not self._stopping:
                starved = self._feed()
                self._poller.poll(_STARVED_MS if starved else _TICK_MS)
                self._connections.update()
                self._admit()
                self._work.collect(self._fail)
                self._read()
                self._tick(time.monotonic())
        finally:
            self._close()

    def stop(self) -> None:
        """Makes `run` return soon. Safe in a signal handler and from other threads."""
        self._stopping = True
        self._work.ring()

    # what comes in

    def _admit(self) -> None:
        while (answer := self._gate.answer(len(self._connections))) is not None:
            admitted, address = answer
            if not admitted and self._denials.allows(time.monotonic()):
                self._log("denied", {"from": address})

    def _read(self) -> None:
        for _ in range(_MESSAGES_A_TURN):
            try:
                connection = self._router.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            frames: list[memoryview] = []
            user = ""
            while self._router.getsockopt(zmq.RCVMORE):
                frame = self._router.recv(copy=False)
                if len(frames) <= protocol.MAX_PARTS:  # one too many shows what it is; the rest is not kept
                    user = str(frame.get("User-Id"))
                    frames.append(frame.buffer)
            self._handle(bytes.fromhex(user), connection, frames)

    def _handle(self, key: bytes, connection: bytes, frames: list[memoryview]) -> None:
        """Understands and answers one message of an admitted key."""
        route = Route(key, connection, 0)
        try:
            peer = self._peers.get(key)
            if peer is None:
                raise RefusalError(Code.UNKNOWN_KEY, "this key is not in the roster any more")
            message = protocol.parse(frames)
            route = Route(key, connection, message.request)
            if not isinstance(message, Chunk | Want) and not self._pace(key).allows(time.monotonic()):
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
                self._begin(route, lambda: self._page(message), lambda page: self._send(route, page))
            case Put(), None:
                self._check_put(peer, message)
                self._drop_older(route, message.name)
                self._begin(route, lambda: self._receive(peer, message), lambda got: self._begin_put(route, got))
            case Get(), None:
                self._begin(route, lambda: self._open(message.name), lambda got: self._begin_get(route, *got))
            case Chunk(), Receiving():
                transfer.accept(message, time.monotonic())
                self._advance(route, transfer)
            case Want(), Sending():
                transfer.want(message, time.monotonic())
                self._hungry.append(route)
            case Done(), Sending():
                self._log("sent", {"peer": peer.name, "name": transfer.name, "size": transfer.size})
                self._drop(route)
            case Done(), None:
                pass  # it was dropped as idle, but had all been sent
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

    def _check_put(self, peer: Peer, put: Put) -> None:
        if not protocol.is_name(put.name):
            raise RefusalError(Code.MALFORMED, "not a name of the exchange directory's layout")
        if not peer.may_put(put.name):
            raise RefusalError(Code.FORBIDDEN, f"{put.name} is not a file of {peer.name}")
        if put.size > self._limits.file_bytes:
            raise RefusalError(Code.TOO_LARGE, f"{put.size:,} bytes; at most {self._limits.file_bytes:,} here")

    def _receive(self, peer: Peer, put: Put) -> tuple[Put, Incoming | None]:
        """Begins to receive a file. Runs in a thread."""
        folder, _, place = put.name.partition("/")
        if folder == "rounds" and self._store.find(put.name) is None:
            folder = f"rounds/{place[:4]}"
            names = self._store.names(folder)
            if not peer.coordinator and f"{folder}/plan.json" not in names:
                raise RefusalError(Code.FORBIDDEN, f"{folder} is not open here: it has no plan.json")
            if sum(peer.may_put(name) for name in names) >= self._limits.files_per_round:
                raise RefusalError(Code.TOO_MANY, f"{peer.name} has {self._limits.files_per_round} files in {folder}")
        return put, self._store.receive(put.name, put.size, put.digest)

    def _begin_put(self, route: Route, got: tuple[Put, Incoming | None]) -> None:
        put, incoming = got
        if incoming is None:
            self._send(route, Done(route.request))
            return
        self._drop(route)
        transfer = self._transfers[route] = Receiving(route.request, incoming, self._budget, time.monotonic())
        self._log(
            "receiving", {"peer": self._name(route), "name": put.name, "size": put.size, "from": incoming.received}
        )
        self._advance(route, transfer)

    def _advance(self, route: Route, transfer: Receiving) -> None:
        if not transfer.is_complete:
            self._hungry.append(route)
            return
        del self._transfers[route]
        incoming = transfer.incoming
        self._work.begin(route, incoming.publish, lambda _: self._end_put(route, incoming))

    def _end_put(self, route: Route, incoming: Incoming) -> None:
        self._log("received", {"peer": self._name(route), "name": incoming.name, "size": incoming.size})
        self._send(route, Done(route.request))

    # files that go

    def _page(self, wanted: List) -> Entries:
        """A page of the list. Runs in a thread."""
        names = [name for name in self._store.names(wanted.prefix) if name > wanted.after]
        page = [entry for name in names[: protocol.MAX_PAGE] if (entry := self._store.find(name)) is not None]
        data = protocol.encode_entries([(entry.name, entry.size, entry.digest) for entry in page])
        return Entries(wanted.request, len(names) > protocol.MAX_PAGE, data)

    def _open(self, name: str) -> tuple[Entry, int]:
        """A file to send. Runs in a thread."""
        entry = self._store.find(name)
        if entry is None:
            raise RefusalError(Code.MISSING, f"there is no {name}")
        return entry, self._store.open(name)

    def _begin_get(self, route: Route, entry: Entry, handle: int) -> None:
        self._drop(route)
        self._transfers[route] = Sending(route.request, entry.name, handle, self._budget, time.monotonic())
        self._send(route, File(route.request, entry.size, entry.digest))

    # turns of the loop

    def _feed(self) -> bool:
        """Asks for and sends chunks, in turn, while the budget lasts; whether a transfer is left waiting."""
        share = self._budget.share(len(self._transfers))
        starved: deque[Route] = deque()
        while self._hungry:
            route = self._hungry.popleft()
            transfer = self._transfers.get(route)
            if transfer is None:
                continue
            try:
                if isinstance(transfer, Receiving):
                    want = transfer.next_want(share)
                    fed, hungry = want is not None, transfer.is_hungry(share)
                    if want is not None:
                        self._send(route, want)
                else:
                    chunk = transfer.next_chunk(share)
                    fed, hungry = chunk is not None, transfer.is_hungry()
                    if chunk is not None:
                        self._send_chunk(route, transfer, chunk)
            except RefusalError as refusal:
                self._refuse(route, refusal)
                continue
            if hungry:
                (self._hungry if fed else starved).append(route)
        self._hungry = starved
        return bool(starved)

    def _tick(self, now: float) -> None:
        """What is done twice a second: a new roster, idle transfers."""
        if 1000 * (now - self._ticked_at) < _TICK_MS:
            return
        self._ticked_at = now
        self._peers = self._read_peers()
        for route, transfer in list(self._transfers.items()):
            if route.key not in self._peers:
                self._refuse(route, RefusalError(Code.UNKNOWN_KEY, "this key is not in the roster any more"))
            elif now - transfer.active_at > self._limits.idle_seconds:
                self._refuse(route, RefusalError(Code.IDLE, "nothing came for too long; it can be continued"))
        self._draining = [transfer for transfer in self._draining if not transfer.is_drained()]
        self._paces = {key: pace for key, pace in self._paces.items() if now - pace.at < 60}

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
            self._router.send_multipart([route.connection, *protocol.encode(message)], zmq.DONTWAIT)
        except zmq.ZMQError as error:
            self._on_send_error(route, error)

    def _send_chunk(self, route: Route, transfer: Sending, chunk: Chunk) -> None:
        *head, data = protocol.encode(chunk)
        try:
            self._router.send_multipart([route.connection, *head], zmq.DONTWAIT | zmq.SNDMORE)
            tracker = self._router.send(data, zmq.DONTWAIT, copy=False, track=True)
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

    def _close(self) -> None:
        self._work.finish()
        self._work.collect(self._fail)
        for route in list(self._transfers):
            self._drop(route)
        self._connections.close()
        self._context.destroy(linger=_LINGER_MS)
        self._work.close()


def _allow_open_files(count: int) -> None:
    """Raises the soft limit of open files as far as allowed: at the limit, libzmq can accept nobody."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
