"""Consent: what a site has agreed to, and whether a round is within it.

A coordinator's signature proposes; nothing that weakens what a site agreed to takes effect there before people at
the site accept it. A site takes part only under rosters that it accepted and that the others accepted too, in rounds
that its policy admits, and gives one answer to each question, as its ledger has it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from ucadi.errors import ConsentError, MismatchError, UsageError
from ucadi.fed.update import Update
from ucadi.files import make_folder, read_bytes, write_file
from ucadi.formats import policy as policy_format
from ucadi.formats import roster as roster_format
from ucadi.formats.container import MAX_HEADER, tensor_digest
from ucadi.formats.ledger import Entry, Ledger, What
from ucadi.formats.policy import SitePolicy
from ucadi.formats.roster import Roster
from ucadi.identity import SecretKeys
from ucadi.rounds.consents import consents_beside, how_to_accept, missing_consents
from ucadi.rounds.lot import drawn, links
from ucadi.rounds.round import Round


class Agreement:
    """What the owner of a key agreed to and did: the ledger and the policy beside the key."""

    def __init__(self, key: Path, keys: SecretKeys) -> None:
        self.ledger: Final = Ledger.beside(key, keys.public)
        self._keys: Final = keys
        self._key: Final = key
        self.policy_path: Final = policy_format.beside(key)
        self._accepted_folder: Final = key.resolve().with_suffix(".accepted")

    def hand_on(self, other: Agreement) -> None:
        """Gives all of it to the keys that replace these: the ledger itself, and copies of the rest."""
        self.ledger.hand_on(other.ledger)
        if self.policy_path.exists():
            shutil.copyfile(self.policy_path, other.policy_path)
        if self._accepted_folder.exists():
            shutil.copytree(self._accepted_folder, other._accepted_folder)

    def policy(self, roster: Roster) -> SitePolicy:
        """What the site takes part in; the default for this roster where there is no file."""
        return policy_format.read(self.policy_path) if self.policy_path.exists() else policy_format.default_for(roster)

    def has_accepted(self, roster: Roster) -> bool:
        """Whether people at this site have accepted this very roster."""
        return any(entry.document == roster.digest for entry in self.accepted(roster.federation))

    def check_remembers(self, link: str, document: str) -> None:
        """Raises MismatchError unless the ledger has the line that a signed `document` of these keys was made after."""
        history = self.ledger.read()
        if link not in history.links and not any(entry.document == link for entry in history.entries):
            raise self._forgotten(document)

    def check_remembers_doing(self, what: What, round_: Round, document: str) -> None:
        """The same for an upload or an answer, which is entered before it is made."""
        if not any(
            entry.document == round_.plan_digest for entry in self.ledger.read().of(what, round_.plan.federation)
        ):
            raise self._forgotten(document)

    def newest_accepted(self, federation: str) -> Entry | None:
        """The line of the roster of the highest sequence that was accepted of a federation."""
        return max(self.accepted(federation), key=lambda entry: entry.number, default=None)

    def keep_roster(self, path: Path, roster: Roster) -> None:
        """Keeps a copy of a roster that is accepted, to compare the next one with."""
        kept = make_folder(self._accepted_folder, mode=0o700) / f"{roster.digest}.json"
        write_file(kept, read_bytes(path, MAX_HEADER), force=True)

    def accepted_roster(self, entry: Entry) -> Roster:
        """The roster of a line of the ledger."""
        kept = self._accepted_folder / f"{entry.document}.json"
        roster = roster_format.read(kept)
        if roster.digest != entry.document:
            raise MismatchError(f"{kept}: not the roster that was accepted", hint="bring that file back from a backup")
        return roster

    def keep_consent(self, consent: Path, roster: Roster) -> None:
        """Keeps a copy of this site's consent to a roster, to be shown wherever it is missed."""
        write_file(self.kept_consent(roster.digest), read_bytes(consent, MAX_HEADER), force=True)

    def kept_consent(self, roster: str) -> Path:
        """Where the consent to the roster of this digest is kept."""
        return self._accepted_folder / f"{roster}.consent.json"

    def trusted(self) -> Roster:
        """The newest roster that was accepted, where all are of one federation; ConsentError if none was."""
        accepted = [entry for entry in self.ledger.read().entries if entry.what is What.ACCEPTED]
        federations = sorted({entry.federation for entry in accepted})
        if not accepted:
            raise ConsentError(
                f"{self._keys.name} has accepted no roster yet", hint="ucadi roster accept federation.json --key KEY"
            )
        if len(federations) > 1:
            raise UsageError(
                f"{self._keys.name} is in {' and '.join(federations)}", hint="say which one: --roster federation.json"
            )
        return self.accepted_roster(max(accepted, key=lambda entry: entry.number))

    def check_round(self, round_: Round, roster: Path) -> None:
        """Raises ConsentError unless this site takes part in the round: its roster, the file `roster`, is accepted here
        and by the others, and the policy admits it."""
        round_.roster.index(self._keys)
        if not self.has_accepted(round_.roster):
            raise ConsentError(
                f"{roster}: roster {round_.roster.sequence} of {round_.roster.federation} is not accepted by this site",
                hint=how_to_accept(roster, self._key),
            )
        if missing := missing_consents(round_.roster, round_.plan.sites, consents_beside(roster), self._keys.name):
            raise ConsentError(
                f"round {round_.plan.round}: not all have accepted roster {round_.roster.sequence}; "
                f"no consent of {', '.join(missing)} in {consents_beside(roster)}",
                hint="bring the consents there that ucadi roster accept has made at each site",
            )
        for setting, value in _excluded(self.policy(round_.roster), round_):
            raise self._excluded(f"round {round_.plan.round} has {value}", setting, round_)
        self._check_lot(round_, roster.parent)

    def _check_lot(self, round_: Round, exchange: Path) -> None:
        """Raises ConsentError unless a round asks all members, or those whom the lot draws."""
        plan, members = round_.plan, round_.roster
        if plan.sites == members.names:
            return
        if plan.sites != drawn(members, plan.round, len(plan.sites), links(members, plan.round, exchange)):
            raise ConsentError(
                f"round {plan.round} asks {', '.join(plan.sites)}, whom the lot does not draw",
                hint="ask the coordinator for a round of all; a lot is drawn from statements on the round before",
            )

    def check_summed(self, sites: tuple[str, ...], round_: Round) -> None:
        """Raises ConsentError if the policy asks for more sites in a sum."""
        if len(sites) < self.policy(round_.roster).minimum_sites:
            raise self._excluded(
                f"the sum of round {round_.plan.round} is of {len(sites)} sites", "minimum_sites", round_
            )

    def enter_update(self, update: Update, round_: Round) -> None:
        """Enters an update before it is encrypted for the round; MismatchError if that could disclose it."""
        entry = self._entry(What.ENCRYPTED, round_, content_digest(update), base=round_.plan.base)
        self._enter(entry, _refuse_update)

    def enter_counts(self, update: Update, round_: Round) -> None:
        """Enters counts before they are encrypted: of each model once, unless the round of before is void."""
        self._enter(self._entry(What.COUNTED, round_, content_digest(update), base=round_.plan.base), _refuse_counts)

    def enter_void(self, plan: str) -> None:
        """Enters that the round of a plan, by digest, came to nothing: from its base the site may train anew."""
        with self.ledger.adding() as draft:
            entries = draft.history.entries
            done = next((entry for entry in entries if entry.what in _CONTRIBUTED and entry.document == plan), None)
            if done is not None and plan not in _void(entries):
                draft.add(Entry(What.VOID, done.federation, done.number, plan))

    def enter_answer(self, contributions: str, round_: Round) -> None:
        """Enters the set of contributions before this holder helps to open their sum; MismatchError for another set."""
        entry = self._entry(What.ANSWERED, round_, contributions)
        self._enter(entry, _refuse_answer)

    def enter_sum(self, contributions: str, sites: tuple[str, ...], round_: Round) -> None:
        """Enters the set that this coordinator is about to sum; MismatchError if it has summed another one."""
        entry = self._entry(What.SUMMED, round_, contributions, sites=sites)
        self._enter(entry, _refuse_sum)

    def summed(self, round_: Round) -> tuple[str, ...] | None:
        """Whose uploads this coordinator was about to sum, or has summed; None if it has not begun."""
        of_round = self.ledger.read().of(What.SUMMED, round_.plan.federation)
        return next((entry.sites for entry in of_round if entry.document == round_.plan_digest), None)

    def accepted(self, federation: str) -> list[Entry]:
        """The lines of the rosters of a federation that this site has accepted."""
        return self.ledger.read().of(What.ACCEPTED, federation)

    def _forgotten(self, document: str) -> MismatchError:
        return MismatchError(
            f"{document} bears the signature of {self._keys.name}; {self.ledger.path} knows nothing of it",
            hint="the ledger was lost, or is an old copy: bring the newest one; or ucadi ledger accept-loss",
        )

    def _entry(self, what: What, round_: Round, content: str, base: str = "", sites: tuple[str, ...] = ()) -> Entry:
        plan = round_.plan
        return Entry(what, plan.federation, plan.round, round_.plan_digest, content, base, sites)

    def _enter(self, entry: Entry, refuse: Callable[[Entry, Entry], None]) -> None:
        """Enters a line, unless it is there: what was done may be done again, with the same content. `refuse` raises
        for a line of its kind, the first, that the second cannot stand beside."""
        with self.ledger.adding() as draft:
            entries = draft.history.entries
            if entry not in entries:
                void = _void(entries)
                for before in entries:
                    if before.what is entry.what:
                        refuse(replace(before, base="") if before.document in void else before, entry)
                draft.add(entry)

    def _excluded(self, what: str, setting: str, round_: Round) -> ConsentError:
        value = getattr(self.policy(round_.roster), setting)
        text = str(value).lower() if isinstance(value, bool) else value
        return ConsentError(
            f"{what}; the policy of {self._keys.name} says: {setting} = {text}",
            hint=f"ask the coordinator for another round; or, if people here agree to it, edit {self.policy_path}",
        )


