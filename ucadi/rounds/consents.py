"""The members' consents to a roster: where they lie, and which are missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ucadi.errors import UcadiError
from ucadi.formats import consent as consent_format
from ucadi.formats.consent import Consent
from ucadi.formats.roster import Roster
from ucadi.kinds import Kind, Place


def how_to_accept(roster: Path, key: Path) -> str:
    """What people at a site do about a roster that is not accepted."""
    return f"look at it and accept it: ucadi roster accept {roster} --key {key}"


def consents_beside(roster: Path) -> Path:
    """Where the consents to a roster lie: in the folder `consents` beside it, as in an exchange directory."""
    return roster.parent / Path(Place(Kind.CONSENT, 1, "-").name).parent


def consent_path(folder: Path, roster: Roster, site: str) -> Path:
    """Where the consent of a site to a roster lies in the folder of consents."""
    return folder / Path(Place(Kind.CONSENT, roster.sequence, site).name).name


def read_consents(roster: Roster, folder: Path) -> dict[str, Consent]:
    """The members' consents to this very roster, by site; what is none, or not theirs, is as if it were not there."""
    found = {}
    for member in roster.members:
        path = consent_path(folder, roster, member.name)
        try:
            consent = consent_format.read(path, member)
            consent_format.check_for(consent, roster, path.name)
        except UcadiError:
            continue
        found[member.name] = consent
    return found


def missing_consents(roster: Roster, sites: Sequence[str], folder: Path, own: str = "") -> tuple[str, ...]:
    """Whose consent to the roster a round of these sites lacks: of each, and of as many members as open its sum.

    `own` is one's own name: that one has accepted is known without a file.
    """
    given = {*read_consents(roster, folder), own}
    needed = len(roster.members) if roster.policy.mode == "members" else roster.policy.threshold
    asked = roster.names if len(given) < needed else sites
    return tuple(name for name in asked if name not in given)
