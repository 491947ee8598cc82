"""One encrypted connection from a site to its relay; when it fails it is lost for good, and says why."""

from __future__ import annotations

import math
import time
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from ucadi.errors import RelayError, UsageError
from ucadi.identity import SecretKeys
from ucadi.relay import protocol
from ucadi.relay.admission import FULL
from ucadi.relay.protocol import Message, RefusalError
from ucadi.relay.sockets import client_socket

Context = zmq.Context[zmq.Socket[bytes]]

_FAILURES = {
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "ends the handshake: is this the relay whose card was given?",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "is not the relay whose card was given, or no relay at all",
    zmq.EVENT_DISCONNECTED: "has closed the connection",
    zmq.EVENT_CLOSED: "cannot be reached",
    zmq.EVENT_CLOSE_FAILED: "cannot be reached",
}


class LostError(Exception):
    """The connection failed, for a reason that may pass."""


class Connection:
    """A connection to the relay at `address` that holds the transport key `relay`.

    Raises UsageError for an address that is none. Whether the relay is there shows at the first `receive`.
    """

    def __init__(self, context: Context, address: str, relay: bytes, keys: SecretKeys) -> None:
        self.address: Final = address
        self._name = keys.name
        self._socket: Final = client_socket(context, keys.transport, keys.public.transport, relay)
        self._monitor: Final = self._socket.get_monitor_socket()
        self._poller: Final = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._is_open = False
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise UsageError(f"{address}: {error.strerror}", hint="an address looks like tcp://HOST:PORT") from None

    def send(self, message: Message) -> None:
        """Sends, without waiting; whether it arrives is known by the answer.

        Raises what `receive` would if the connection has failed meanwhile, LostError if it is full.
        """
        try:
            self._socket.send_multipart(protocol.encode(message), zmq.DONTWAIT)
        except zmq.Again:
            while self._monitor.poll(0):
                self._notice()
            raise LostError(f"the relay at {self.address} takes nothing any more") from None

    def receive(self, seconds: float) -> Message:
        """The next message; LostError if the connection fails or nothing comes for so many seconds.

        Raises RelayError if the relay does not admit this key, or speaks another language.
        """
        deadline = time.monotonic() + (seconds if self._is_open else protocol.HANDSHAKE_SECONDS)
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(self._poller.poll(math.ceil(1000 * left)))
            if self._socket in ready:  # before the monitor: what came before the end still counts
                frames = [frame.buffer for frame in self._socket.recv_multipart(copy=False)]
                try:
                    return protocol.parse(frames)
                except RefusalError as refusal:
                    raise RelayError(f"the relay at {self.address} sent {refusal.text}") from None
            if self._monitor in ready and self._notice():
                deadline = time.monotonic() + seconds
        raise LostError(f"the relay at {self.address} {'is silent' if self._is_open else 'cannot be reached'}")

    def close(self) -> None:
        """Closes it; what was not sent yet is dropped."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)

    def _notice(self) -> bool:
        """Takes notice of one event of the monitor; whether it was that the handshake succeeded."""
        told = recv_monitor_message(self._monitor)
        event = zmq.Event(told["event"])
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and told["value"] == int(FULL):
            raise LostError(f"the relay at {self.address} has too many connections")
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise RelayError(
                f"the relay at {self.address} does not know this key of {self._name}",
                hint="the roster at the relay must list this key's card: ask the coordinator",
            )
        if event in _FAILURES:
            raise LostError(f"the relay at {self.address} {_FAILURES[event]}")
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._is_open = True
        return event == zmq.EVENT_HANDSHAKE_SUCCEEDED
