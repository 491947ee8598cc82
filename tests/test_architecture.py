"""The package's shape: layers, the one public door, and a fast start."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from places import ROOT

import ucadi

PACKAGE = ROOT / "ucadi"

HEAVY = {"torch", "h5py", "pydicom", "nibabel", "PIL", "scipy", "sklearn", "matplotlib", "starlette", "uvicorn"}


def test_starting_the_program_imports_nothing_heavy() -> None:
    listing = "import sys, ucadi.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    modules = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(modules)


def test_the_library_is_these_names_and_no_others() -> None:
    """What a program may rely on; a change here is a change for other people's code, and for the changelog."""
    assert ucadi.__all__ == [
        "UcadiError", "__version__", "aggregate", "apply", "decrypt", "encrypt", "evaluate", "init", "open_dataset",
        "predict", "preprocess", "read_update", "read_weights", "train", "write_dataset", "write_update",
        "write_weights",
    ]  # fmt: skip
    for name in ucadi.__all__:
        assert getattr(ucadi, name) is not None
        assert inspect.getdoc(getattr(ucadi, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ucadi.nothing


def test_the_library_begins_as_fast_as_python() -> None:
    listing = "import sys, ucadi; print(*(name for name in ('numpy', 'typer', 'torch') if name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout == "\n"


def test_modules_can_be_read_in_one_sitting() -> None:
    lengths = {path.relative_to(PACKAGE): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > 400} == {}
