"""Who gets in: the relay's ZAP handler (RFC 27), and how long a line of connections and requests it bears.

libzmq asks the handler once for each connection that has completed the CURVE handshake, so the key that
it is asked about is proven. An admitted connection's messages all bear that key as their User-Id.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from ucadi.errors import RelayError
from ucadi.relay.protocol import DOMAIN, Peer
from ucadi.relay.sockets import server_socket

MAX_CONNECTIONS: Final = 1_000
_ZAP_ADDRESS = "inproc://zeromq.zap.01"
GRANTED, DENIED, FULL = b"200", b"400", b"500"
"""What ZAP answers; 300, for what may pass, would leave the client without any answer."""

Peers = Callable[[], Mapping[bytes, Peer]]
"""The keys that are admitted now (32 bytes each), and whose they are."""


class Admission:
    """The ZAP handler of a context: admits the keys of `peers`, and at most `limit` connections."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], peers: Peers, limit: int = MAX_CONNECTIONS) -> None:
        self._peers = peers
        self._limit = limit
        self.socket: Final = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(_ZAP_ADDRESS)

    def answer_all(self, connections: int) -> list[str]:
        """Answers what libzmq has asked, and returns the addresses of those that were denied.

        `connections` is how many there are now, these included.
        """
        denied = []
        while self.socket.poll(0):
            version, request, domain, address, _, mechanism, *credentials = self.socket.recv_multipart()
            key = credentials[0] if len(credentials) == 1 else b""
            known = (version, domain, mechanism) == (b"1.0", DOMAIN.encode(), b"CURVE") and key in self._peers()
            if known and connections <= self._limit:
                answer = [GRANTED, b"", key.hex().encode()]
            else:
                answer = [FULL if known else DENIED, b"", b""]
                denied.append(address.decode("ascii", "replace"))
            self.socket.send_multipart([b"1.0", request, *answer, b""])
        return denied


class Entrance:
    """The relay's ROUTER socket, and by its monitor how many connections it has, known and unknown alike."""

    _EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], secret: bytes, poller: zmq.Poller) -> None:
        self._context: Final = context
        self._secret: Final = secret
        self._poller: Final = poller
        self._address = ""
        self._open()

    def bind(self, address: str) -> str:
        """Listens, and returns the address with the port that it is."""
        self.router.ipv6 = "[" in address  # where it is set, IPv4 addresses are shown in IPv6's clothes
        self.router.bind(address)
        self._address = bytes(self.router.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
        return self._address

    def count(self) -> int:
        """How many connections there are now."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._connections.add(event["value"])
            elif event["event"] == zmq.EVENT_DISCONNECTED:
                self._connections.discard(event["value"])
        return len(self._connections)

    def reopen(self) -> None:
        """Ends all connections, with everything that libzmq holds for them, and listens again at the same address."""
        self.close()
        self._open()
        for _ in range(500):  # the old socket is closed in the background
            try:
                self.bind(self._address)
                return
            except zmq.ZMQError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                time.sleep(0.01)
        raise RelayError(f"{self._address} cannot be listened at again")

    def close(self, linger: int = 0) -> None:
        """Closes the socket; what was not sent yet has `linger` milliseconds to leave."""
        for ready in (self.router, self._monitor):
            self._poller.unregister(ready)
        self.router.disable_monitor()
        self._monitor.close(linger=0)
        self.router.close(linger=linger)

    def _open(self) -> None:
        self.router = server_socket(self._context, self._secret)
        self._monitor = self.router.get_monitor_socket(self._EVENTS)
        self._connections: set[int] = set()
        for ready in (self.router, self._monitor):
            self._poller.register(ready, zmq.POLLIN)


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
