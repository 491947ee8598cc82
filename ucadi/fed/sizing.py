"""Sizes of sites in bands, so that a plan can fit them and tell no more of them: powers of four."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ucadi.errors import UsageError

_BASE: Final = 4

MOST_BAND: Final = 15
"""The largest band: a thousand million examples."""


def band_of(examples: int) -> int:
    """The size band of a site: the least b with at most 4^b examples."""
    return next(band for band in range(MOST_BAND + 1) if examples <= _BASE**band)


def fitting_cap(bands: Iterable[int | None], local_epochs: int) -> int | None:
    """The weight cap that fits sites of these bands, None being a site that states none; None if none does.

    The largest band decides: 4^band examples, each trained on `local_epochs` times. UsageError for a number that is no
    band.
    """
    stated = [band for band in bands if band is not None]
    if any(not 0 <= band <= MOST_BAND for band in stated):
        raise UsageError(f"a size band is 0 to {MOST_BAND}, for up to 4^band examples")
    return _BASE ** max(stated) * local_epochs if stated else None
