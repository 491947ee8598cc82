"""How a party's exchange directory meets the others': by a relay, or by itself, as a shared folder or by courier."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol

import typer

from ucadi import units
from ucadi.commands import refuse_unused
from ucadi.errors import UsageError
from ucadi.events import Events
from ucadi.formats import keys as key_format
from ucadi.formats.exchange import Exchange
from ucadi.identity import SecretKeys

if TYPE_CHECKING:
    from ucadi.relay.client import Client

RelayAddress = Annotated[
    str | None, typer.Option("--relay", help="The relay's address, tcp://HOST:PORT [default: the folder is all].")
]
RelayCard = Annotated[Path | None, typer.Option("--relay-card", help="The relay's card, with --relay.")]
Poll = Annotated[float, units.time("1s", "0.05s", "Time between looks for what is new.")]


class Transport(Protocol):
    """Brings what is new: others' files here, one's own to them."""

    def bring(self) -> None:
        """Does it once; returns also when the line is down, which may pass."""


class SharedFolder:
    """No line: somebody else brings the files, or all parties work in one shared folder."""

    def bring(self) -> None:
        """Nothing is to be done."""


class RelayTransport:
    """A line to a relay. Where it is down, that is told once, and tried again whenever asked."""

    def __init__(self, client: Client, exchange: Exchange, events: Events) -> None:
        from ucadi.relay.store import Store

        self._client: Final = client
        self._store: Final = Store(exchange.root)
        self._events: Final = events
        self._is_down = False

    def bring(self) -> None:
        """Fetches what is new at the relay, then sends what it lacks of one's own."""
        from ucadi.relay.client import UnreachableError

        try:
            self._exchange()
        except UnreachableError as error:
            if not self._is_down:
                self._events("relay down", {"why": error.message})
            self._is_down = True
        else:
            if self._is_down:
                self._events("relay back", {})
            self._is_down = False

    def _exchange(self) -> None:
        from ucadi.relay.protocol import Peer

        me = self._client.welcome()
        there = self._client.entries()
        new = [entry for entry in there if self._store.find(entry.name) != entry]
        if new:
            self._client.get(new, self._store)
        names, mine = {entry.name for entry in there}, Peer(me.peer, me.coordinator)
        own = [name for name in self._store.names() if name not in names and mine.may_put(name)]
        if own:
            self._client.put({name: self._store.root / name for name in own})


@contextmanager
def transport_to(
    relay: str | None, card: Path | None, keys: SecretKeys, exchange: Exchange, events: Events
) -> Iterator[Transport]:
    """The line to the relay at that address; without one, the folder itself."""
    if relay is None:
        refuse_unused({"--relay-card": card}, "there is no --relay")
        yield SharedFolder()
        return
    if card is None:
        raise UsageError("which relay is it?", hint="--relay-card: the card of the relay at that address")
    from ucadi.relay.client import Client

    with Client(relay, key_format.read_card(card).keys, keys, patience=_PATIENCE_SECONDS) as client:
        yield RelayTransport(client, exchange, events)


_PATIENCE_SECONDS = 60.0
"""How long one attempt lasts; a loop goes on with the next."""
