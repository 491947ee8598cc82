"""The two sockets of the protocol: ROUTER at the relay, DEALER at a site; every option that matters is set here."""

from __future__ import annotations

from typing import Final

import zmq

from ucadi.relay.protocol import CREDIT, DOMAIN, HANDSHAKE_SECONDS, HEARTBEAT_SECONDS, MAX_FRAME

QUEUE: Final = 2 * CREDIT
"""Messages of one connection that libzmq takes in before they are read. What goes out is bounded by credit."""


def server_socket(context: zmq.Context[zmq.Socket[bytes]], secret: bytes) -> zmq.Socket[bytes]:
    """The relay's ROUTER socket, not bound yet: encrypted, bounded, and closed to all unless a handler admits them."""
    router = context.socket(zmq.ROUTER)
    _keep_alive(router)
    router.curve_server = True
    router.curve_secretkey = secret
    router.zap_domain = DOMAIN.encode()
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it, an absent handler lets everybody in
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a full or vanished peer is an error here, not a lost message
    router.setsockopt(zmq.ROUTER_HANDOVER, 0)  # a routing id in use cannot be taken over
    router.setsockopt(zmq.BACKLOG, 512)
    return router


def client_socket(
    context: zmq.Context[zmq.Socket[bytes]], secret: bytes, public: bytes, relay: bytes
) -> zmq.Socket[bytes]:
    """A site's DEALER socket, not connected yet; it makes one connection and does not reconnect by itself."""
    dealer = context.socket(zmq.DEALER)
    _keep_alive(dealer)
    dealer.ipv6 = True
    dealer.curve_secretkey, dealer.curve_publickey, dealer.curve_serverkey = secret, public, relay
    dealer.setsockopt(zmq.RECONNECT_IVL, -1)
    dealer.setsockopt(zmq.CONNECT_TIMEOUT, int(HANDSHAKE_SECONDS * 1000))
    return dealer


def _keep_alive(socket: zmq.Socket[bytes]) -> None:
    """What both sides set: limits on what a peer may send, and three ways to notice that it is gone."""
    socket.linger = 0
    socket.rcvhwm = QUEUE
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
    socket.setsockopt(zmq.HANDSHAKE_IVL, int(HANDSHAKE_SECONDS * 1000))
    socket.setsockopt(zmq.HEARTBEAT_IVL, int(HEARTBEAT_SECONDS * 1000))
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(4 * HEARTBEAT_SECONDS * 1000))
    socket.setsockopt(zmq.HEARTBEAT_TTL, int(4 * HEARTBEAT_SECONDS * 1000))
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 60)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 20)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 6)
