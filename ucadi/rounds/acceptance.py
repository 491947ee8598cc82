"""Accepting a roster: what changes against the one accepted before, and the consent that says so to all others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ucadi.errors import ConsentError, FormatError, MismatchError, UsageError
from ucadi.files import copy_file, make_folder
from ucadi.formats import consent as consent_format
from ucadi.formats import policy as policy_format
from ucadi.formats import roster as roster_format
from ucadi.formats.consent import Consent
from ucadi.formats.ledger import Entry, What
from ucadi.formats.policy import SitePolicy
from ucadi.formats.roster import Roster
from ucadi.identity import PublicKeys, SecretKeys
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.consents import consent_path, consents_beside
from ucadi.rounds.lot import anchor

_MOST_LINES = 12
"""Lines of changes that are shown; the fingerprint stands for them all."""


@dataclass(frozen=True)
class Proposal:
    """A roster that waits for a person's yes: the one accepted before, None for a first one, and what changes."""

    roster: Roster
    path: Path
    before: Roster | None
    changes: tuple[str, ...]

    def __str__(self) -> str:
        head = f"roster {self.roster.sequence} of {self.roster.federation}, signed by {self.roster.coordinator.name}"
        since = "the first that this site accepts" if self.before is None else f"since roster {self.before.sequence}"
        shown = self.changes if len(self.changes) <= _MOST_LINES else self.changes[: _MOST_LINES - 1]
        more = len(self.changes) - len(shown)
        return "\n".join(
            [
                f"{head}; {since}:",
                *(f"  {line}" for line in shown),
                *([f"  and {more} more: ucadi roster show {self.path}"] if more else []),
                f"fingerprint of all of it  {self.roster.fingerprint}",
                "Compare it by telephone with the coordinator and one other site, at a number that you know.",
            ]
        )


def propose(path: Path, keys: SecretKeys, agreement: Agreement) -> Proposal:
    """Reads the roster at `path` as these keys' next one.

    Raises MismatchError if it does not follow, through rosters beside it, from the one accepted before; ConsentError if
    one in between lists this site and is to be accepted first.
    """
    roster = roster_format.read(path)
    roster.index(keys)
    newest = agreement.newest_accepted(roster.federation)
    before = None
    if newest is not None and newest.document != roster.digest:
        between = _chain(roster, path, newest)
        before = agreement.accepted_roster(newest)
        for held, earlier in between:
            if keys.name in held.names:
                raise ConsentError(
                    f"{path.name}: roster {held.sequence} comes before it, and is not accepted yet",
                    hint=f"ucadi roster accept {earlier}",
                )
        roster.check_same_federation(before, path.name)
    return Proposal(roster, path, before, tuple(_changes(before, roster)))


def accept(
    proposal: Proposal, keys: SecretKeys, agreement: Agreement, policy: SitePolicy | None, size_band: int | None
) -> Path:
    """Enters the roster in the ledger and writes the consent beside it; returns the consent's path.

    `policy` is written unless there is one and it is None. Done again, it does the same again: UsageError for another
    size band, as a consent that others may have does not change.
    """
    roster, path = proposal.roster, proposal.path
    written = consent_path(make_folder(consents_beside(path)), roster, keys.name)
    kept = agreement.kept_consent(roster.digest)
    if kept.exists() and consent_format.read(kept, keys.public).size_band != size_band:
        raise UsageError("the consent to this roster states another size band", hint="state it with the next roster")
    agreement.keep_roster(path, roster)
    if policy is not None or not agreement.policy_path.exists():
        policy_format.write(agreement.policy_path, policy or policy_format.default_for(roster), force=True)
    if not agreement.has_accepted(roster):
        agreement.ledger.add(Entry(What.ACCEPTED, roster.federation, roster.sequence, roster.digest))
    if kept.exists():
        copy_file(kept, written, force=True)
        return written
    head = agreement.ledger.read().head
    lot = anchor(keys, roster.federation)
    consent = Consent(roster.federation, roster.digest, roster.sequence, keys.name, head, lot, size_band)
    consent_format.write(written, consent, keys, force=True)
    agreement.keep_consent(written, roster)
    return written


def _chain(roster: Roster, path: Path, newest: Entry) -> list[tuple[Roster, Path]]:
    """The rosters between the one of a ledger's line and this one, the file `path`, the newest first."""
    if roster.sequence <= newest.number:
        raise MismatchError(
            f"{path.name}: roster {roster.sequence} of {roster.federation}; roster {newest.number} is accepted here",
            hint="an earlier roster, or another history of the federation: do not use it, ask the coordinator",
        )
    beside = {}
    for other in path.parent.glob("*.json"):
        try:
            held = roster_format.read(other)
        except (FormatError, MismatchError):
            continue
        beside[held.digest] = (held, other)
    between: list[tuple[Roster, Path]] = []
    current, name = roster, path.name
    while current.previous != newest.document:
        found = beside.get(current.previous or "")
        if found is None or current.sequence - 1 <= newest.number:
            raise MismatchError(
                f"{name}: roster {current.sequence}, which does not follow from roster {newest.number}, accepted here",
                hint="put all rosters of the federation beside it; if they are there, there are two histories: ask",
            )
        current.check_follows(found[0], name)
        between.append(found)
        current, name = found[0], found[1].name
    return between


def _changes(before: Roster | None, after: Roster) -> list[str]:
    """What a person has to compare and decide, a line each."""
    width = max(map(len, (after.coordinator.name, *after.names)))
    lines = [] if before is not None else [_party("coordinator", after.coordinator, width)]
    old = {} if before is None else {member.name: member for member in before.members}
    for member in after.members:
        if member.name not in old:
            lines.append(_party("joins" if old else "member", member, width))
        elif old[member.name] != member:
            lines.append(_party("new keys", member, width))
    left = sorted(set(old) - set(after.names))
    lines += [f"leaves       {name}" for name in left]
    if before is None or str(before.policy) != str(after.policy):
        lines.append(f"now          {after.policy}" if before else f"opening      {after.policy}")
    return lines


def _party(what: str, keys: PublicKeys, width: int) -> str:
    return f"{what:<12} {keys.name:<{width}}  {keys.fingerprint}"
