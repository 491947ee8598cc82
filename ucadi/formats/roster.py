"""The roster: who belongs to a federation, with which keys, under which policy; signed by the coordinator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.fed.plan import KeyMode
from ucadi.formats.container import GET_AGAIN, file_digest
from ucadi.formats.keys import card_fields, parse_card
from ucadi.formats.signed import Fields, read_document, sign, verify, write_document
from ucadi.identity import PublicKeys, SecretKeys, check_name, fingerprint
from ucadi.kinds import Format
from ucadi.lwe.parameters import MAX_SUMMANDS

FORMAT = Format.ROSTER.id

MAX_SEQUENCE = 9999
"""Rosters of one federation: what file names have room for."""


@dataclass(frozen=True)
class Policy:
    """How sums are opened. `minimum_sites` is the fewest sites whose sum may ever be opened.

    In `members` mode any member opens a sum; in `threshold` mode it takes partial decryptions of
    `threshold` members.
    """

    mode: KeyMode
    minimum_sites: int
    threshold: int

    def __str__(self) -> str:
        opened = "any member opens" if self.mode == "members" else f"{self.threshold} members together open"
        return f"{opened} a sum of {self.minimum_sites} sites or more"

    def check(self, members: int) -> None:
        """Raises UsageError unless a federation of so many members can work by this policy."""
        if not 2 <= self.minimum_sites <= members:
            raise UsageError(
                f"{members} members, and a sum of at least {self.minimum_sites} sites",
                hint=f"--minimum-sites from 2 to {members}, or more members: a sum of one site is its update"
                if members >= 2
                else "a federation needs 2 members or more: a sum of one site is its update",
            )
        # with half or fewer, two groups of members could be shown sums of different sets, and both be opened
        if self.mode == "threshold" and not (members < 2 * self.threshold <= 2 * members and self.minimum_sites >= 3):
            raise UsageError(
                f"threshold {self.threshold} of {members} members, at least {self.minimum_sites} sites in a sum",
                hint="a threshold of more than half the members, at most all, and at least 3 sites in a sum",
            )


@dataclass(frozen=True)
class Roster:
    """A federation. The coordinator signs and adds up, and can open nothing; members train and can open sums.

    Rosters form a chain: `sequence` counts from 1, `previous` is the digest of the one before, None in the first.
    `digest` is the SHA-256 of the file.
    """

    federation: str
    coordinator: PublicKeys
    members: tuple[PublicKeys, ...]
    policy: Policy
    sequence: int = 1
    previous: str | None = None
    digest: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, sorted."""
        return tuple(member.name for member in self.members)

    @property
    def fingerprint(self) -> str:
        """The first 80 bits of the file's digest, to compare by telephone."""
        return fingerprint(self.digest)

    def member(self, name: str) -> PublicKeys:
        """The member of that name; MismatchError if there is none."""
        for member in self.members:
            if member.name == name:
                return member
        raise MismatchError(
            f"{name} is not in the roster of {self.federation}", hint="members: " + ", ".join(self.names)
        )

    def check_same_federation(self, trusted: Roster, name: str) -> None:
        """Raises MismatchError unless this roster, the file `name`, is of the federation and coordinator of `trusted`.

        A roster names its own signer, so who could bring one could otherwise take the federation over.
        """
        if (self.federation, self.coordinator) != (trusted.federation, trusted.coordinator):
            ours, theirs = trusted.coordinator, self.coordinator
            raise MismatchError(
                f"{name}: of {self.federation}, led by {theirs.name} {theirs.fingerprint}; "
                f"the trusted roster is of {trusted.federation}, {ours.name} {ours.fingerprint}",
                hint="this is not of your federation: do not use it",
            )

    def check_follows(self, before: Roster, name: str) -> None:
        """Raises MismatchError unless this roster, the file `name`, is the next one of the chain after `before`."""
        self.check_same_federation(before, name)
        if (self.sequence, self.previous) != (before.sequence + 1, before.digest):
            raise MismatchError(
                f"{name}: roster {self.sequence}, which does not follow from roster {before.sequence} here",
                hint="a roster is missing, or there are two histories: ask the coordinator by telephone",
            )

    def check_led_by(self, keys: SecretKeys, name: str = "") -> None:
        """Raises MismatchError unless these are the coordinator's keys; `name` is the file that they are from."""
        if keys.public != self.coordinator:
            whose = f"{name}: the key of {keys.name}, who" if name else keys.name
            raise MismatchError(
                f"{whose} is not the coordinator of {self.federation}", hint=f"it is {self.coordinator.name}"
            )

    def index(self, keys: SecretKeys) -> int:
        """The place of one's own keys among the members; MismatchError if the roster holds others under the name."""
        if self.member(keys.name) != keys.public:
            raise MismatchError(
                f"the roster lists other keys for {keys.name} than this key file",
                hint="use the key whose card is in the roster, or ask the coordinator for a new roster",
            )
        return self.names.index(keys.name)


def write(path: Path, roster: Roster, keys: SecretKeys, *, force: bool = False) -> None:
    """Writes the roster, signed by the coordinator's `keys`."""
    _check(roster)
    document = {
        **Format.ROSTER.head,
        "federation": roster.federation,
        "sequence": roster.sequence,
        "previous": roster.previous,
        "coordinator": card_fields(roster.coordinator),
        "members": [card_fields(member) for member in roster.members],
        "policy": {
            "mode": roster.policy.mode,
            "minimum_sites": roster.policy.minimum_sites,
            "threshold": roster.policy.threshold,
        },
    }
    write_document(path, sign(document, keys), force=force)


def read(path: Path) -> Roster:
    """Reads a roster and checks that the coordinator it names has signed it."""
    document = read_document(path, FORMAT)
    fields = Fields(document, path.name)
    policy = fields.object("policy")
    roster = Roster(
        fields.text("federation"),
        parse_card(fields.object("coordinator")),
        tuple(parse_card(member) for member in fields.objects("members")),
        Policy(_mode(policy), policy.number("minimum_sites"), policy.number("threshold")),
        fields.number("sequence", least=1, most=MAX_SEQUENCE),
        fields.digest_or_none("previous"),
        file_digest(path),
    )
    verify(document, roster.coordinator, path.name)
    try:
        _check(roster)
    except UsageError as error:
        raise FormatError(f"{path.name}: {error.message}", hint=error.hint or GET_AGAIN) from None
    return roster


def _check(roster: Roster) -> None:
    check_name(roster.federation, "a federation")
    if (roster.sequence == 1) != (roster.previous is None):
        raise UsageError("the first roster of a chain, and no other, has none before it")
    names = list(roster.names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{twice[0]} is in the roster twice", hint="give each member's card once")
    if names != sorted(names):
        raise UsageError("a roster lists its members in order of name")
    owners: dict[bytes, str] = {}
    for party in (roster.coordinator, *roster.members):
        for key in (party.signing, party.sealing, party.transport):
            if key in owners:
                raise UsageError(
                    f"{owners[key]} and {party.name} share a key", hint="each party makes its own with ucadi keygen"
                )
            owners[key] = party.name
    if len(names) > MAX_SUMMANDS:
        raise UsageError(f"{len(names)} members; at most {MAX_SUMMANDS}")
    roster.policy.check(len(names))


def _mode(policy: Fields) -> KeyMode:
    match policy.text("mode"):
        case "members":
            return "members"
        case "threshold":
            return "threshold"
        case other:
            raise FormatError(f"unknown key mode {other!r}", hint=GET_AGAIN)
