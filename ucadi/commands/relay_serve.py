"""ucadi relay serve."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from ucadi import units
from ucadi.commands import LogFile
from ucadi.errors import UcadiError
from ucadi.events import Events
from ucadi.formats import keys as key_format
from ucadi.formats import roster as roster_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.roster import Roster
from ucadi.kinds import Kind

if TYPE_CHECKING:
    from ucadi.relay.broker import Broker
    from ucadi.relay.protocol import Peer


@dataclass(frozen=True)
class RelayServeResult:
    """What a relay did until it was stopped: files received and sent, requests refused."""

    relay: str
    received: int
    sent: int
    refused: int

    def __str__(self) -> str:
        return f"{self.relay} stopped: {self.received} files received, {self.sent} sent, {self.refused} refused"


def relay_serve(
    exchange: Annotated[Path, typer.Argument(help="The exchange directory, with the roster as federation.json.")],
    *,
    key: Annotated[Path, typer.Option("--key", help="The relay's own secret key file.")],
    bind: Annotated[
        str, typer.Option(help="Where to listen; tcp://*:PORT for all networks, port 0 for any.")
    ] = "tcp://127.0.0.1:7400",
    max_size: Annotated[float, units.size("4GB", "1MB", "Largest file taken.")] = 4e9,
    log: LogFile = None,
    as_json: bool = False,
) -> RelayServeResult:
    """Keep an exchange directory and move its files between coordinator and sites, never looking inside.

    Admits the keys of the roster alone. A newer roster (federation-0002.json and so on, signed by the same
    coordinator) takes effect when it appears. Ends on SIGTERM or SIGINT; nothing is lost if it is killed.
    What happens is told in lines on stderr, with the time in UTC; with --json, in lines of JSON on stdout.

    Example:
        ucadi relay serve exchange --key relay.key --bind 'tcp://*:7400'
    """
    from ucadi.relay.broker import Broker
    from ucadi.relay.desk import RelayLimits
    from ucadi.relay.store import Store

    keys = key_format.read_key(key)
    events = Events(as_json=as_json, log=log)
    admission = _Admission(Exchange(exchange), events)
    store = Store(exchange)
    store.sweep()
    for name in store.names():
        store.find(name)  # so that digests are known when the first site asks
    limits = RelayLimits(file_bytes=int(max_size))
    with Broker(store, keys.transport, admission.peers, limits=limits, log=events) as broker:
        address = broker.bind(bind)
        with _ended_by_signals(broker):
            events("listening", {"address": address, "relay": keys.name, "fingerprint": keys.public.fingerprint})
            broker.run()
    return RelayServeResult(keys.name, events.counts["received"], events.counts["sent"], events.counts["refused"])


class _Admission:
    """The keys of the newest roster in the exchange directory, read again when a roster file changes."""

    def __init__(self, exchange: Exchange, events: Events) -> None:
        self._exchange = exchange
        self._events = events
        self._seen: tuple[Path, int, int] | None = None
        self._first = roster_format.read(exchange.path(Kind.ROSTER, 0))  # what it is replaced by is not trusted
        self._peers = _peers_of(self._first)

    def peers(self) -> Mapping[bytes, Peer]:
        """The keys that are admitted now."""
        path = self._exchange.newest_roster()
        with suppress(FileNotFoundError):
            status = path.stat()
            seen = (path, status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                self._seen = seen
                try:
                    self._take(path)
                except UcadiError as error:
                    self._events("roster ignored", {"name": path.name, "why": error.message})
        return self._peers

    def _take(self, path: Path) -> None:
        roster = roster_format.read(path)
        roster.check_same_federation(self._first, path.name)
        self._peers = _peers_of(roster)
        self._events("roster", {"name": path.name, "digest": roster.digest, "members": len(roster.members)})


def _peers_of(roster: Roster) -> dict[bytes, Peer]:
    from ucadi.relay.protocol import Peer

    members = {member.transport: Peer(member.name, coordinator=False) for member in roster.members}
    return members | {roster.coordinator.transport: Peer(roster.coordinator.name, coordinator=True)}


@contextmanager
def _ended_by_signals(broker: Broker) -> Iterator[None]:
    """Makes SIGTERM and SIGINT end the broker; what was before is restored."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        broker.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
