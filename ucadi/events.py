"""What a long-running command tells while it runs: an event's name and its fields, for people or for programs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any


class Events:
    """Prints events as they happen: JSON for programs on stdout, or lines for people on stderr.

    Fields are names of parties and files, sizes, seconds, reasons. Nothing secret, nothing of a patient.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.counts: Counter[str] = Counter()
        self._as_json = as_json

    def __call__(self, event: str, fields: Mapping[str, Any]) -> None:
        self.counts[event] += 1
        if self._as_json:
            print(json.dumps({"event": event, **fields}), flush=True)
        else:
            print(event, *(f"{name}={_shown(value)}" for name, value in fields.items()), file=sys.stderr, flush=True)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
