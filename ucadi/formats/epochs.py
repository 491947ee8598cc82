"""What each epoch of a training was like, as a table for people and their programs: CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from ucadi.files import write_file
from ucadi.learn.state import EpochRecord

COLUMNS = tuple(field.name for field in fields(EpochRecord))


def write(path: Path, records: Sequence[EpochRecord]) -> None:
    """Replaces the table at `path`, whole or not at all: a row an epoch, from 1; what was not measured is empty."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for record in records:
        row = {name: "" if value is None else value for name, value in asdict(record).items()}
        table.writerow(row | {"epoch": record.epoch + 1})
    write_file(path, text.getvalue().encode(), force=True)
