"""A site as a member of its federation: the next thing to do, as its exchange directory and its folder have it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypedDict

from ucadi.commands.apply import apply
from ucadi.commands.decrypt import decrypt
from ucadi.commands.encrypt import encrypt
from ucadi.commands.evaluate import evaluate
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.predict import predict
from ucadi.commands.train import train
from ucadi.errors import ConsentError, MismatchError
from ucadi.events import Events
from ucadi.fed.fixedpoint import magnitude_exponents
from ucadi.federation.awaiting import Awaited, Awaits
from ucadi.federation.checking import Checking
from ucadi.federation.private import Private
from ucadi.files import copy_file
from ucadi.formats import statement as statement_format
from ucadi.formats import weights as weights_format
from ucadi.formats.container import file_digest
from ucadi.formats.exchange import Exchange
from ucadi.formats.ledger import What
from ucadi.formats.receipt import Receipt
from ucadi.formats.roster import Roster
from ucadi.formats.signed import is_signed
from ucadi.formats.statement import Statement
from ucadi.identity import SecretKeys
from ucadi.kinds import Kind
from ucadi.rounds.closing import members_with_partials, read_receipt, read_roster, read_round
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.consents import consents_beside, how_to_accept, missing_consents
from ucadi.rounds.handing import has_to_hand_over, take_over, write_handover
from ucadi.rounds.histories import check_one_history
from ucadi.rounds.lot import link
from ucadi.rounds.round import Round
from ucadi.rounds.succession import read_statements
from ucadi.rounds.tagging import Tags, read_round_tags


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
    tag_patience: float | None = None
    """Seconds from the receipt's coming after which a sum is opened unchecked, if tags are missing; None: never."""


