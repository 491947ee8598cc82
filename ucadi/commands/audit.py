"""ucadi audit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.errors import SignatureError
from ucadi.formats import roster as roster_format
from ucadi.formats.exchange import Exchange
from ucadi.kinds import Kind
from ucadi.rounds.auditing import Aside, AuditedRound, audit_rounds
from ucadi.rounds.verdict import Verdict, weakest


@dataclass(frozen=True)
class AuditResult:
    """What was found to be true of each round, and the coordinator whose signatures that rests on.

    `verdict` is the weakest of the rounds'; a federation without a round has nothing to show.
    """

    federation: str
    coordinator: str
    fingerprint: str
    verdict: Verdict
    rounds: tuple[AuditedRound, ...]

    @property
    def exit_code(self) -> int:
        """0 if all was verified, 10 if not."""
        return self.verdict.exit_code

    def __str__(self) -> str:
        lines = [f"{self.federation}: signed by {self.coordinator}, fingerprint {self.fingerprint}"]
        for one in self.rounds:
            lines.append(f"round {one.number}: {one.status}" + (f", of {', '.join(one.sites)}" if one.sites else ""))
            lines += [f"  base: {one.base_verdict}: {one.base}", f"  sum:  {one.sum_verdict}: {one.sum}"]
        return "\n".join([*lines, f"verdict: {self.verdict}"])


def audit(
    exchange: Annotated[Path, typer.Argument(help="The exchange directory.")],
    *,
    coordinator: Annotated[
        str | None, typer.Option(help="Expected fingerprint of the coordinator; fail if another signed the roster.")
    ] = None,
    models: Annotated[
        Path | None, typer.Option("--models", help="Folder of models and opened sums, such as the one of site run.")
    ] = None,
) -> AuditResult:
    """Check a federation's rounds from the first to the last, as far as their files are at hand.

    Signatures, the chain of receipts, uploads and sums, and that each round begins with the model that the one
    before leads to. Needs no key. A coordinator holds no models. A site does: pass its work
    folder with --models.
    The verdict is `verified`, `signature-only` or `not-recomputed`. The exit code is 0 only for the first; 10 says that
    nothing is wrong with what is at hand, and that not all could be recomputed; anything wrong is an error.

    Example:
        ucadi audit exchange --models site-a.work
    """
    folder = Exchange(exchange)
    roster = roster_format.read(folder.path(Kind.ROSTER, 0))
    fingerprint = roster.coordinator.fingerprint
    if coordinator is not None and coordinator.replace(" ", "") != fingerprint.replace(" ", ""):
        raise SignatureError(
            f"{exchange}: signed by {roster.coordinator.name} with fingerprint {fingerprint}",
            hint="this is not your coordinator's: do not use it",
        )
    rounds = audit_rounds(folder, Aside() if models is None else Aside.read(models))
    verdict = weakest(found for one in rounds for found in (one.base_verdict, one.sum_verdict))
    return AuditResult(roster.federation, roster.coordinator.name, fingerprint, verdict, rounds)
