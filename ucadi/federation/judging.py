"""What a site makes of others' words on a round: what it came to, whether the next begins there, who can still help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ucadi.commands.evaluate import evaluate
from ucadi.commands.predict import predict
from ucadi.errors import FormatError, MismatchError, Unsound
from ucadi.federation.awaiting import Awaited, Awaits
from ucadi.federation.private import Private
from ucadi.formats import predictions as predictions_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.predictions import Predictions
from ucadi.formats.receipt import Receipt
from ucadi.formats.statement import Statement, Vote
from ucadi.rounds.closing import members_with_partials
from ucadi.rounds.handing import UNREADABLE
from ucadi.rounds.round import Round
from ucadi.rounds.succession import Following, Voided, agreed
from ucadi.scoring.voting import is_worse


@dataclass(frozen=True)
class Ended:
    """A round that is over, as a site has it.

    `leads_to` is the digest of the weights that it leads to by what the site computed itself; None while it could not.
    """

    round_: Round
    receipt: Receipt
    leads_to: str | None
    statements: Mapping[str, Statement]

    def outcome(self, *, late: bool = False) -> Following | Voided | None:
        """What the sites state of it; None where they disagree, too, as this site has its own result."""
        if self.receipt.status == "void":
            return Voided("quorum", ())
        try:
            return agreed(self.statements, self.receipt, self.round_, late=late)
        except MismatchError:
            return None

    @property
    def silent(self) -> tuple[str, ...]:
        """The contributing sites whose statements are not here."""
        return tuple(site for site in sorted(self.receipt.contributions) if site not in self.statements)

    def check_next(self, number: int, base: str, name: str) -> Awaited | None:
        """Raises MismatchError unless round `number` may begin with `base` by what the site `name` knows.

        Returns what is awaited before that can be said.
        """
        if self.leads_to in (None, base):
            return None
        outcome, previous = self.outcome(late=True), self.round_.plan.base
        if base == previous and isinstance(outcome, Voided):
            return None
        if self._could_not_open(name) and isinstance(outcome, Following) and outcome.model == base:
            return None
        if self.silent and (base == previous or self._could_not_open(name)):
            return Awaited(Awaits.STATEMENTS, self.receipt.round, self.silent)
        raise MismatchError(
            f"round {number} begins with {base[:8]}…; what was before leads to {(self.leads_to or '')[:8]}…",
            hint="do not go on, and ask the coordinator",
        )

    def _could_not_open(self, name: str) -> bool:
        own = self.statements.get(name)
        return own is not None and own.void in UNREADABLE


def still_to_come(
    exchange: Exchange, number: int, round_: Round, statements: Mapping[str, Statement]
) -> tuple[str, ...]:
    """The members whose partial decryption may still come: it is not here, and they do not state that they cannot."""
    here, _ = members_with_partials(exchange, number, round_)
    unable = {site for site, statement in statements.items() if statement.void is Unsound.SEALS}
    return tuple(name for name in round_.roster.names if name not in here and name not in unable)


def figures(predictions: Path) -> dict[str, float]:
    """Figures of a model on the site's test set; none of one whose probabilities are none, as its network overflows."""
    try:
        (reports,) = evaluate([predictions]).reports.values()
    except FormatError:
        return {}
    (report,) = reports.values()
    found = {
        "auc": report.covid.auc.value if report.covid.auc else None,
        "sensitivity": report.covid.sensitivity.value,
        "specificity": report.covid.specificity.value,
        "accuracy": report.accuracy.value,
    }
    return {name: value for name, value in found.items() if value is not None}


def vote(private: Private, test: Path, round_: Round, base: Path, model: str) -> Vote | None:
    """Whether the model is worse than the round's base on the test set, of both of which predictions are kept.

    None where it cannot be said: see `ucadi.scoring.voting`. Where norms stay at home, the base is compared only as
    this site has evaluated it before.
    """
    after = _read(private.predictions(model))
    if after is None:
        return Vote.WORSE  # its probabilities are none: the network overflows
    known = private.predictions(round_.plan.base)
    before = _read(known)
    if before is None or (before.dataset, before.cases) != (after.dataset, after.cases):
        if not round_.plan.shares_norms:
            return None
        predict(test, model=[base], output=known, force=True)
        before = _read(known)
    if before is None:
        return Vote.NOT_WORSE
    worse = is_worse(after.labels, before.mean, after.mean, after.patients)
    return None if worse is None else Vote.WORSE if worse else Vote.NOT_WORSE


def _read(path: Path) -> Predictions | None:
    """Predictions; None where there are none, or what stands there are no probabilities."""
    try:
        return predictions_format.read(path)
    except FormatError:
        return None
