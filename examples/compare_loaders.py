"""Gives the traps of tests/helpers/traps.py to ucadi, SimpleITK and MONAI, and prints the table of docs/preprocess.md.

    python examples/compare_loaders.py [--write]

Each loader is used as its documentation shows for a folder of DICOM: SimpleITK's ImageSeriesReader with the file names
that it finds itself, MONAI's LoadImage with its pydicom reader. A volume is judged by the same rule for all: the HU of
each voxel must be those of the place where the loader says it is.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/helpers"))

from traps import TRAPS, Trap, verdict  # noqa: E402 - where the tests are

from ucadi.ct.reading.nifti import from_nifti  # noqa: E402
from ucadi.ct.reading.parallel import ReadJob, read_one  # noqa: E402
from ucadi.ct.reading.refusals import RefusedError  # noqa: E402
from ucadi.ct.reading.scan import KnownScan  # noqa: E402

PAGE = ROOT / "docs" / "preprocess.md"
BEGIN, END = "<!-- table: examples/compare_loaders.py --write -->\n", "<!-- end of table -->\n"

Loaded = tuple[npt.NDArray[Any], npt.NDArray[np.float64]]
"""A volume (slice, row, column) and the affine of (slice, row, column, 1) in LPS."""


def main() -> None:
    """Prints the table, or puts it into the page."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", action="store_true", help="replace the table in docs/preprocess.md")
    chosen = options.parse_args()
    names = [f"{name} {version(name.lower())}" for name in ("SimpleITK", "MONAI")]
    lines = [f"| trap | {names[0]} | {names[1]} | ucadi |", "|---|---|---|---|"]
    for trap in TRAPS:
        cells = [peer(trap, load) for load in (simpleitk, monai)]
        lines.append("| " + " | ".join([trap.name, *cells, ucadi(trap)]) + " |")
    table = "\n".join(lines) + "\n"
    if chosen.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + BEGIN + "\n" + table + "\n" + END + rest.partition(END)[2])
    else:
        print(table)


def simpleitk(path: Path) -> Loaded:
    """A folder as a series, a file as an image."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    if path.is_dir():
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        image = reader.Execute()
    else:
        image = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(image)
    direction = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine = np.eye(4)
    affine[:3] = np.column_stack([direction[:, ::-1], image.GetOrigin()])
    return array, affine


def monai(path: Path) -> Loaded:
    """With the pydicom reader, which is MONAI's own."""
    from monai.transforms import LoadImage

    image = LoadImage(reader="PydicomReader", image_only=True, ensure_channel_first=False)(str(path))
    return np.asarray(image).transpose(2, 1, 0), from_nifti(np.asarray(image.affine, np.float64))


def peer(trap: Trap, load: Callable[[Path], Loaded]) -> str:
    """What another loader makes of a trap."""
    with tempfile.TemporaryDirectory() as name, silenced():
        path = trap.build(Path(name))
        try:
            hu, affine = load(path)
            if hu.ndim != 3:
                return f"an array of {' x '.join(map(str, hu.shape))}"
        except Exception as error:  # whatever a loader raises is its answer
            return "refused" if trap.extent is None else f"fails: {type(error).__name__}"
        wrong = verdict(trap, hu, affine)
    if wrong:
        return f"**{wrong}**"
    return "right, says nothing" if trap.flag else "right"


def ucadi(trap: Trap) -> str:
    """What ucadi makes of it."""
    with tempfile.TemporaryDirectory() as name:
        outcome = read_one(ReadJob(trap.build(Path(name)), None, 15))
    if isinstance(outcome, RefusedError):
        return f"refused: `{outcome.reason.value}`"
    assert not isinstance(outcome, KnownScan)
    if trap.extent is None:
        return f"flagged: `{trap.flag}`" if trap.flag in outcome.flags else "**loaded**"
    wrong = verdict(trap, outcome.volume.hu, outcome.volume.affine)
    if wrong:
        return f"**{wrong}**"
    return f"right, flagged: `{trap.flag}`" if trap.flag in outcome.flags else "right"


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keeps away what libraries print from C++ as well."""
    sys.stderr.flush()
    kept = os.dup(2)
    logging.disable(logging.CRITICAL)
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():  # noqa: PTH123 - a file descriptor is needed
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            logging.disable(logging.NOTSET)


if __name__ == "__main__":
    main()
