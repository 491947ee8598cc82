"""ucadi coordinate: a coordinator's part in every round, which reads nothing that the sites compute."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer

from ucadi import units
from ucadi.commands import HEADROOM, Headroom, KeyFile, LogFile
from ucadi.errors import UsageError
from ucadi.events import Events
from ucadi.federation.awaiting import Awaited, Awaits, Teller
from ucadi.federation.transport import Poll, RelayAddress, RelayCard, Transport, transport_to
from ucadi.formats import keys as key_format
from ucadi.formats import plan as plan_format
from ucadi.formats import statement as statement_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.receipt import Receipt
from ucadi.formats.roster import Roster
from ucadi.formats.signed import is_signed
from ucadi.formats.statement import Statement
from ucadi.identity import SecretKeys
from ucadi.kinds import Kind, Place
from ucadi.rounds.closing import close, led_rounds, read_round
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.consents import consents_beside, missing_consents
from ucadi.rounds.lot import drawn, links
from ucadi.rounds.round import Round
from ucadi.rounds.succession import Following, Voided, agreed, next_plan, read_statements, votes_of
from ucadi.rounds.tagging import Tags, read_round_tags, read_uploads
from ucadi.rounds.vouching import newest_roster, standing_receipt


@dataclass(frozen=True)
class CoordinateResult:
    """How the rounds went: the digest of the last model, and of each round its status and who was not in it.

    `void` says why the sites made a closed round void, `votes` how those who compared its model with its base voted.
    """

    federation: str
    model: str | None
    rounds: dict[int, str]
    missing: dict[int, tuple[str, ...]]
    waiting_for: str | None
    void: dict[int, str] = field(default_factory=dict)
    votes: dict[int, dict[str, str]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = []
        for number, status in self.rounds.items():
            missing = self.missing[number]
            why = f" ({self.void[number]})" if number in self.void else ""
            votes = "; ".join(f"{site} votes {vote}" for site, vote in self.votes.get(number, {}).items())
            missed = f"; without {', '.join(missing)}" if missing else ""
            lines.append(f"round {number}: {status}{why}{missed}" + (f"; {votes}" if votes else ""))
        lines += [f"model: sha256 {self.model}"] if self.model else []
        lines += [f"waiting for {self.waiting_for}"] if self.waiting_for else []
        return "\n".join(lines)


def coordinate(
    exchange: Annotated[Path, typer.Argument(help="The exchange directory, in which a first round is open.")],
    *,
    key: KeyFile,
    until_round: Annotated[
        int | None, typer.Option(help="End when this round is over [default: at the schedule's end].", min=1, max=9999)
    ] = None,
    deadline: Annotated[
        float | None,
        units.time(None, "0s", "Close a round after this time, without who is missing [default: wait for all]."),
    ] = None,
    sites: Annotated[
        int | None,
        typer.Option(
            help="Sites in a round, drawn by lot; all until it can be drawn [default: all].",
            min=2,
            max=10_000,
        ),
    ] = None,
    headroom: Headroom = None,
    relay: RelayAddress = None,
    relay_card: RelayCard = None,
    once: Annotated[
        bool, typer.Option("--once", help="Do what can be done now, say what is awaited, and end.")
    ] = False,
    poll: Poll = 1.0,
    log: LogFile = None,
    as_json: bool = False,
) -> CoordinateResult:
    """Lead a federation's rounds: close each, sign its receipt, open the next, as the first was opened.

    A round is closed when all its sites have sent, or after --deadline. A round below its quorum is void; the missing
    sites are named. The next begins with the model that more than half of the contributing sites state; the model
    itself is never seen here. It begins where this one did if more than half find the sum of no use, or if most of two
    votes or more find the model worse than before; while votes can still decide, they are awaited until --deadline. A
    newer roster in the directory holds from the next round on. Kill and restart it at any time; it resumes.

    Example:
        ucadi coordinate exchange --key coordinator.key --deadline 1d --once
    """
    keys = key_format.read_key(key)
    folder = Exchange(exchange)
    first = (led_rounds(folder, keys.public) or folder.opened_rounds())[0]
    read_round(folder, first).roster.check_led_by(keys, key.name)
    events = Events(as_json=as_json, log=log)
    doublings = HEADROOM if headroom is None else headroom
    coordinator = Coordinator(folder, keys, Agreement(key, keys), until_round, deadline, sites, doublings, events)
    with transport_to(relay, relay_card, keys, folder, events) as line:
        _run(coordinator, line, once=once, poll=poll)
    return coordinator.result()


def _run(coordinator: Coordinator, line: Transport, *, once: bool, poll: float) -> None:
    tell = Teller(coordinator.tell)
    line.bring()
    while True:
        moved = coordinator.advance()
        if moved:
            line.bring()
        elif once or coordinator.awaited is None:
            return
        else:
            tell(coordinator.awaited)
            time.sleep(poll)
            line.bring()


@dataclass
class Coordinator:
    """A coordinator's state, all of which follows from its exchange directory."""

    exchange: Final[Exchange]
    keys: Final[SecretKeys]
    agreement: Final[Agreement]
    until_round: Final[int | None]
    deadline: Final[float | None]
    sites: Final[int | None]
    headroom: Final[int]
    tell: Final[Events]
    awaited: Awaited | None = None
    _late: set[str] = field(default_factory=set)
    _sent: set[tuple[int, str]] = field(default_factory=set)
    _tags: dict[tuple[int, str], bool] = field(default_factory=dict)
    """Whether the tag of a site in a round is that of its upload."""

    def advance(self) -> bool:
        """Does the next thing that can be done; False if there is nothing to do, or all is done (`awaited` is None)."""
        numbers = led_rounds(self.exchange, self.keys.public)
        if not numbers:
            raise UsageError("no round is open yet", hint="ucadi round open --exchange DIR opens the first")
        number = numbers[-1]
        round_ = read_round(self.exchange, number)
        found = standing_receipt(self.exchange, number, round_)
        if found is None:
            return self._close(number, round_)
        receipt = found[0]
        self._tell_late(number, receipt)
        following: Following | Voided | None = None
        if receipt.status == "closed":
            following = self._outcome(number, round_, receipt)
            if following is None:
                self.awaited = self._lacking(number, round_, *found)
                return False
        if number >= self._last(round_):
            self.awaited = None
            return False
        roster = newest_roster(self.exchange)
        if isinstance(following, Voided):
            self.tell("void", {"round": number, "why": following.reason, "sites": following.sites})
        plan = next_plan(round_, following, roster, self._asked(roster, number + 1), self.headroom)
        if missing := missing_consents(roster, plan.sites, consents_beside(self.exchange.newest_roster())):
            self.awaited = Awaited(Awaits.CONSENTS, number + 1, missing)
            return False
        plan_format.write(self.exchange.clear_place(Kind.PLAN, number + 1), plan, self.keys)
        self.tell("opened", {"round": plan.round, "base": plan.base, "sites": plan.sites, "quorum": plan.quorum})
        return True

    def result(self) -> CoordinateResult:
        """How the rounds went so far."""
        status: dict[int, str] = {}
        missing: dict[int, tuple[str, ...]] = {}
        void: dict[int, str] = {}
        votes: dict[int, dict[str, str]] = {}
        model, federation = None, ""
        for number in led_rounds(self.exchange, self.keys.public):
            round_ = read_round(self.exchange, number)
            found = standing_receipt(self.exchange, number, round_)
            receipt = found[0] if found else None
            status[number] = receipt.status if receipt else "open"
            missing[number] = receipt.missing if receipt else ()
            federation = round_.plan.federation
            if receipt and receipt.status == "closed":
                outcome = self._outcome(number, round_, receipt)
                model = outcome.model if isinstance(outcome, Following) else None
                votes[number] = votes_of(read_statements(self.exchange, number, round_), receipt)
                if isinstance(outcome, Voided):
                    model, status[number], void[number] = round_.plan.base, "void", outcome.reason
        waiting = None if self.awaited is None else str(self.awaited)
        return CoordinateResult(federation, model, status, missing, waiting, void, votes)

    def _outcome(self, number: int, round_: Round, receipt: Receipt) -> Following | Voided | None:
        """What the sites say that a closed round leads to; after the deadline, nobody is waited for."""
        late = self._is_overdue(self.exchange.receipt(number))
        return agreed(read_statements(self.exchange, number, round_), receipt, round_, late=late)

    def _last(self, round_: Round) -> int:
        schedule = round_.plan.schedule
        return self.until_round or -(-schedule.total_epochs // schedule.local_epochs)

    def _close(self, number: int, round_: Round) -> bool:
        """Closes the round if all have sent or time is up; whether it did."""
        here = {place.site for place in self.exchange.places(Kind.UPLOAD, number) if self._is_of_site(place, round_)}
        self._tell_sent(number, here)
        missing = [site for site in round_.plan.sites if site not in here]
        if missing and not self._is_overdue(self.exchange.plan(number)):
            self.awaited = Awaited(Awaits.UPLOADS, number, tuple(missing))
            return False
        began = time.perf_counter()
        receipt = close(self.exchange, number, round_, self.keys, self.agreement)
        seconds = round(time.perf_counter() - began, 3)
        times = Statement(self.keys.name, round_.plan_digest, seconds={"aggregation": seconds})
        statement_format.write(self.exchange.make_place(Kind.TIMES, number), times, self.keys, force=True)
        told = {"round": number, "sites": sorted(receipt.contributions), "missing": receipt.missing, "seconds": seconds}
        self.tell(receipt.status, told)
        for name, why in receipt.refused.items():
            self.tell("refused", {"round": number, "file": name, "why": why})
        return True

    def _is_of_site(self, place: Place, round_: Round) -> bool:
        """Whether a site itself put a file in its place, good or bad; a stranger's counts as none."""
        if place.site not in round_.roster.names:
            return False
        return is_signed(self.exchange.root / place.name, round_.roster.member(place.site), round_.plan_digest)

    def _asked(self, roster: Roster, number: int) -> tuple[str, ...]:
        """Who takes part: all members, or so many as --sites says, drawn by lot."""
        if self.sites is None:
            return roster.names
        return drawn(roster, number, self.sites, links(roster, number, self.exchange.root))

    def _is_overdue(self, since: Path) -> bool:
        # by this machine's clock alone, from when the file was written here; a clock that went back only waits longer
        return self.deadline is not None and time.time() - since.stat().st_mtime > self.deadline

    def _lacking(self, number: int, round_: Round, receipt: Receipt, digest: str) -> Awaited:
        """What the sites have to do before the next round can be opened, and who."""
        tags = read_round_tags(self.exchange, number, round_, receipt, digest)
        if false := self._judge(number, tags):
            return Awaited(Awaits.TRUE_TAGS, number, false)
        if tags.missing:
            return Awaited(Awaits.TAGS, number, tags.missing)
        return Awaited(Awaits.STATEMENTS, number, self._silent(number, round_, receipt))

    def _judge(self, number: int, tags: Tags) -> tuple[str, ...]:
        """Tells of each tag once; the sites whose tag is not that of their upload, which only who has that can see."""
        new = [site for site in tags.tags if (number, site) not in self._tags]
        false = tags.false(read_uploads(self.exchange, number, tags.round_, new))
        for site in new:
            self._tags[number, site] = site not in false
            self.tell("false tag" if site in false else "tag", {"round": number, "site": site})
        return tuple(site for site in tags.tags if not self._tags[number, site])

    def _silent(self, number: int, round_: Round, receipt: Receipt) -> tuple[str, ...]:
        """The contributing sites that have stated nothing yet."""
        said = read_statements(self.exchange, number, round_)
        return tuple(site for site in sorted(receipt.contributions) if site not in said)

    def _tell_sent(self, number: int, here: set[str]) -> None:
        """Tells of each upload once; whether it is good is seen when the round is closed."""
        for site in sorted(here):
            if (number, site) not in self._sent:
                self._sent.add((number, site))
                self.tell("upload", {"round": number, "site": site})

    def _tell_late(self, number: int, receipt: Receipt) -> None:
        for place in self.exchange.places(Kind.UPLOAD, number):
            refused = f"{place.site}.enc" in receipt.refused
            if place.site in receipt.missing and not refused and place.name not in self._late:
                self._late.add(place.name)
                self.tell("late", {"round": number, "site": place.site, "why": "the round is over; it changes nothing"})
