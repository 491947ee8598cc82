"""ucadi pull."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from ucadi import filetypes
from ucadi.commands import KeyFile
from ucadi.errors import OutputError
from ucadi.formats import keys as key_format


@dataclass(frozen=True)
class PullResult:
    """Names of the files fetched, and how many of those asked for were here already."""

    exchange: Path
    fetched: tuple[str, ...]
    present: int

    def __str__(self) -> str:
        return "\n".join([*self.fetched, f"{self.exchange}: {len(self.fetched)} fetched, {self.present} here already"])


def pull(
    wanted: Annotated[
        list[str] | None,
        typer.Argument(help="Names, folders (rounds/0003) or patterns ('rounds/*/plan.json') [default: all]."),
    ] = None,
    *,
    exchange: Annotated[Path, typer.Option("--exchange", help="One's own exchange directory.")],
    relay: Annotated[str, typer.Option("--relay", help="The relay's address, tcp://HOST:PORT.")],
    relay_card: Annotated[Path, typer.Option("--relay-card", help="The relay's card.")],
    key: KeyFile,
) -> PullResult:
    r"""Fetch files from the relay into one's exchange directory, continuing where an earlier attempt ended.

    A file appears whole or not at all, and none is replaced: one that is here with other content is an error.

    Example:
        ucadi pull --exchange exchange --relay tcp://relay.example.org:7400 \
            --relay-card relay.card --key site-a.key
    """
    from ucadi.relay.client import Client
    from ucadi.relay.store import Store

    if not exchange.is_dir():
        raise OutputError(filetypes.no_folder(exchange, "an exchange directory"), hint=f"mkdir -p {exchange}")
    with Client(relay, key_format.read_card(relay_card).keys, key_format.read_key(key)) as client:
        entries = [entry for entry in client.entries() if _is_wanted(entry.name, wanted)]
        store = Store(exchange)
        fetched = client.get([entry for entry in entries if store.find(entry.name) != entry], store)
        store.sweep()
    return PullResult(exchange, fetched, len(entries) - len(fetched))


def _is_wanted(name: str, wanted: list[str] | None) -> bool:
    return not wanted or any(
        name == place or name.startswith(f"{place.rstrip('/')}/") or fnmatchcase(name, place) for place in wanted
    )
