"""ucadi round close."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import KeyFile
from ucadi.errors import MismatchError
from ucadi.formats import keys as key_format
from ucadi.formats.exchange import Exchange
from ucadi.rounds.closing import close, read_round
from ucadi.rounds.consenting import Agreement


@dataclass(frozen=True)
class RoundCloseResult:
    """The receipt, and what it says."""

    receipt: Path
    round: int
    sum: Path
    sites: tuple[str, ...]
    refused: dict[str, str]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.sum}: sum of {', '.join(self.sites)}"]
        lines += [f"  refused: {reason}" for reason in self.refused.values()]
        lines += [f"  missing: {', '.join(self.missing)}"] if self.missing else []
        return "\n".join([*lines, f"{self.receipt}: round {self.round} is closed"])


def round_close(
    exchange: Annotated[Path, typer.Argument(help="The exchange directory.")],
    *,
    number: Annotated[int, typer.Option(help="Number of the round.", min=1, max=9999)],
    key: KeyFile,
) -> RoundCloseResult:
    """Close a round: add the good uploads, and sign a receipt of who was in, refused and missing.

    Below the quorum the round is void, for good. Interrupted at any moment, it continues when it is run again;
    a round that has its receipt stays as it is.

    Example:
        ucadi round close exchange --number 1 --key coordinator.key
    """
    folder = Exchange(exchange)
    round_ = read_round(folder, number)
    keys = key_format.read_key(key)
    round_.roster.check_led_by(keys, key.name)
    receipt = close(folder, number, round_, keys, Agreement(key, keys))
    if receipt.status == "void":
        raise MismatchError(
            f"round {number} is void: {len(receipt.contributions)} of at least "
            f"{max(round_.plan.quorum, round_.roster.policy.minimum_sites)} contributions; "
            f"missing: {', '.join(receipt.missing)}",
            hint="its receipt says so: open a new round, for which the sites train again",
        )
    return RoundCloseResult(
        folder.receipt(number),
        number,
        folder.sum(number),
        tuple(sorted(receipt.contributions)),
        dict(receipt.refused),
        receipt.missing,
    )
