"""Who gets in: the relay's ZAP handler (RFC 27), and how long a line of connections and requests it bears.

libzmq asks the handler once for each connection that has completed the CURVE handshake, so the key that
it is asked about is proven. An admitted connection's messages all bear that key as their User-Id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from ucadi.relay.protocol import DOMAIN, Peer

MAX_CONNECTIONS: Final = 1_000
_ZAP_ADDRESS = "inproc://zeromq.zap.01"
_GRANTED, _TRY_LATER, _DENIED = b"200", b"300", b"400"

Peers = Callable[[], Mapping[bytes, Peer]]
"""The keys that are admitted now (32 bytes each), and whose they are."""


class Gate:
    """The ZAP handler of a context: admits the keys of `peers`, and at most `limit` connections."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], peers: Peers, limit: int = MAX_CONNECTIONS) -> None:
        self._peers = peers
        self._limit = limit
        self.socket: Final = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(_ZAP_ADDRESS)

    def answer(self, connections: int) -> tuple[bool, str] | None:
        """Answers one question of libzmq; whether it was admitted and from where. None if there is no question.

        `connections` is how many there are now, this one included.
        """
        try:
            question = self.socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return None
        version, request, domain, address, _, mechanism, *credentials = question
        key = credentials[0] if len(credentials) == 1 else b""
        known = version == b"1.0" and domain == DOMAIN.encode() and mechanism == b"CURVE" and key in self._peers()
        full = connections > self._limit
        status, reason = (
            (_DENIED, b"key not admitted") if not known else (_TRY_LATER, b"full") if full else (_GRANTED, b"")
        )
        user = key.hex().encode() if status == _GRANTED else b""
        self.socket.send_multipart([b"1.0", request, status, reason, user, b""])
        return status == _GRANTED, address.decode("ascii", "replace")


class Connections:
    """How many connections a ROUTER has, known and unknown alike, by its monitor."""

    _EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_MONITOR_STOPPED

    def __init__(self, router: zmq.Socket[bytes]) -> None:
        self._router = router
        self._open: set[int] = set()
        self.socket: Final = router.get_monitor_socket(self._EVENTS)

    def __len__(self) -> int:
        return len(self._open)

    def update(self) -> None:
        """Takes notice of what has happened since the last call."""
        while self.socket.poll(0):
            event = recv_monitor_message(self.socket)
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._open.add(event["value"])
            elif event["event"] == zmq.EVENT_DISCONNECTED:
                self._open.discard(event["value"])

    def close(self) -> None:
        """Ends the monitor."""
        self._router.disable_monitor()


@dataclass
class Pace:
    """How fast one peer may ask: `rate` requests a second, after a burst of `burst` (a token bucket)."""

    rate: float
    burst: float
    tokens: float
    at: float

    def allows(self, now: float) -> bool:
        """Whether one more request at the time `now`, in seconds, is within the pace."""
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
