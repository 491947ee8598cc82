"""ucadi roster accept."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import KeyFile, confirm, set_option
from ucadi.errors import ConsentError, UsageError
from ucadi.fed.sizing import band_of
from ucadi.formats import keys as key_format
from ucadi.formats.policy import SitePolicy
from ucadi.formats.roster import Roster
from ucadi.rounds.acceptance import Proposal, accept, propose
from ucadi.rounds.consenting import Agreement
from ucadi.settings import settings_of

_SETTINGS = settings_of(SitePolicy)


@dataclass(frozen=True)
class AcceptResult:
    """The roster accepted, what changed, and the files made."""

    roster: Path
    sequence: int
    fingerprint: str
    changes: tuple[str, ...]
    consent: Path
    policy: Path

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.roster}: roster {self.sequence} accepted, {self.fingerprint}",
                f"{self.consent}: public, for all others",
                f"{self.policy}: what this site takes part in; edit it as people here decide",
            ]
        )


def roster_accept(
    roster: Annotated[Path, typer.Argument(help="The federation's next roster, with those before it beside it.")],
    *,
    key: KeyFile,
    yes: Annotated[
        str | None,
        typer.Option(metavar="SHA256", help="Do not ask: this is the roster's digest, which people have compared."),
    ] = None,
    size_band: Annotated[
        int | None,
        typer.Option(help="State for all to see that the site has at most the power of four at or above this."),
    ] = None,
    settings: Annotated[list[str] | None, set_option(_SETTINGS, "Change a setting of the site's policy")] = None,
) -> AcceptResult:
    r"""Accept a roster for one's site, after a look at what it changes; nothing else makes it valid there.

    Shows who joins, leaves or has new keys and how sums are opened, and asks. After a yes it writes a signed consent,
    which the other sites wait for, and the site's policy, with --set as asked for.

    Example:
        ucadi roster accept federation.json --key site-a.key \
            --yes "$(sha256sum < federation.json)"
    """
    band = None if size_band is None else band_of(size_band)
    keys = key_format.read_key(key)
    agreement = Agreement(key, keys)
    proposal = propose(roster, keys, agreement)
    policy = _policy(agreement, proposal.roster, settings or [])
    _ask(proposal, yes)
    consent = accept(proposal, keys, agreement, policy, band)
    held = proposal.roster
    return AcceptResult(roster, held.sequence, held.fingerprint, proposal.changes, consent, agreement.policy_path)


def _policy(agreement: Agreement, roster: Roster, settings: list[str]) -> SitePolicy | None:
    """The policy with what was set; None if nothing was, which leaves it as it is."""
    if not settings:
        return None
    changed = {}
    for text in settings:
        name, sign, value = text.partition("=")
        if not sign or name not in _SETTINGS:
            raise UsageError(f"--set {text}: no setting of a policy", hint="settings: " + ", ".join(_SETTINGS))
        changed[name] = _SETTINGS[name].parse(value)
    return replace(agreement.policy(roster), **changed)


def _ask(proposal: Proposal, yes: str | None) -> None:
    """Raises ConsentError unless a person says yes, or gave the digest of this very roster."""
    if yes is not None:
        if yes.replace("-", " ").split()[:1] != [proposal.roster.digest]:
            raise ConsentError(
                f"{proposal.path.name}: its SHA-256 is not the one given with --yes",
                hint="look at it first: ucadi roster show; the digest is what sha256sum prints",
            )
        return
    print(proposal, file=sys.stderr)
    asked = "Have you compared it, and does your site accept it?"
    if not confirm(asked, "run it in a terminal; or --yes SHA256, once people have compared it"):
        raise ConsentError(f"{proposal.path.name}: not accepted", hint="nothing was changed")
