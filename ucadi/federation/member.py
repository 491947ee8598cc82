"""A site as a member of its federation: the next thing to do, as its exchange directory and its folder have it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ucadi.commands.encrypt import encrypt
from ucadi.commands.train import train
from ucadi.errors import MismatchError
from ucadi.federation.awaiting import Awaited, Awaits
from ucadi.federation.judging import Ended
from ucadi.federation.opening import Opener
from ucadi.federation.station import Station
from ucadi.files import copy_file, write_file
from ucadi.formats.ledger import What
from ucadi.formats.receipt import Receipt
from ucadi.formats.statement import Statement
from ucadi.kinds import Kind
from ucadi.rounds.closing import led_rounds, read_round
from ucadi.rounds.handing import has_to_hand_over, write_handover
from ucadi.rounds.histories import check_one_history
from ucadi.rounds.round import Round
from ucadi.rounds.succession import Voided, read_statements
from ucadi.rounds.vouching import standing_receipt


@dataclass
class Site(Station):
    """A site's state, all of which follows from its exchange directory and its private folder."""

    followed: int = 0
    newest: Path | None = None
    awaited: Awaited | None = None
    over: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    _ended: int = 0
    _last: Round | None = None
    _opener: Opener = field(init=False)

    def __post_init__(self) -> None:
        self._opener = Opener(*(getattr(self, one.name) for one in fields(Station)))

    def advance(self) -> bool:
        """Does the next thing that can be done; False if there is nothing to do until others have done theirs."""
        self.followed, self.awaited = 0, Awaited(Awaits.FIRST_ROUND)
        if self._agreeing.publish():
            return True
        numbers = led_rounds(self.exchange, self.trusted.coordinator)
        before: Ended | None = None
        for number in numbers:
            round_ = read_round(self.exchange, number)
            round_.roster.check_same_federation(self.trusted, self.exchange.roster(number).name)
            if self.keys.name not in round_.roster.names:
                self.awaited = Awaited(Awaits.ROSTER, number)
                continue
            if before is not None and not self._continues(number, round_, before):
                return False
            found = standing_receipt(self.exchange, number, round_)
            self._last = round_
            if self._hand_over(number, round_, before):
                return True
            if found is None:
                return number == numbers[-1] and self._contribute(number, round_)
            receipt, self._ended = found[0], number
            check_one_history(self.exchange, receipt, round_.roster, self.private.evidence)
            if receipt.status == "void":
                before = Ended(round_, receipt, round_.plan.base, {})
                self.agreement.enter_void(round_.plan_digest)
                self.awaited = Awaited(Awaits.AFTER_VOID, number)
                continue
            if self.keys.name in receipt.contributions and self._checking.publish_tag(number, round_, found[1]):
                self.tell("tag", {"round": number})
                return True
            statements = read_statements(self.exchange, number, round_)
            leads_to, moved = self._follow(number, round_, receipt, found[1], statements)
            if moved:
                return True
            before = Ended(round_, receipt, leads_to, statements)
            if leads_to is not None:
                self._conclude(number, before, is_last=number == numbers[-1])
        if numbers:
            self.awaited = self._agreeing.ahead(numbers[-1] + 1) or self.awaited
        return False

    def has_ended(self, until_round: int | None) -> bool:
        """Whether round `until_round`, or the schedule's last, is over and its model is here."""
        if self._last is None or self._ended == 0:
            return False
        schedule = self._last.plan.schedule
        last = until_round or -(-schedule.total_epochs // schedule.local_epochs)
        waits = None if self.awaited is None else self.awaited.what
        self.over = self._ended >= last and waits in (Awaits.NEXT_ROUND, Awaits.AFTER_VOID)
        if self.over:
            self.awaited = None
        return self.over

    # a round's parts

    def _contribute(self, number: int, round_: Round) -> bool:
        """Trains and encrypts, unless that is done; whether anything was."""
        if self.keys.name not in round_.plan.sites:
            self.awaited = Awaited(Awaits.CHOICE, number)
            return False
        if self._stands(Kind.UPLOAD, number, round_):
            what = What.COUNTED if round_.is_counting else What.ENCRYPTED
            self._agreeing.check_remembers(what, Kind.UPLOAD, number, round_)
            self.awaited = Awaited(Awaits.END, number)
            return False
        if self._is_summed(number, round_):
            self.awaited = Awaited(Awaits.END, number)
            return False
        if awaited := self._agreeing.awaited(number, round_):
            self.awaited = awaited
            return False
        base = self._models.base(number, round_)
        if base is None:
            self.awaited = Awaited(Awaits.MODEL, number)
            return False
        plan, roster = self._documents(number)
        update = self.private.of_round(round_, "update")
        if not update.exists():
            self.tell("training", {"round": number, "epochs": round_.plan.schedule.local_epochs})
            result = train(
                self.options.dataset,
                base=base,
                plan=plan,
                roster=roster,
                site=self.keys.name,
                output=update,
                split=self.options.split,
                part=self.options.part,
                local_norms=self._models.norms(number, round_),
                checkpoint=self.private.of_round(round_, "checkpoint"),
            )
            self.private.note_seconds(round_, training=result.seconds)
            self.tell("trained", {"round": number, "loss": result.loss[-1], "seconds": result.seconds})
        upload = self.private.of_round(round_, "enc")  # what the tag is made of, whatever becomes of its place
        if not upload.exists():
            began = time.perf_counter()
            encrypted = encrypt(
                update,
                plan=plan,
                roster=roster,
                key=self.key,
                output=upload,
                clip=self.options.clip,
                exchange=self.exchange.root,
                max_rounding=self.options.max_rounding,
            )
            self.private.note_seconds(round_, encryption=time.perf_counter() - began)
            told = {"bytes": encrypted.bytes, "clipped": encrypted.clipped, "rounding": encrypted.rounding}
            self.tell("encrypted", {"round": number, **told})
        copy_file(upload, self._place(Kind.UPLOAD, number), force=True)
        return True

    def _continues(self, number: int, round_: Round, before: Ended) -> bool:
        """Whether the round may begin where it does; MismatchError if not, False while too little is known to say."""
        if round_.plan.base != before.round_.plan.base and self.private.of_round(before.round_, "void").exists():
            raise MismatchError(
                f"round {number} begins with a model that the sites have made void",
                hint="do not go on, and ask the coordinator",
            )
        awaited = before.check_next(number, round_.plan.base, self.keys.name)
        self.awaited = awaited or self.awaited
        return awaited is None

    def _conclude(self, number: int, ended: Ended, *, is_last: bool) -> None:
        """Notes where a closed round leads, by this site's result and, once it can be said, by all sites' words."""
        outcome, noted = ended.outcome(), self.private.of_round(ended.round_, "void")
        if is_last and isinstance(outcome, Voided) and not noted.exists():
            write_file(noted, outcome.reason.encode())
            self.tell("void", {"round": number, "why": outcome.reason, "sites": outcome.sites})
        is_void = isinstance(outcome, Voided) or ended.leads_to == ended.round_.plan.base
        if is_void:
            self.agreement.enter_void(ended.round_.plan_digest)
        model = self.private.model(ended.round_.plan.base if is_void else ended.leads_to or "")
        self.followed += not is_void
        if model.exists():
            self.newest = model
            self.private.point_latest(model)
        self.awaited = Awaited(Awaits.AFTER_VOID if is_void else Awaits.NEXT_ROUND, number)

    def _follow(
        self, number: int, round_: Round, receipt: Receipt, digest: str, statements: Mapping[str, Statement]
    ) -> tuple[str | None, bool]:
        """Goes from a closed round to the model that it leads to: its digest once it is here, and whether anything
        was done. A round that the site has found void leads to its base."""
        said = statements.get(self.keys.name)
        if said and said.ledger:
            self.agreement.check_remembers(said.ledger, self.exchange.path(Kind.METRICS, number, self.keys.name).name)
        if said and said.void:
            return round_.plan.base, False
        if said and said.model and self.private.model(said.model).exists():
            self.metrics = said.metrics or self.metrics
            self.private.forget_round_keys(number)
            return said.model, False
        if awaited := self._agreeing.awaited(number, round_):
            self.awaited = awaited
            return None, False
        base = self._models.base(number, round_)
        if base is None:
            self.awaited = Awaited(Awaits.EARLIER_MODEL, number)
            return None, False
        if not self._is_summed(number, round_):
            self.awaited = Awaited(Awaits.SUM, number)
            return None, False
        leads_to, moved = self._opener.open(number, round_, receipt, digest, base, statements)
        self.awaited, self.metrics = self._opener.awaited or self.awaited, self._opener.metrics or self.metrics
        return leads_to, moved

    def _hand_over(self, number: int, round_: Round, before: Ended | None) -> bool:
        """Seals the model for those who are new in this round, or could not open the last, if that is this site's."""
        model = self.private.model(round_.plan.base)
        if before is None or not model.exists():
            return False
        if not has_to_hand_over(self.keys.name, round_, before.round_, before.receipt, before.statements):
            return False
        if self._stands(Kind.HANDOVER, number, round_) or self._agreeing.awaited(number, round_):
            return False
        write_handover(self._place(Kind.HANDOVER, number), model, round_, self.keys, force=True)
        self.tell("handed over", {"round": number})
        return True
