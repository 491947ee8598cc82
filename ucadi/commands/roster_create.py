"""ucadi roster create."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import Force, KeyFile, Output
from ucadi.errors import UsageError
from ucadi.fed.plan import KeyMode
from ucadi.formats import keys as key_format
from ucadi.formats import roster as roster_format
from ucadi.formats.roster import Policy, Roster


@dataclass(frozen=True)
class RosterResult:
    """The roster made, with the fingerprints that its members compare."""

    roster: Path
    federation: str
    coordinator: str
    fingerprints: dict[str, str]

    def __str__(self) -> str:
        width = max(map(len, self.fingerprints))
        lines = [f"{name:<{width}}  {fingerprint}" for name, fingerprint in self.fingerprints.items()]
        return "\n".join([f"{self.roster}: federation {self.federation}, coordinator {self.coordinator}", *lines])


def roster_create(
    cards: Annotated[list[Path], typer.Argument(help="The members' cards.")],
    *,
    federation: Annotated[str, typer.Option(help="Name of the federation.")],
    key: KeyFile,
    output: Output,
    minimum_sites: Annotated[int, typer.Option(help="Fewest sites whose sum may be opened.")] = 3,
    threshold: Annotated[
        int | None, typer.Option(help="Members whose answers open a sum [default: any one member opens it].")
    ] = None,
    force: Force = False,
) -> RosterResult:
    """List the members of a federation and their public keys in a file signed by the coordinator.

    Only members can open the sums; the coordinator, who signs, is not one.
    """
    keys = key_format.read_key(key)
    members = sorted((key_format.read_card(card) for card in cards), key=lambda card: card.name)
    if keys.name in [member.name for member in members]:
        raise UsageError(
            f"{keys.name} would be coordinator and member", hint="the coordinator holds no key to the sums"
        )
    mode: KeyMode = "members" if threshold is None else "threshold"
    policy = Policy(mode, minimum_sites, threshold=1 if threshold is None else threshold)
    roster = Roster(federation, keys.public, tuple(members), policy)
    roster_format.write(output, roster, keys, force=force)
    everyone = (keys.public, *members)
    return RosterResult(output, federation, keys.name, {party.name: party.fingerprint for party in everyone})
