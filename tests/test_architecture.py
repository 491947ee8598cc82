"""The package's shape: layers, the one public door, and a fast start."""

from __future__ import annotations

import subprocess
import sys

from places import ROOT

PACKAGE = ROOT / "ucadi"

HEAVY = {"torch", "h5py", "pydicom", "nibabel", "PIL", "scipy", "sklearn", "matplotlib", "starlette", "uvicorn"}


def test_starting_the_program_imports_nothing_heavy() -> None:
    listing = "import sys, ucadi.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    modules = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(modules)


def test_modules_can_be_read_in_one_sitting() -> None:
    lengths = {path.relative_to(PACKAGE): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > 400} == {}