_CONTRIBUTED = (What.ENCRYPTED, What.COUNTED)


def _void(entries: Sequence[Entry]) -> set[str]:
    """The plans of rounds that came to nothing, whose base may be trained from again."""
    return {entry.document for entry in entries if entry.what is What.VOID}


def content_digest(update: Update) -> str:
    """What an update is of, whatever its file says beside it: a digest of its values and its weight."""
    rows = [f"{name} {tensor_digest(update.deltas[name])}" for name in sorted(update.deltas)]
    return hashlib.sha256("\n".join([f"weight {update.weight}", *rows]).encode()).hexdigest()


def _same_round(before: Entry, entry: Entry) -> bool:
    return (before.federation, before.number) == (entry.federation, entry.number)


def _refuse_update(before: Entry, entry: Entry) -> None:
    train = "train for this round from its base, and encrypt that update, once"
    if before.document == entry.document:
        raise MismatchError(f"round {entry.number}: another update was encrypted for this round already", hint=train)
    if _same_round(before, entry):
        raise MismatchError(
            f"round {entry.number}: this site encrypted an update for another plan of that number already",
            hint="two plans of one round are two histories: ask the coordinator by telephone",
        )
    if before.content == entry.content:
        raise MismatchError(f"this update was encrypted before, for round {before.number}", hint=train)
    if before.base == entry.base:
        raise MismatchError(
            f"this site has contributed to a round from base {entry.base[:8]}… already, round {before.number}",
            hint="a second one shows what changed between the two; if that round is void, give its --receipt",
        )


