"""What a request begins on the disk: checks of names and limits, lists, files opened. Runs in the relay's threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ucadi.kinds import Kind, Place
from ucadi.relay import protocol
from ucadi.relay.admission import MAX_CONNECTIONS
from ucadi.relay.protocol import Code, Entries, List, Peer, Put, RefusalError
from ucadi.relay.store import Entry, Incoming, Store


@dataclass(frozen=True)
class RelayLimits:
    """What the relay bears from its peers, all of whom it knows.

    `memory_bytes` counts beyond what the process holds when its relay is made.
    """

    file_bytes: int = protocol.MAX_FILE
    transfers_per_peer: int = 16
    requests_per_second: float = 200.0
    connections: int = MAX_CONNECTIONS
    idle_seconds: float = protocol.IDLE_SECONDS
    memory_bytes: int = 400_000_000


class Desk:
    """Takes requests for a store. What cannot be granted raises a RefusalError for the peer."""

    def __init__(self, store: Store, limits: RelayLimits) -> None:
        self._store: Final = store
        self._limits: Final = limits

    def check(self, peer: Peer, put: Put) -> None:
        """Whether the peer may put this file at all, which takes no look at the disk."""
        if not peer.may_put(put.name):
            raise RefusalError(Code.FORBIDDEN, f"{put.name} is not a file of {peer.name}")
        if put.size > self._limits.file_bytes:
            raise RefusalError(Code.TOO_LARGE, f"{put.size:,} bytes; at most {self._limits.file_bytes:,} here")

    def receive(self, put: Put) -> Incoming | None:
        """Begins or continues to receive a file that was checked; None if it is here already."""
        place = Place.parse(put.name)
        if place is not None and place.site and self._store.find(put.name) is None:
            needed = _belongs_to(place).name
            if not self._store.names(needed):
                raise RefusalError(Code.FORBIDDEN, f"{put.name} belongs to {needed}, which is not here")
        return self._store.receive(put.name, put.size, put.digest)

    def page(self, peer: Peer, wanted: List) -> Entries:
        """One page of the list of what the peer may get."""
        names = [name for name in self._store.names(wanted.prefix) if name > wanted.after and peer.may_get(name)]
        page = [entry for name in names[: protocol.MAX_PAGE] if (entry := self._store.find(name)) is not None]
        data = protocol.encode_entries([(entry.name, entry.size, entry.digest) for entry in page])
        return Entries(wanted.request, len(names) > protocol.MAX_PAGE, data)

    def open(self, peer: Peer, name: str) -> tuple[Entry, int]:
        """A file to send, with a descriptor that the caller closes."""
        if not peer.may_get(name):
            raise RefusalError(Code.FORBIDDEN, f"{name} is not for {peer.name}: it goes to the coordinator alone")
        entry = self._store.find(name)
        if entry is None:
            raise RefusalError(Code.MISSING, f"there is no {name}")
        return entry, self._store.open(name)


def _belongs_to(place: Place) -> Place:
    """What the coordinator has put there before a site's file may come, so that no site fills the disk: a round's plan,
    or the roster of a consent."""
    if place.kind is Kind.CONSENT:
        return Place(Kind.ROSTER, 0 if place.number == 1 else place.number)
    return Place(Kind.PLAN, place.number)
