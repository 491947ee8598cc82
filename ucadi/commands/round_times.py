"""ucadi round times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.errors import FormatError, MismatchError
from ucadi.formats import statement as statement_format
from ucadi.formats.exchange import Exchange
from ucadi.kinds import Kind
from ucadi.rounds.closing import read_receipt, read_round
from ucadi.rounds.round import Round
from ucadi.rounds.succession import read_statements

PAPER_RATE = 900.0
"""kB/s between a site and the coordinator in the paper (Fig. 5b)."""


@dataclass(frozen=True)
class RoundTimes:
    """Seconds of a round's parts: of the slowest site, since all wait for it; None where nobody has said."""

    round: int
    sites: int
    training: float | None
    encryption: float | None
    transfer: float
    aggregation: float | None
    decryption: float | None

    @property
    def total(self) -> float:
        """All of it."""
        parts = (self.training, self.encryption, self.transfer, self.aggregation, self.decryption)
        return sum(part for part in parts if part is not None)


@dataclass(frozen=True)
class RoundTimesResult:
    """The times of each closed round."""

    rate: float
    rounds: tuple[RoundTimes, ...]

    def __str__(self) -> str:
        names = ("training", "encryption", "transfer", "aggregation", "decryption", "total")
        lines = [f"seconds; the slowest site of each round; transfer at {self.rate:g} kB/s", ""]
        lines.append("round  sites  " + "  ".join(f"{name:>11}" for name in names))
        for one in self.rounds:
            values = (getattr(one, name) for name in names)
            cells = (f"{'-' if value is None else format(value, '.2f'):>11}" for value in values)
            lines.append(f"{one.round:>5}  {one.sites:>5}  " + "  ".join(cells))
        return "\n".join(lines)


def round_times(
    exchange: Annotated[Path, typer.Argument(help="The exchange directory, as the coordinator has it.")],
    *,
    rate: Annotated[
        float, typer.Option(help="Transfer in kB/s [default: the paper's].", min=0.001, max=1e9)
    ] = PAPER_RATE,
) -> RoundTimesResult:
    """Account for the time of each closed round as the paper does: training, encryption, transfer, aggregation.

    Training and encryption are as the sites state them, aggregation as the coordinator; transfer is computed from the
    sizes of an upload and the sum. Sites train at the same time, so the slowest counts (paper, Fig. 5b).

    Example:
        ucadi round times exchange
    """
    folder = Exchange(exchange)
    found = (_times(folder, number, 1000 * rate) for number in folder.opened_rounds())
    return RoundTimesResult(rate, tuple(times for times in found if times is not None))


def _times(exchange: Exchange, number: int, bytes_a_second: float) -> RoundTimes | None:
    round_ = read_round(exchange, number)
    found = read_receipt(exchange, number, round_)
    if found is None or found[0].status == "void":
        return None
    sites = found[0].contributions
    statements = read_statements(exchange, number, round_)
    said = [dict(statements[site].seconds or {}) for site in sites if site in statements]
    moved = max(_size(exchange, Kind.UPLOAD, number, site) for site in sites) + _size(exchange, Kind.SUM, number)

    def slowest(part: str) -> float | None:
        return max((seconds[part] for seconds in said if part in seconds), default=None)

    return RoundTimes(
        number,
        len(sites),
        slowest("training"),
        slowest("encryption"),
        moved / bytes_a_second,
        _aggregation(exchange, number, round_),
        slowest("decryption"),
    )


def _size(exchange: Exchange, kind: Kind, number: int, site: str = "") -> int:
    """Bytes of a file that is at hand, else 0."""
    return exchange.path(kind, number, site).stat().st_size if exchange.has(kind, number, site) else 0


def _aggregation(exchange: Exchange, number: int, round_: Round) -> float | None:
    path = exchange.path(Kind.TIMES, number)
    try:
        return (statement_format.read(path, round_.roster.coordinator).seconds or {}).get("aggregation")
    except (FormatError, MismatchError):
        return None
