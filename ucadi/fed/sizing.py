"""Sizes of sites in bands, so that a plan can fit them and tell no more of them: powers of four."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ucadi.errors import UsageError

BANDS: Final[tuple[int, ...]] = tuple(4**power for power in range(16))
"""What a site may state: that it has at most so many examples."""


def band_of(examples: int) -> int:
    """The size band of a site: the least that its examples do not exceed; UsageError where there is none."""
    for band in BANDS:
        if 1 <= examples <= band:
            return band
    raise UsageError(f"no size band for {examples} examples", hint=f"from 1 to {BANDS[-1]:,}")


def fitting_cap(bands: Iterable[int | None], local_epochs: int) -> int | None:
    """The weight cap that fits sites of these bands; None if any states none.

    The largest band decides, each example being trained on `local_epochs` times.
    """
    stated = list(bands)
    largest = [band for band in stated if band is not None]
    return max(largest) * local_epochs if largest and len(largest) == len(stated) else None
