"""ucadi round status."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ucadi.formats.exchange import Exchange
from ucadi.rounds.standing import Standing, standing


def round_status(
    exchange: Annotated[Path, typer.Argument(help="The exchange directory.")],
    *,
    number: Annotated[int, typer.Option(help="Number of the round.", min=1)],
) -> Standing:
    """Say where a round stands: who is in, missing or refused and why, and which holders have answered."""
    return standing(Exchange(exchange), number)
