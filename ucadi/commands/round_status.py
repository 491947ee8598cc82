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
    number: Annotated[
        int | None, typer.Option(help="Number of the round [default: the newest].", min=1, max=9999)
    ] = None,
) -> Standing:
    """Say where a round stands: who is in, missing or refused and why, and whose partial decryptions are here.

    Example:
        ucadi round status exchange
    """
    folder = Exchange(exchange)
    return standing(folder, folder.opened_rounds()[-1] if number is None else number)
