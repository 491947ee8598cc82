"""What is wanted of an archive."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ucadi.errors import UsageError
from ucadi.pacs.inbox import check_uid

MAX_TEXT = 64
"""Longest Patient ID (PS3.5, LO)."""


@dataclass(frozen=True)
class Query:
    """Series by their study, themselves, their patient or their study's date; empty is any. `modality` is exact."""

    study: str = ""
    series: str = ""
    patient: str = ""
    since: str = ""
    until: str = ""
    modality: str = "CT"

    def __post_init__(self) -> None:
        if not (self.study or self.series or self.patient or self.since):
            raise UsageError("everything?", hint="--study, --series, --patient or --since say what to pull")
        for uid in (self.study, self.series):
            if uid:
                check_uid(uid)
        if len(self.patient) > MAX_TEXT or set(self.patient) & set("*?\\") or not self.patient.isprintable():
            raise UsageError(f"--patient {self.patient!r}: one whole Patient ID, without * and ?")
        for option, date in (("--since", self.since), ("--until", self.until)):
            if date and not re.fullmatch(r"\d{8}", date):
                raise UsageError(f"{option} {date}: not a date", hint="as 20260131")

    @property
    def dates(self) -> str:
        """A range of PS3.4 C.2.2.2.5, or nothing."""
        return f"{self.since}-{self.until}" if self.since or self.until else ""
