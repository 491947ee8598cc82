"""ucadi round status."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.formats.exchange import Exchange
from ucadi.formats.receipt import Receipt
from ucadi.rounds.closing import Uploads, holders, judge_uploads, read_receipt, read_round


@dataclass(frozen=True)
class RoundStatusResult:
    """Where a round stands. `state` is open, summed (a sum, but no receipt yet), closed or void.

    `late` are good uploads that came after the round had ended, `strays` files that are no site's upload.
    """

    round: int
    state: str
    quorum: int
    contributed: tuple[str, ...]
    late: tuple[str, ...]
    missing: tuple[str, ...]
    refused: dict[str, str]
    strays: tuple[str, ...]
    answered: tuple[str, ...]
    answers_needed: int

    def __str__(self) -> str:
        rows = {
            "contributed": ", ".join(self.contributed) or "nobody",
            "missing": ", ".join(self.missing),
            "late": ", ".join(self.late) and f"{', '.join(self.late)} (changes nothing)",
            "strays": ", ".join(self.strays),
            "answered": ", ".join(self.answered),
        }
        lines = [f"  {label + ':':<13}{text}" for label, text in rows.items() if text]
        lines += [f"  refused:     {reason}" for reason in self.refused.values()]
        return "\n".join([f"round {self.round} is {self.state}; quorum {self.quorum}", *lines])


def round_status(
    exchange: Annotated[Path, typer.Argument(help="The exchange directory.")],
    *,
    number: Annotated[int, typer.Option(help="Number of the round.", min=1)],
) -> RoundStatusResult:
    """Say where a round stands: who is in, missing or refused and why, and which holders have answered."""
    folder = Exchange(exchange)
    this = read_round(folder, number)
    uploads = judge_uploads(folder, number, this)
    found = read_receipt(folder, number, this)
    receipt = found[0] if found else None
    answered, answers_refused = holders(folder, number, this)
    contributed, late, refused = _against(receipt, uploads)
    return RoundStatusResult(
        round=number,
        state=receipt.status if receipt else "summed" if folder.aggregate(number).exists() else "open",
        quorum=max(this.plan.quorum, this.roster.policy.minimum_sites),
        contributed=contributed,
        late=late,
        missing=tuple(site for site in this.plan.sites if site not in (*contributed, *late)),
        refused={**refused, **answers_refused},
        strays=uploads.strays,
        answered=tuple(answered),
        answers_needed=this.roster.policy.threshold,
    )


def _against(receipt: Receipt | None, uploads: Uploads) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]:
    """Who contributed, who came late and what was refused: as the receipt has it, once there is one."""
    if receipt is None:
        return tuple(uploads.good), (), uploads.refused
    late = tuple(site for site in uploads.good if site not in receipt.contributions)
    changed = {
        f"{site}.enc": f"{site}.enc: not the file that the receipt names"
        for site, digest in uploads.good.items()
        if receipt.contributions.get(site, digest) != digest
    }
    return tuple(sorted(receipt.contributions)), late, {**receipt.refused, **uploads.refused, **changed}
