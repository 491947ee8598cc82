"""A site as a member of its federation: the next thing to do, as its exchange directory and its folder have it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypedDict

from ucadi.commands.apply import apply
from ucadi.commands.decrypt import decrypt
from ucadi.commands.encrypt import encrypt
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.predict import predict
from ucadi.commands.train import train
from ucadi.errors import MismatchError, Unsound, UnsoundError
from ucadi.events import Events
from ucadi.fed.fixedpoint import magnitude_exponents
from ucadi.federation.agreeing import Agreeing
from ucadi.federation.awaiting import Awaited, Awaits
from ucadi.federation.checking import Checking
from ucadi.federation.judging import Ended, figures, still_to_come, vote
from ucadi.federation.models import Models
from ucadi.federation.private import Private
from ucadi.files import copy_file, write_file
from ucadi.formats import statement as statement_format
from ucadi.formats import weights as weights_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.ledger import What
from ucadi.formats.receipt import Receipt
from ucadi.formats.roster import Roster
from ucadi.formats.signed import is_signed
from ucadi.formats.statement import Statement, Vote
from ucadi.identity import SecretKeys
from ucadi.kinds import Kind
from ucadi.rounds.closing import members_with_partials, read_receipt, read_round
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.handing import has_to_hand_over, write_handover
from ucadi.rounds.histories import check_one_history
from ucadi.rounds.lot import link
from ucadi.rounds.round import Round
from ucadi.rounds.succession import Voided, read_statements
from ucadi.rounds.tagging import Tags, read_round_tags
from ucadi.rounds.threshold import UnsettledError


@dataclass(frozen=True)
class Options:
    """What a site does with its rounds."""

    dataset: Path
    split: Path | None
    part: str | None
    test: Path | None
    clip: bool
    publish_model: bool
    publish_metrics: bool
    max_rounding: float | None = None


class CheckOptions(TypedDict):
    """Options of partial-decrypt and decrypt: what they check a sum by."""

    receipt: Path
    tag: list[Path]
    unchecked: bool


@dataclass(frozen=True)
class Opening:
    """A closed round whose sum a site is about to open: `total` is its own copy of it, `base` the round's weights."""

    number: int
    round_: Round
    receipt: Receipt
    base: Path
    total: Path


