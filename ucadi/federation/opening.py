"""Opening a closed round's sum at a site: checked by tags, with others' help, and with a word on the outcome."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

from ucadi.commands.apply import apply
from ucadi.commands.decrypt import decrypt
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.predict import predict
from ucadi.errors import Unsound, UnsoundError
from ucadi.fed.fixedpoint import magnitude_exponents
from ucadi.federation.awaiting import Awaited, Awaits
from ucadi.federation.judging import figures, still_to_come, vote
from ucadi.federation.station import Station
from ucadi.files import copy_file
from ucadi.formats import keys as key_format
from ucadi.formats import statement as statement_format
from ucadi.formats import weights as weights_format
from ucadi.formats.container import file_digest
from ucadi.formats.keys import make_round_key, read_round_key
from ucadi.formats.ledger import What
from ucadi.formats.receipt import Receipt
from ucadi.formats.statement import Statement, Vote
from ucadi.identity import public_sealing
from ucadi.kinds import Kind
from ucadi.rounds.closing import members_with_partials
from ucadi.rounds.lot import link
from ucadi.rounds.round import Round
from ucadi.rounds.sealing import round_keys
from ucadi.rounds.tagging import Tags, read_round_tags
from ucadi.rounds.threshold import UnsettledError


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
class Opener(Station):
    """What a site does with the sum of a closed round, step by step; `awaited` says why it did nothing."""

    awaited: Awaited | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)
    _unsettled: tuple[int, tuple[str, ...]] = (0, ())

    def open(
        self,
        number: int,
        round_: Round,
        receipt: Receipt,
        digest: str,
        base: Path,
        statements: Mapping[str, Statement],
    ) -> tuple[str | None, bool]:
        """Does the next step for a sum that is here: the digest of the weights that it leads to, once they are made,
        and whether anything was done. `digest` is the receipt's."""
        self.awaited = None
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
            lost = self._has_lost_round_key(number, round_)
            told = {"round": number, "why": error.reason, "what": error.message}
            hint = {"hint": "was the private folder restored? other members hand the model over"} if lost else {}
            self.tell("round key lost" if lost else "unsound", {**told, **hint})
            statement = Statement(self.keys.name, round_.plan_digest, void=error.reason, unchecked=tags.missing)
            self._state(number, round_, receipt, statement)
            return None, True

    def _has_lost_round_key(self, number: int, round_: Round) -> bool:
        """Whether this round's secrets are sealed to a key whose secret half is lost: others hand the model over."""
        published = round_keys(self.exchange, round_).get(self.keys.name)
        held = self.private.round_key(number)
        return published is not None and (held is None or public_sealing(read_round_key(held)) != published)

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
        keys = key_format.read_key(self.key, self.private.round_key(number))
        partials_of = tuple(members_with_partials(self.exchange, number, round_, keys)[0])
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
        partial_decrypt(
            opening.total,
            plan=plan,
            roster=roster,
            key=self.key,
            output=self._place(Kind.PARTIAL, number),
            exchange=self.exchange.root,
            round_key=self.private.round_key(number),
            force=True,
            **self._check_by(number, tags),
        )
        self.tell("partial decryption", {"round": number, "unchecked": tags.missing})
        return True

    def _open(self, opening: Opening, tags: Tags, partials: list[Path]) -> str:
        began = time.perf_counter()
        number, round_, base = opening.number, opening.round_, opening.base
        plan, roster = self._documents(number)
        opened = self.private.of_round(round_, "aggregate")
        decrypted = decrypt(
            opening.total,
            plan=plan,
            roster=roster,
            key=self.key,
            output=opened,
            partial=partials,
            round_key=self.private.round_key(number),
            force=True,
            **self._check_by(number, tags),
        )
        opening.total.unlink()
        if self.options.publish_model:
            copy_file(opened, self._place(Kind.OPENED, number), force=True)
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
            opened=file_digest(opened) if self.options.publish_model else None,
        )
        self._state(number, round_, opening.receipt, statement)
        return digest

    def _state(self, number: int, round_: Round, receipt: Receipt, statement: Statement) -> None:
        """Writes the site's word on a round, which is its last."""
        head, seconds = self.agreement.ledger.read().head, self.private.seconds(round_)
        sealing = public_sealing(
            make_round_key(self.private.of_round(round_, "sealing"))
        )  # on the disk before it is said
        said = replace(statement, seconds=seconds, ledger=head, mark=receipt.mark, next_sealing=sealing)
        statement_format.write(self._place(Kind.METRICS, number), said, self.keys, force=True)

    def _evaluate(self, round_: Round, base: Path, digest: str, model: Path) -> Vote | None:
        """Takes the figures of the model of that digest on the site's test set, and compares it with the base."""
        if self.options.test is None:
            return None
        predictions = self.private.predictions(digest)
        predict(self.options.test, model=[model], output=predictions, force=True)
        self.metrics = figures(predictions)
        return vote(self.private, self.options.test, round_, base, digest)

    def _age(self, number: int) -> float:
        """Seconds since the receipt came here."""
        return time.time() - self.exchange.receipt(number).stat().st_mtime
