"""What a long-running command tells while it runs: an event's name and its fields, for people or for programs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ucadi.errors import OutputError


class ReaderGoneError(Exception):
    """Whoever read our stdout has closed it: no fault, and nothing to say."""


def say(line: str) -> None:
    """Prints a line on stdout, at once. ReaderGoneError if nobody reads it; OutputError if the disk takes no more."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise ReaderGoneError from None
    except OSError as error:
        raise OutputError.of("standard output", error) from None


class Events:
    """Tells events as they happen, each with the time: JSON for programs on stdout, or lines for people on stderr.

    With `log`, the same lines are added to that file, which is made readable by its owner only. Times are UTC in RFC
    3339. Fields are names of parties and files, sizes, seconds, reasons. Nothing secret, nothing of a patient.
    OutputError if the log cannot be opened.
    """

    def __init__(self, *, as_json: bool, log: Path | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._as_json = as_json
        self._log = log
        if log is not None:
            try:
                log.touch(mode=0o600)
            except OSError as error:
                raise OutputError.of(log, error, hint="choose another --log") from None

    def __call__(self, event: str, fields: Mapping[str, Any]) -> None:
        self.counts[event] += 1
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        if self._as_json:
            line = json.dumps({"time": now, "event": event, **fields})
            say(line)
        else:
            line = " ".join([now, event, *(f"{name}={_shown(value)}" for name, value in fields.items())])
            with suppress(OSError):  # nobody may be reading any more: the work goes on
                print(line, file=sys.stderr, flush=True)
        if self._log is not None:
            self._add(self._log, line)

    def _add(self, log: Path, line: str) -> None:
        try:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:  # the work is worth more than its log; this is told once
            self._log = None
            with suppress(OSError):
                print(f"{log}: not written any more: {error.strerror}", file=sys.stderr, flush=True)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
