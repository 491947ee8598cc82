"""How far a round was checked: a word for programs, and an exit code to gate on."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

UNVERIFIED_EXIT: Final = 10
"""Exit code of a check that found nothing wrong, and yet could not recompute everything."""


class Verdict(StrEnum):
    """What a check has shown; where something is wrong, it is an error and there is no verdict.

    verified: recomputed from what it was made of, or signed where there is nothing to recompute. signature-only: signed
    by whom it says, but not recomputed, as something was not at hand. not-recomputed: nothing shows that it is right.
    """

    VERIFIED = "verified"
    SIGNATURE_ONLY = "signature-only"
    NOT_RECOMPUTED = "not-recomputed"

    @property
    def exit_code(self) -> int:
        """0 for what was verified; UNVERIFIED_EXIT for anything less."""
        return 0 if self is Verdict.VERIFIED else UNVERIFIED_EXIT


_FROM_BEST: Final = tuple(Verdict)


def weakest(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on several things together; of nothing at all, nothing was shown."""
    return max(verdicts, key=_FROM_BEST.index, default=Verdict.NOT_RECOMPUTED)
