"""A site as a member of its federation: the next thing to do, as its exchange directory and its folder have it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ucadi.commands.apply import apply
from ucadi.commands.decrypt import decrypt
from ucadi.commands.encrypt import encrypt
from ucadi.commands.evaluate import evaluate
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.predict import predict
from ucadi.commands.train import train
from ucadi.errors import MismatchError, SignatureError
from ucadi.events import Events
from ucadi.fed.fixedpoint import magnitude_exponents
from ucadi.federation.awaiting import Awaited, Awaits
from ucadi.federation.private import Private
from ucadi.files import copy_file
from ucadi.formats import keys as key_format
from ucadi.formats import statement as statement_format
from ucadi.formats import weights as weights_format
from ucadi.formats.container import file_digest
from ucadi.formats.exchange import Exchange
from ucadi.formats.keys import make_round_key, read_round_key
from ucadi.formats.receipt import Receipt
from ucadi.formats.roster import Roster
from ucadi.formats.signed import is_signed
from ucadi.formats.statement import Statement
from ucadi.identity import SecretKeys, public_sealing
from ucadi.kinds import Format, Kind
from ucadi.rounds.closing import led_rounds, members_with_partials, read_round
from ucadi.rounds.handing import has_to_hand_over, take_over, write_handover
from ucadi.rounds.round import Round
from ucadi.rounds.sealing import round_keys, unable
from ucadi.rounds.succession import read_statements
from ucadi.rounds.vouching import standing_receipt


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


@dataclass
class Site:
    """A site's state, all of which follows from its exchange directory and its private folder."""

    exchange: Final[Exchange]
    trusted: Final[Roster]
    keys: Final[SecretKeys]
    key: Final[Path]
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

    def advance(self) -> bool:
        """Does the next thing that can be done; False if there is nothing to do until others have done theirs."""
        self.followed, self.awaited = 0, Awaited(Awaits.FIRST_ROUND)
        numbers = led_rounds(self.exchange, self.trusted.coordinator)
        leads_to: str | None = None
        before: tuple[Round, Receipt] | None = None
        for number in numbers:
            round_ = read_round(self.exchange, number)
            round_.roster.check_same_federation(self.trusted, self.exchange.roster(number).name)
            if self.keys.name not in round_.roster.names:
                self.awaited = Awaited(Awaits.ROSTER, number)
                continue
            if leads_to is not None and leads_to != round_.plan.base:
                raise MismatchError(
                    f"round {number} begins with {round_.plan.base[:8]}…; what was before leads to {leads_to[:8]}…",
                    hint="do not go on, and ask the coordinator",
                )
            found = standing_receipt(self.exchange, number, round_)
            self._last = round_
            if self._hand_over(number, round_, before):
                return True
            if found is None:
                return number == numbers[-1] and self._contribute(number, round_)
            receipt = found[0]
            before, self._ended = (round_, receipt), number
            if receipt.status == "void":
                leads_to = round_.plan.base
                self.awaited = Awaited(Awaits.AFTER_VOID, number)
                continue
            leads_to, moved = self._follow(number, round_, receipt)
            if moved:
                return True
            if leads_to is not None:
                self.followed, self.newest = self.followed + 1, self.private.model(leads_to)
                self.private.point_latest(self.newest)
                self.awaited = Awaited(Awaits.NEXT_ROUND, number)
        return False

    def has_ended(self, until_round: int | None) -> bool:
        """Whether round `until_round`, or the schedule's last, is over and its model is here."""
        if self._last is None or self.followed == 0:
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
        if self._stands(Kind.UPLOAD, number, round_) or self._is_summed(number, round_):
            self.awaited = Awaited(Awaits.END, number)
            return False
        base = self._base(number, round_)
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
                local_norms=self._norms(number, round_),
                checkpoint=self.private.of_round(round_, "checkpoint"),
            )
            self.private.note_seconds(round_, training=result.seconds)
            self.tell("trained", {"round": number, "loss": result.loss[-1], "seconds": result.seconds})
        began = time.perf_counter()
        encrypted = encrypt(
            update,
            plan=plan,
            roster=roster,
            key=self.key,
            output=self._place(Kind.UPLOAD, number),
            clip=self.options.clip,
            exchange=self.exchange.root,
            force=True,
        )
        self.private.note_seconds(round_, encryption=time.perf_counter() - began)
        self.tell("encrypted", {"round": number, "bytes": encrypted.bytes, "clipped": encrypted.clipped})
        return True

    def _follow(self, number: int, round_: Round, receipt: Receipt) -> tuple[str | None, bool]:
        """Goes from a closed round to the model that it leads to: its digest once it is here, and whether anything
        was done."""
        said = read_statements(self.exchange, number, round_).get(self.keys.name)
        if said and said.model and self.private.model(said.model).exists():
            self.metrics = said.metrics or self.metrics
            self.private.forget_round_keys(number)
            return said.model, False
        if said and said.model is None:  # it could not be opened here
            self.awaited = Awaited(Awaits.NEXT_MODEL, number)
            return None, False
        base = self._base(number, round_)
        if base is None:
            self.awaited = Awaited(Awaits.EARLIER_MODEL, number)
            return None, False
        total = self.exchange.sum(number)
        if not self._is_summed(number, round_):
            self.awaited = Awaited(Awaits.SUM, number)
            return None, False
        if file_digest(total) != receipt.sum:
            raise MismatchError(
                f"{total}: not the sum that the receipt names", hint="do not go on, ask the coordinator"
            )
        try:
            return self._open_together(number, round_, base, total)
        except SignatureError as error:
            if not self._has_lost_round_key(number, round_):
                raise
            self._give_up(number, round_, error)
            return None, True

    def _open_together(self, number: int, round_: Round, base: Path, total: Path) -> tuple[str | None, bool]:
        partials: list[Path] = []
        if round_.plan.mode == "threshold":
            if self._help_to_open(number, round_, total):
                return None, True
            keys = key_format.read_key(self.key, self.private.round_key(number))
            partials_of, _ = members_with_partials(self.exchange, number, round_, keys)
            if len(partials_of) < round_.roster.policy.threshold:
                missing = tuple(name for name in round_.roster.names if name not in partials_of)
                self.awaited = Awaited(Awaits.PARTIALS, number, missing)
                return None, False
            partials = [self.exchange.path(Kind.PARTIAL, number, site) for site in partials_of]
        return self._open(number, round_, base, partials), True

    def _has_lost_round_key(self, number: int, round_: Round) -> bool:
        """Whether others seal this round's secrets to a key whose secret half is not here."""
        published = round_keys(self.exchange, round_).get(self.keys.name)
        held = self.private.round_key(number)
        return published is not None and (held is None or public_sealing(read_round_key(held)) != published)

    def _give_up(self, number: int, round_: Round, why: SignatureError) -> None:
        """States that the round cannot be opened here, so that others hand over the model, and makes a new key."""
        self.tell(
            "round key lost",
            {
                "round": number,
                "why": why.message,
                "hint": "was the private folder restored? others hand the model over",
            },
        )
        self._state(Statement(self.keys.name, round_.plan_digest), number, round_)

    def _state(self, statement: Statement, number: int, round_: Round) -> None:
        """Publishes a statement with the key for the next round, whose secret half is on the disk by then."""
        secret = make_round_key(self.private.of_round(round_, "sealing"))
        stated = replace(statement, next_sealing=public_sealing(secret))
        statement_format.write(self._place(Kind.METRICS, number), stated, self.keys, force=True)

    def _help_to_open(self, number: int, round_: Round, total: Path) -> bool:
        """Makes the site's partial decryption of the sum, unless that is done; whether it was."""
        if self._stands(Kind.PARTIAL, number, round_):
            return False
        plan, roster = self._documents(number)
        partial = self._place(Kind.PARTIAL, number)
        partial_decrypt(
            total,
            plan=plan,
            roster=roster,
            key=self.key,
            output=partial,
            exchange=self.exchange.root,
            round_key=self.private.round_key(number),
            force=True,
        )
        self.tell("partial decryption", {"round": number})
        return True

    def _open(self, number: int, round_: Round, base: Path, partials: list[Path]) -> str:
        began = time.perf_counter()
        plan, roster = self._documents(number)
        opened = self.private.of_round(round_, "aggregate")
        if not opened.exists():
            total = self.exchange.sum(number)
            decrypt(
                total,
                plan=plan,
                roster=roster,
                key=self.key,
                output=opened,
                partial=partials,
                round_key=self.private.round_key(number),
            )
        if self.options.publish_model:
            copy_file(opened, self._place(Kind.OPENED, number), force=True)
        made = self.private.of_round(round_, "weights")
        digest = apply(base, opened, output=made, plan=plan, roster=roster, force=True).digest
        model = made.replace(self.private.model(digest))
        self.private.note_seconds(round_, decryption=time.perf_counter() - began)
        self.metrics = self._evaluate(round_, self._own_model(number, round_, base, opened) or model)
        self.tell("opened", {"round": number, "model": digest, **self.metrics})
        statement = Statement(
            self.keys.name,
            round_.plan_digest,
            digest,
            magnitude_exponents(round_.plan.layout.shared(weights_format.read(model).arrays, model.name)),
            self.private.seconds(round_),
            self.metrics if self.options.publish_metrics else {},
            file_digest(opened) if self.options.publish_model else None,
        )
        self._state(statement, number, round_)
        return digest

    def _evaluate(self, round_: Round, model: Path) -> dict[str, float]:
        """Figures of the model on the site's test set."""
        if self.options.test is None:
            return {}
        predictions = self.private.of_round(round_, "predictions")
        predict(self.options.test, model=[model], output=predictions, force=True)
        (reports,) = evaluate([predictions]).reports.values()
        (report,) = reports.values()
        figures = {
            "auc": report.covid.auc.value if report.covid.auc else None,
            "sensitivity": report.covid.sensitivity.value,
            "specificity": report.covid.specificity.value,
            "accuracy": report.accuracy.value,
        }
        return {name: value for name, value in figures.items() if value is not None}

    # models

    def _base(self, number: int, round_: Round) -> Path | None:
        """The weights that a round begins with, from wherever they can be had; None if they are not here yet."""
        model = self.private.model(round_.plan.base)
        if model.exists():
            return model
        published = self.exchange.model(number)
        if self.exchange.has(Kind.MODEL, number) and file_digest(published) == round_.plan.base:
            copy_file(published, model, mode=Format.WEIGHTS.mode)
            return model
        giver = take_over(self.exchange, number, round_, self.keys, model)
        if giver is None:
            return None
        self.tell("taken over", {"round": number, "from": giver})
        return model

    def _norms(self, number: int, round_: Round) -> Path | None:
        """The newest own update before round `number`, where the round leaves norms to the sites."""
        return None if round_.plan.shares_norms else self.private.newest_update(number)

    def _own_model(self, number: int, round_: Round, base: Path, opened: Path) -> Path | None:
        """The round's model with the site's own norms, where the round leaves them to the sites."""
        norms = self._norms(number + 1, round_)
        if norms is None:
            return None
        plan, roster = self._documents(number)
        own = self.private.of_round(round_, "own.weights")
        apply(base, opened, output=own, plan=plan, roster=roster, local_norms=norms, force=True)
        return own

    def _hand_over(self, number: int, round_: Round, before: tuple[Round, Receipt] | None) -> bool:
        """Seals the model for those who are new in this round's roster, if that is this site's to do."""
        model = self.private.model(round_.plan.base)
        if (
            before is None
            or not model.exists()
            or not has_to_hand_over(self.keys.name, round_, *before, unable(self.exchange, round_))
        ):
            return False
        if self._stands(Kind.HANDOVER, number, round_):
            return False
        write_handover(self._place(Kind.HANDOVER, number), model, round_, self.keys, force=True)
        self.tell("handed over", {"round": number})
        return True

    # places

    def _place(self, kind: Kind, number: int) -> Path:
        """Where this site writes its own file."""
        return self.exchange.make_place(kind, number, self.keys.name)

    def _stands(self, kind: Kind, number: int, round_: Round) -> bool:
        """Whether this site's own file is in its place, signed by it for this round; anything else may be replaced."""
        here = self.exchange.has(kind, number, self.keys.name)
        return here and is_signed(self._place(kind, number), self.keys.public, round_.plan_digest)

    def _is_summed(self, number: int, round_: Round) -> bool:
        """Whether the coordinator's sum of the round is here, and not somebody else's file in its place."""
        here = self.exchange.has(Kind.SUM, number)
        return here and is_signed(self.exchange.sum(number), round_.roster.coordinator, round_.plan_digest)

    def _documents(self, number: int) -> tuple[Path, Path]:
        """The plan and the roster of a round."""
        return self.exchange.plan(number), self.exchange.roster(number)
