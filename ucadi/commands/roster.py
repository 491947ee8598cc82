"""ucadi roster: create, add, remove, rotate, show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

import typer

from ucadi.commands import Force, KeyFile, Output, RosterFile, refuse_unused
from ucadi.errors import SignatureError, UsageError
from ucadi.fed.plan import KeyMode
from ucadi.formats import keys as key_format
from ucadi.formats import roster as roster_format
from ucadi.formats.roster import Policy, Roster
from ucadi.identity import PublicKeys, SecretKeys

MOST = 10_000
MOST_LINES = 16

MinimumSites = Annotated[
    int | None,
    typer.Option(help="Fewest sites in a sum that is opened [default: more than half, at least 3].", min=2, max=MOST),
]
Threshold = Annotated[
    int | None, typer.Option(help="Members who together open a sum [default: more than two thirds].", min=1, max=MOST)
]
NewMinimumSites = Annotated[
    int | None,
    typer.Option("--minimum-sites", help="As for roster create [default: as before, if it may be].", min=2, max=MOST),
]
NewThreshold = Annotated[
    int | None,
    typer.Option("--threshold", help="As for roster create [default: as before, if it may be].", min=1, max=MOST),
]

Cards = Annotated[list[Path], typer.Argument(help="The members' cards.")]


@dataclass(frozen=True)
class RosterResult:
    """A roster, with the fingerprints that its members compare by telephone."""

    roster: Path
    federation: str
    sequence: int
    policy: str
    coordinator: str
    fingerprint: str
    """Of the whole roster: it stands for all that is in it."""
    fingerprints: dict[str, str]
    left_out: tuple[Path, ...] = ()
    """The coordinator's own cards among those given: who signs is no member."""

    def __str__(self) -> str:
        width = max(map(len, self.fingerprints))
        shown = list(self.fingerprints.items())[:MOST_LINES]
        lines = [f"  {name:<{width}}  {fingerprint}" for name, fingerprint in shown]
        more = len(self.fingerprints) - len(shown)
        lines += [f"  and {more} more, with --json"] if more else []
        signed = f"roster {self.sequence} of {self.federation}, signed by {self.coordinator}"
        head = f"{self.roster}: {signed}; {self.policy}"
        lines += [f"fingerprint of all of it  {self.fingerprint}"]
        lines += [f"{card}: left out, as the coordinator is no member" for card in self.left_out]
        return "\n".join([head, *lines])


def roster_create(
    cards: Cards,
    *,
    federation: Annotated[str, typer.Option(help="Name of the federation.")],
    key: KeyFile,
    output: Output,
    minimum_sites: MinimumSites = None,
    threshold: Threshold = None,
    mode: Annotated[
        str,
        typer.Option(
            help="threshold; or members: any one member opens a sum alone, and any upload that it gets hold of.",
            autocompletion=lambda: list(get_args(KeyMode)),
        ),
    ] = "threshold",
    force: Force = False,
) -> RosterResult:
    r"""List the members of a federation and their public keys in a file signed by the coordinator.

    Only members can open the sums; the coordinator, who signs, is not one, and its own card is left out. Each member
    then accepts it: see roster accept.

    Example:
        ucadi roster create site-a.card site-b.card site-c.card \
            --federation lungs --key coordinator.key -o federation.json
    """
    keys = key_format.read_key(key)
    members, left_out = _members(cards, keys)
    policy = _policy(len(members), mode, minimum_sites, threshold)
    made = Roster(federation, keys.public, tuple(members), policy)
    return _write(output, made, keys, force, left_out)


