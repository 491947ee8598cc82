"""Writes a dataset of small cases, for the set-ups of pages: FILE --size N --each N [--first N] [--contrast]."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from datasets import LABELS, make_case

from ucadi.formats import dataset

parser = argparse.ArgumentParser()
parser.add_argument("file", type=Path)
parser.add_argument("--size", type=int, required=True)
parser.add_argument("--each", type=int, required=True)
parser.add_argument("--first", type=int, default=0)
parser.add_argument("--contrast", action="store_true")
asked = parser.parse_args()

cases = [make_case(number, label, asked.size) for number, label in enumerate(LABELS * asked.each, start=asked.first)]
if asked.contrast:
    kinds = ("likely", "unlikely")
    cases = [replace(case, tags={"contrast_estimate": kinds[n // len(LABELS) % 2]}) for n, case in enumerate(cases)]
cases = [replace(case, series_digest=f"{int(case.id, 16):064x}") for case in cases]
dataset.write(asked.file, cases, [], size=asked.size)
