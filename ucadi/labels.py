"""The diagnoses and their order, which is the order of the network's outputs (paper, Methods)."""

from __future__ import annotations

from enum import IntEnum

from ucadi.errors import FormatError


class Diagnosis(IntEnum):
    """The four classes of the paper; the value is the index of the network's output."""

    HEALTHY = 0
    COVID = 1
    OTHER_VIRAL = 2
    BACTERIAL = 3

    @property
    def label(self) -> str:
        """The name used in labels files, datasets and reports: `healthy`, `covid`, `other_viral`, `bacterial`."""
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Diagnosis:
        """The diagnosis named `text`; FormatError lists the names that exist."""
        try:
            return cls[text.strip().upper().replace("-", "_").replace(" ", "_")]
        except KeyError:
            raise FormatError(
                f"unknown diagnosis {text!r}", hint="use one of: " + ", ".join(d.label for d in cls)
            ) from None


LABELS = tuple(diagnosis.label for diagnosis in Diagnosis)

LOSS_WEIGHTS = (0.2, 0.2, 0.4, 0.2)
"""Weight of each class in the cross-entropy (paper, Methods: other viral pneumonia is rare)."""

NOTICE = "Research only, not for clinical use."
"""What stands on every page and picture."""
