"""ucadi wait."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi import units
from ucadi.commands import KeyFile
from ucadi.formats import keys as key_format
from ucadi.kinds import Place


@dataclass(frozen=True)
class WaitResult:
    """The SHA-256 of each file that was awaited, by name."""

    digests: dict[str, str]

    def __str__(self) -> str:
        return "\n".join(self.digests)


def wait(
    names: Annotated[list[str], typer.Argument(help="Files at the relay, such as rounds/0003/plan.json.")],
    *,
    relay: Annotated[str, typer.Option("--relay", help="The relay's address, tcp://HOST:PORT.")],
    relay_card: Annotated[Path, typer.Option("--relay-card", help="The relay's card.")],
    key: KeyFile,
    timeout: Annotated[float | None, units.time(None, "0s", "Longest wait, such as 30s [default: for ever].")] = None,
) -> WaitResult:
    r"""Wait until all these files are at the relay, then print their names.

    Fails with exit code 8, naming what is missing, when the time is over.

    Example:
        ucadi wait rounds/0001/plan.json --relay tcp://relay.example.org:7400 \
            --relay-card relay.card --key site-a.key --timeout 30s
    """
    from ucadi.relay.client import Client

    for name in names:
        Place.named(name)
    with Client(relay, key_format.read_card(relay_card).keys, key_format.read_key(key)) as client:
        return WaitResult({entry.name: entry.digest for entry in client.wait(names, timeout)})
