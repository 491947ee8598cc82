"""Where the repository is, and what lies beside it."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests/corpus"
VECTORS = ROOT / "tests/vectors"

REAL = Path(os.environ.get("UCADI_TEST_DATA", ROOT.parent / "shared/data"))
"""Folder of real CTs, which are not part of the repository."""