def _policy(members: int, mode: str, minimum_sites: int | None, threshold: int | None) -> Policy:
    """How sums are opened: as asked for, and by most of the members where nothing is said."""
    least = min(max(2, members), max(3, members // 2 + 1)) if minimum_sites is None else minimum_sites
    match mode:
        case "members":
            refuse_unused({"--threshold": threshold}, "in members mode any one member opens a sum")
            return Policy("members", least, threshold=1)
        case "threshold":
            return Policy("threshold", least, threshold=2 * members // 3 + 1 if threshold is None else threshold)
    raise UsageError(f"no mode {mode!r}", hint="--mode threshold, or members")


def roster_add(
    cards: Cards,
    *,
    roster: RosterFile,
    key: KeyFile,
    output: Output,
    minimum_sites: NewMinimumSites = None,
    threshold: NewThreshold = None,
    force: Force = False,
) -> RosterResult:
    r"""Add members: a new roster, for the rounds opened from now on.

    Example:
        ucadi roster add site-d.card --roster federation.json \
            --key coordinator.key -o federation-0002.json
    """
    held, keys = _read(roster, key)
    members, left_out = _members(cards, keys)
    changed = _next(held, [*held.members, *members], minimum_sites, threshold)
    return _write(output, changed, keys, force, left_out)


def roster_remove(
    names: Annotated[list[str], typer.Argument(help="Members to remove.")],
    *,
    roster: RosterFile,
    key: KeyFile,
    output: Output,
    minimum_sites: NewMinimumSites = None,
    threshold: NewThreshold = None,
    force: Force = False,
) -> RosterResult:
    r"""Remove members: a new roster, for the rounds opened from now on.

    Example:
        ucadi roster remove site-c --roster federation.json \
            --key coordinator.key -o federation-0002.json
    """
    held, keys = _read(roster, key)
    for name in names:
        held.member(name)
    staying = [member for member in held.members if member.name not in names]
    return _write(output, _next(held, staying, minimum_sites, threshold), keys, force)


def roster_rotate(
    cards: Annotated[list[Path], typer.Argument(help="New cards of members.")],
    *,
    roster: RosterFile,
    key: KeyFile,
    output: Output,
    lost: Annotated[bool, typer.Option("--lost", help="Accept a card that the old key does not vouch for.")] = False,
    force: Force = False,
) -> RosterResult:
    r"""Replace members' keys by new ones, which keygen --replaces has made.

    Where the old key is lost, compare the new card's fingerprint by telephone and say --lost.

    Example:
        ucadi roster rotate new/site-a.card --roster federation.json \
            --key coordinator.key -o federation-0002.json
    """
    held, keys = _read(roster, key)
    members = {member.name: member for member in held.members}
    for path in cards:
        card = key_format.read_card(path)
        old = held.member(card.keys.name)
        if not lost and not card.endorsed_by(old):
            raise SignatureError(
                f"{path.name}: the old key of {old.name} does not vouch for this card",
                hint="keygen --replaces OLD.key; or, if that key is lost, --lost after a call to compare fingerprints",
            )
        members[old.name] = card.keys
    return _write(output, _next(held, members.values()), keys, force)


def roster_show(
    roster: Annotated[Path, typer.Argument(help="A roster.")],
    *,
    coordinator: Annotated[
        str | None, typer.Option(help="Expected fingerprint of the coordinator; fail if another signed the roster.")
    ] = None,
) -> RosterResult:
    """Check a roster's signature and show whom it lists, to compare by telephone.

    Example:
        ucadi roster show federation.json
    """
    held = roster_format.read(roster)
    if coordinator is not None and coordinator.replace(" ", "") != held.coordinator.fingerprint.replace(" ", ""):
        raise SignatureError(
            f"{roster.name}: signed by {held.coordinator.name} with fingerprint {held.coordinator.fingerprint}",
            hint="this is not your coordinator's roster: do not use it",
        )
    return _result(roster, held)


def _read(roster: Path, key: Path) -> tuple[Roster, SecretKeys]:
    held, keys = roster_format.read(roster), key_format.read_key(key)
    held.check_led_by(keys, key.name)
    return held, keys


def _members(cards: list[Path], keys: SecretKeys) -> tuple[list[PublicKeys], tuple[Path, ...]]:
    """Whom the cards are of, and which of them is the coordinator's own: a pattern such as *.card finds that too."""
    read = [(card, key_format.read_card(card).keys) for card in cards]
    own = tuple(card for card, found in read if found == keys.public)
    return [found for card, found in read if card not in own], own


def _next(
    held: Roster, members: Iterable[PublicKeys], minimum_sites: int | None = None, threshold: int | None = None
) -> Roster:
    """The roster that follows, with these members; how sums are opened stays, as far as so many members admit it."""
    following = replace(held, members=tuple(members), sequence=held.sequence + 1, previous=held.digest)
    count, old = len(following.members), held.policy
    if old.mode == "members":
        refuse_unused({"--threshold": threshold}, "in members mode any one member opens a sum")
    kept = replace(
        old,
        minimum_sites=old.minimum_sites if minimum_sites is None else minimum_sites,
        threshold=old.threshold if threshold is None else threshold,
    )
    try:
        kept.check(count)
    except UsageError:
        kept = _policy(count, old.mode, minimum_sites, threshold)
    return replace(following, policy=kept)


def _write(path: Path, made: Roster, keys: SecretKeys, force: bool, left_out: tuple[Path, ...] = ()) -> RosterResult:
    changed = replace(made, members=tuple(sorted(made.members, key=lambda member: member.name)))
    if keys.name in changed.names:
        raise UsageError(
            f"{keys.name} would be coordinator and member: who signs the roster must not open the sums",
            hint=f"leave out {keys.name}.card, or sign with a key of another name, made for the coordinator",
        )
    try:
        roster_format.write(path, changed, keys, force=force)
    except UsageError as error:
        if not left_out:
            raise
        raise UsageError(
            f"without {left_out[0].name}, the card of {keys.name}, who signs: {error.message}",
            hint=f"is {keys.name} the coordinator? A site's key signs no roster; {error.hint}",
        ) from None
    return _result(path, roster_format.read(path), left_out)


def _result(path: Path, held: Roster, left_out: tuple[Path, ...] = ()) -> RosterResult:
    fingerprints = {party.name: party.fingerprint for party in (held.coordinator, *held.members)}
    return RosterResult(
        path,
        held.federation,
        held.sequence,
        str(held.policy),
        held.coordinator.name,
        held.fingerprint,
        fingerprints,
        left_out,
    )