class CheckOptions(TypedDict):
    """Options of partial-decrypt and decrypt: what they check a sum by."""

    receipt: Path
    tag: list[Path]
    unchecked: bool


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
    _void: list[Path] = field(default_factory=list)
    _refused: set[str] = field(default_factory=set)

    def advance(self) -> bool:
        """Does the next thing that can be done; False if there is nothing to do until others have done theirs."""
        self.followed, self.awaited = 0, Awaited(Awaits.FIRST_ROUND)
        self._void = []
        numbers = self.exchange.rounds()
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
            found = read_receipt(self.exchange, number, round_)
            self._last = round_
            if self._hand_over(number, round_, before):
                return True
            if found is None:
                return number == numbers[-1] and self._contribute(number, round_)
            receipt = found[0]
            check_one_history(self.exchange, receipt, round_.roster, self.private.evidence)
            before, self._ended = (round_, receipt), number
            if receipt.status == "void":
                leads_to = round_.plan.base
                self._void.append(self.exchange.receipt(number))
                self.awaited = Awaited(Awaits.AFTER_VOID, number)
                continue
            if self.keys.name in receipt.contributions and self._checking.publish_tag(number, round_, found[1]):
                self.tell("tag", {"round": number})
                return True
            leads_to, moved = self._follow(number, round_, *found)
            if moved:
                return True
            if leads_to is not None:
                self.followed, self.newest = self.followed + 1, self.private.model(leads_to)
                self.private.point_latest(self.newest)
                self.awaited = Awaited(Awaits.NEXT_ROUND, number)
        self._look_ahead(numbers)
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
        if self._stands(Kind.UPLOAD, number, round_):
            self._check_remembers(What.COUNTED if round_.counts else What.ENCRYPTED, Kind.UPLOAD, number, round_)
            self.awaited = Awaited(Awaits.END, number)
            return False
        if self.exchange.has(Kind.SUM, number):
            self.awaited = Awaited(Awaits.END, number)
            return False
        if not self._agrees(number, round_):
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
        upload = self.private.of_round(round_, "enc")  # what the tag is made of, whatever becomes of its place
        if not upload.exists():
            began = time.perf_counter()
            encrypted = encrypt(
                update,
                plan=plan,
                roster=roster,
                key=self.key,
                output=upload,
                receipt=self._void,
                clip=self.options.clip,
            )
            self.private.note_seconds(round_, encryption=time.perf_counter() - began)
            self.tell("encrypted", {"round": number, "bytes": encrypted.bytes, "clipped": encrypted.clipped})
        copy_file(upload, self._place(Kind.UPLOAD, number), force=True)
        return True

    def _follow(self, number: int, round_: Round, receipt: Receipt, digest: str) -> tuple[str | None, bool]:
        """Goes from a closed round to the model that it leads to: its digest once it is here, and whether anything
        was done."""
        said = read_statements(self.exchange, number, round_).get(self.keys.name)
        if said and said.ledger:
            self.agreement.check_remembers(said.ledger, self.exchange.path(Kind.METRICS, number, self.keys.name).name)
        if said and said.model and self.private.model(said.model).exists():
            self.metrics = said.metrics or self.metrics
            return said.model, False
        if not self._agrees(number, round_):
            return None, False
        base = self._base(number, round_)
        if base is None:
            self.awaited = Awaited(Awaits.EARLIER_MODEL, number)
            return None, False
        if not self.exchange.has(Kind.SUM, number):
            self.awaited = Awaited(Awaits.SUM, number)
            return None, False
        total = self._checking.own_sum(number, round_, receipt)
        tags = self._tags(number, round_, receipt, digest)
        if tags is None:
            return None, False
        partials: list[Path] = []
        if round_.plan.mode == "threshold":
            if self._help_to_open(number, round_, total, tags):
                return None, True
            partials_of, _ = members_with_partials(self.exchange, number, round_, self.keys)
            if len(partials_of) < round_.roster.policy.threshold:
                missing = tuple(name for name in round_.roster.names if name not in partials_of)
                self.awaited = Awaited(Awaits.PARTIALS, number, missing)
                return None, False
            partials = [self.exchange.path(Kind.PARTIAL, number, site) for site in partials_of]
        return self._open(number, round_, receipt, base, total, tags, partials), True

    def _tags(self, number: int, round_: Round, receipt: Receipt, digest: str) -> Tags | None:
        """The tags that the sum is checked by; None while some are awaited."""
        tags = read_round_tags(self.exchange, number, round_, receipt, digest)
        for name, why in tags.refused.items():
            if why not in self._refused:
                self._refused.add(why)
                self.tell("refused", {"round": number, "file": name, "why": why})
        patience = self.options.tag_patience
        came = self.exchange.receipt(number).stat().st_mtime
        if tags.missing and (patience is None or time.time() - came < patience):
            what = Awaits.OWN_UPLOAD if self.keys.name in tags.missing else Awaits.TAGS
            self.awaited = Awaited(what, number, tags.missing)
            return None
        return tags

    def _check_by(self, number: int, tags: Tags) -> CheckOptions:
        """What tells partial-decrypt and decrypt to check a sum by these tags."""
        found = [self.exchange.path(Kind.TAG, number, site) for site in tags.tags]
        return {"receipt": self.exchange.receipt(number), "tag": found, "unchecked": bool(tags.missing)}

    def _help_to_open(self, number: int, round_: Round, total: Path, tags: Tags) -> bool:
        """Makes the site's partial decryption of the sum, unless that is done; whether it was."""
        if self._stands(Kind.PARTIAL, number, round_):
            self._check_remembers(What.ANSWERED, Kind.PARTIAL, number, round_)
            return False
        plan, roster = self._documents(number)
        partial = self._place(Kind.PARTIAL, number)
        by = self._check_by(number, tags)
        partial_decrypt(total, plan=plan, roster=roster, key=self.key, output=partial, force=True, **by)
        self.tell("partial decryption", {"round": number, "unchecked": tags.missing})
        return True

    def _open(
        self,
        number: int,
        round_: Round,
        receipt: Receipt,
        base: Path,
        total: Path,
        tags: Tags,
        partials: list[Path],
    ) -> str:
        began = time.perf_counter()
        plan, roster = self._documents(number)
        opened = (
            self._place(Kind.OPENED, number)
            if self.options.publish_model
            else self.private.of_round(round_, "aggregate")
        )
        if not opened.exists():
            decrypt(
                total,
                plan=plan,
                roster=roster,
                key=self.key,
                output=opened,
                partial=partials,
                **self._check_by(number, tags),
            )
        total.unlink()
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
            unchecked=tags.missing,
            ledger=self.agreement.ledger.read().head,
            mark=receipt.mark,
            lot=link(self.keys, round_.plan.federation, number + 1),
        )
        statement_format.write(self._place(Kind.METRICS, number), statement, self.keys, force=True)
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

    # consent

    def _agrees(self, number: int, round_: Round) -> bool:
        """Whether this site takes part in a round; if not, it waits for people here, for the others', or for a round
        that the policy admits."""
        roster = self.exchange.roster(number)
        if not self.agreement.has_accepted(round_.roster):
            self.awaited = Awaited(Awaits.ACCEPTANCE, number, (how_to_accept(roster, self.key),))
            return False
        if missing := missing_consents(round_.roster, round_.plan.sites, consents_beside(roster)):
            self.awaited = Awaited(Awaits.CONSENTS, number, missing)
            return False
        try:
            self.agreement.check_round(round_, roster)
        except ConsentError as error:
            self.awaited = Awaited(Awaits.POLICY, number, (error.message,))
            return False
        return True

    def _look_ahead(self, numbers: list[int]) -> None:
        """Says now that a roster which no round has yet is to be accepted by this site."""
        path = self.exchange.newest_roster()
        if not numbers or not path.exists():
            return
        newest = read_roster(self.exchange, path)
        newest.check_same_federation(self.trusted, path.name)
        mine = newest.member(self.keys.name) if self.keys.name in newest.names else None
        if mine == self.keys.public and not self.agreement.has_accepted(newest):
            self.awaited = Awaited(Awaits.ACCEPTANCE, numbers[-1] + 1, (how_to_accept(path, self.key),))

    def _check_remembers(self, what: What, kind: Kind, number: int, round_: Round) -> None:
        """Raises if the ledger does not know of an own file in the exchange: it was lost, or is an old copy."""
        self.agreement.check_remembers_doing(what, round_, self.exchange.path(kind, number, self.keys.name).name)

    # models

    def _base(self, number: int, round_: Round) -> Path | None:
        """The weights that a round begins with, from wherever they can be had; None if they are not here yet."""
        model = self.private.model(round_.plan.base)
        if model.exists():
            return model
        published = self.exchange.model(number)
        if self.exchange.has(Kind.MODEL, number):
            if file_digest(published) != round_.plan.base:
                raise MismatchError(f"{published}: not the weights that the plan names", hint="ask the coordinator")
            copy_file(published, model)
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
        if before is None or not model.exists() or not has_to_hand_over(self.keys.name, round_, *before):
            return False
        if self._stands(Kind.HANDOVER, number, round_) or not self._agrees(number, round_):
            return False
        write_handover(self._place(Kind.HANDOVER, number), model, round_, self.keys, force=True)
        self.tell("handed over", {"round": number})
        return True

    # places

    @property
    def _checking(self) -> Checking:
        return Checking(self.exchange, self.private, self.keys, self.key)

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