@dataclass
class Site:
    """A site's state, all of which follows from its exchange directory and its private folder."""

    exchange: Final[Exchange]
    trusted: Final[Roster]
    keys: Final[SecretKeys]
    key: Final[Path]
    agreement: Final[Agreement]
    private: Final[Private]
    options: Final[Options]
    tell: Final[Events]
    followed: int = 0
    newest: Path | None = None
    awaited: Awaited | None = None
    over: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    _ended: int = 0
    _last: Round | None = None
    _refused: set[str] = field(default_factory=set)
    _unsettled: tuple[int, tuple[str, ...]] = (0, ())

    def advance(self) -> bool:
        """Does the next thing that can be done; False if there is nothing to do until others have done theirs."""
        self.followed, self.awaited = 0, Awaited(Awaits.FIRST_ROUND)
        numbers = self.exchange.rounds()
        before: Ended | None = None
        for number in numbers:
            round_ = read_round(self.exchange, number)
            round_.roster.check_same_federation(self.trusted, self.exchange.roster(number).name)
            if self.keys.name not in round_.roster.names:
                self.awaited = Awaited(Awaits.ROSTER, number)
                continue
            if before is not None and not self._continues(number, round_, before):
                return False
            found = read_receipt(self.exchange, number, round_)
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
        if self.exchange.has(Kind.SUM, number):
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
            return said.model, False
        if awaited := self._agreeing.awaited(number, round_):
            self.awaited = awaited
            return None, False
        base = self._models.base(number, round_)
        if base is None:
            self.awaited = Awaited(Awaits.EARLIER_MODEL, number)
            return None, False
        if not self.exchange.has(Kind.SUM, number):
            self.awaited = Awaited(Awaits.SUM, number)
            return None, False
        opening = Opening(number, round_, receipt, base, self._checking.own_sum(number, round_, receipt))
        tags = self._tags(opening, digest)
        if tags is None:
            return None, False
        try:
            if round_.plan.mode == "members":
                return self._open(opening, tags, []), True
            if self._help_to_open(opening, tags):
                return None, True
            to_come = still_to_come(self.exchange, number, round_, statements)
            return self._open_together(opening, tags, to_come)
        except UnsoundError as error:
            self.tell("unsound", {"round": number, "why": error.reason, "what": error.message})
            statement = Statement(self.keys.name, round_.plan_digest, void=error.reason, unchecked=tags.missing)
            self._state(number, round_, receipt, statement)
            return None, True

    def _tags(self, opening: Opening, digest: str) -> Tags | None:
        """The tags that the sum is checked by; None while some are awaited."""
        number = opening.number
        tags = read_round_tags(self.exchange, number, opening.round_, opening.receipt, digest)
        for name, why in tags.refused.items():
            if why not in self._refused:
                self._refused.add(why)
                self.tell("refused", {"round": number, "file": name, "why": why})
        if tags.missing and self.agreement.policy(opening.round_.roster).waits_for_tags(self._age(number)):
            what = Awaits.OWN_UPLOAD if self.keys.name in tags.missing else Awaits.TAGS
            self.awaited = Awaited(what, number, tags.missing)
            return None
        return tags

    def _check_by(self, number: int, tags: Tags) -> CheckOptions:
        """What tells partial-decrypt and decrypt to check a sum by these tags."""
        found = [self.exchange.path(Kind.TAG, number, site) for site in tags.tags]
        return {"receipt": self.exchange.receipt(number), "tag": found, "unchecked": bool(tags.missing)}

    def _open_together(self, opening: Opening, tags: Tags, to_come: tuple[str, ...]) -> tuple[str | None, bool]:
        """Opens the sum with the partial decryptions that are here, once they are enough and agree."""
        number, round_ = opening.number, opening.round_
        partials_of = tuple(members_with_partials(self.exchange, number, round_, self.keys)[0])
        threshold = round_.roster.policy.threshold
        if len(partials_of) + len(to_come) < threshold:
            raise UnsoundError(f"{len(partials_of)} of {threshold} shares, and no more can come", Unsound.SHARES)
        if len(partials_of) < threshold:
            missing = tuple(name for name in round_.roster.names if name not in partials_of)
            self.awaited = Awaited(Awaits.PARTIALS, number, missing)
            return None, False
        if self._unsettled != (number, partials_of):
            try:
                partials = [self.exchange.path(Kind.PARTIAL, number, site) for site in partials_of]
                return self._open(opening, tags, partials), True
            except UnsettledError as error:
                if not to_come:
                    raise UnsoundError(error.message, Unsound.SHARES) from None
                self._unsettled = (number, partials_of)
                self.tell("shares disagree", {"round": number, "what": error.message})
        self.awaited = Awaited(Awaits.RIGHT_PARTIALS, number, to_come)
        return None, False

    def _help_to_open(self, opening: Opening, tags: Tags) -> bool:
        """Makes the site's partial decryption of the sum, unless that is done; whether it was."""
        number, round_ = opening.number, opening.round_
        if self._stands(Kind.PARTIAL, number, round_):
            self._agreeing.check_remembers(What.ANSWERED, Kind.PARTIAL, number, round_)
            return False
        plan, roster = self._documents(number)
        partial, by = self._place(Kind.PARTIAL, number), self._check_by(number, tags)
        partial_decrypt(opening.total, plan=plan, roster=roster, key=self.key, output=partial, force=True, **by)
        self.tell("partial decryption", {"round": number, "unchecked": tags.missing})
        return True

    def _open(self, opening: Opening, tags: Tags, partials: list[Path]) -> str:
        began = time.perf_counter()
        number, round_, base = opening.number, opening.round_, opening.base
        plan, roster = self._documents(number)
        opened = (
            self._place(Kind.OPENED, number)
            if self.options.publish_model
            else self.private.of_round(round_, "aggregate")
        )
        decrypted = decrypt(
            opening.total,
            plan=plan,
            roster=roster,
            key=self.key,
            output=opened,
            partial=partials,
            force=True,
            **self._check_by(number, tags),
        )
        opening.total.unlink()
        if decrypted.false_shares:
            self.tell("false shares", {"round": number, "of": decrypted.false_shares})
        made = self.private.of_round(round_, "weights")
        digest = apply(base, opened, output=made, plan=plan, roster=roster, force=True).digest
        model = made.replace(self.private.model(digest))
        self.private.note_seconds(round_, decryption=time.perf_counter() - began)
        vote = self._evaluate(round_, base, digest, self._models.own(number, round_, base, opened) or model)
        self.tell("opened", {"round": number, "model": digest, "vote": vote, **self.metrics})
        statement = Statement(
            self.keys.name,
            round_.plan_digest,
            digest,
            magnitude_exponents(round_.plan.layout.shared(weights_format.read(model).arrays, model.name)),
            metrics=self.metrics if self.options.publish_metrics else {},
            false_shares=tuple(sorted(decrypted.false_shares)),
            vote=vote,
            unchecked=tags.missing,
            lot=link(self.keys, round_.plan.federation, number + 1),
        )
        self._state(number, round_, opening.receipt, statement)
        return digest

    def _state(self, number: int, round_: Round, receipt: Receipt, statement: Statement) -> None:
        """Writes the site's word on a round, which is its last."""
        head, seconds = self.agreement.ledger.read().head, self.private.seconds(round_)
        said = replace(statement, seconds=seconds, ledger=head, mark=receipt.mark)
        statement_format.write(self._place(Kind.METRICS, number), said, self.keys, force=True)

    def _evaluate(self, round_: Round, base: Path, digest: str, model: Path) -> Vote | None:
        """Takes the figures of the model of that digest on the site's test set, and compares it with the base."""
        if self.options.test is None:
            return None
        predictions = self.private.predictions(digest)
        predict(self.options.test, model=[model], output=predictions, force=True)
        self.metrics = figures(predictions)
        return vote(self.private, self.options.test, round_, base, digest)

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

    # places

    @property
    def _agreeing(self) -> Agreeing:
        return Agreeing(self.exchange, self.trusted, self.keys, self.key, self.agreement)

    @property
    def _checking(self) -> Checking:
        return Checking(self.exchange, self.private, self.keys, self.key)

    @property
    def _models(self) -> Models:
        return Models(self.exchange, self.private, self.keys, self.tell)

    def _age(self, number: int) -> float:
        """Seconds since the receipt came here."""
        return time.time() - self.exchange.receipt(number).stat().st_mtime

    def _place(self, kind: Kind, number: int) -> Path:
        """Where this site writes its own file."""
        return self.exchange.make_place(kind, number, self.keys.name)

    def _stands(self, kind: Kind, number: int, round_: Round) -> bool:
        """Whether this site's own file is in its place, signed by it for this round; anything else may be replaced."""
        here = self.exchange.has(kind, number, self.keys.name)
        return here and is_signed(self._place(kind, number), self.keys.public, round_.plan_digest)

    def _documents(self, number: int) -> tuple[Path, Path]:
        """The plan and the roster of a round."""
        return self.exchange.plan(number), self.exchange.roster(number)