def _refuse_counts(before: Entry, entry: Entry) -> None:
    if before.base == entry.base:
        raise MismatchError(
            f"this site's cases were counted for this model already, in round {before.number}",
            hint="two sums, one with a site and one without, show its counts: count another model",
        )


def _refuse_answer(before: Entry, entry: Entry) -> None:
    if _same_round(before, entry):
        raise MismatchError(
            f"round {entry.number} of {entry.federation}: already decrypted for another set of sites",
            hint="never decrypt two sets: their difference could show one site's update. Open a new round",
        )


def _refuse_sum(before: Entry, entry: Entry) -> None:
    if _same_round(before, entry):
        raise MismatchError(
            f"round {entry.number} of {entry.federation}: summed before, of {', '.join(before.sites)}",
            hint="two sums of one round show what is in one alone: bring back that sum's files, or open a new round",
        )


def _excluded(policy: SitePolicy, round_: Round) -> list[tuple[str, str]]:
    """The settings that exclude a round, each with what the round has."""
    plan, roster = round_.plan, round_.roster
    quorum = max(plan.quorum, roster.policy.minimum_sites)
    threshold = plan.mode == "threshold"
    left_out = ", ".join(name for name in roster.names if name not in plan.sites)
    counts = round_.is_counting
    rules = {
        "members_mode": (not threshold and not policy.members_mode, "a sum that any one member opens"),
        "least_threshold": (
            threshold and roster.policy.threshold < policy.least_threshold,
            f"a sum that {roster.policy.threshold} members open",
        ),
        "minimum_sites": (quorum < policy.minimum_sites, f"a sum of {quorum} sites or more"),
        "lot": (bool(left_out) and not policy.lot, f"no place for {left_out}"),
        "largest_weight_cap": (plan.weight_cap > policy.largest_weight_cap, f"a weight cap of {plan.weight_cap}"),
        "largest_epochs": (plan.schedule.local_epochs > policy.largest_epochs, f"{plan.schedule.local_epochs} epochs"),
        "least_noise": (not counts and plan.schedule.noise < policy.least_noise, f"noise of {plan.schedule.noise:g}"),
        "counting": (counts and not policy.counting, "counts of scores, and no training"),
    }
    return [(setting, value) for setting, (excluded, value) in rules.items() if excluded]
