"""Agreement with SimpleITK, an independent reader, on series without traps: every HU, and where every voxel lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from places import REAL
from series import save
from traps import even, flipped, prone, slope_per_slice, stack

from ucadi.commands.phantom import phantom
from ucadi.ct.reading.scan import read_scan
from ucadi.ct.volume import Volume

needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="no real CT data; UCADI_TEST_DATA names its folder")


def by_simpleitk(folder: Path) -> Volume:
    """The folder's slices in the order of their positions, as SimpleITK reads them and turns them to LPS."""
    paths = sorted(folder.iterdir(), key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    image = SimpleITK.DICOMOrient(reader.Execute(), "LPS")
    hu = np.clip(SimpleITK.GetArrayFromImage(image), -1024, 600)
    affine = np.eye(4)
    for axis in range(3):  # SimpleITK's indices are (column, row, slice)
        index = [0, 0, 0]
        index[2 - axis] = 1
        there = np.array(image.TransformIndexToPhysicalPoint(index))
        affine[:3, axis] = there - image.GetOrigin()
    affine[:3, 3] = image.GetOrigin()
    return Volume(np.rint(hu).astype(np.int16), affine)


def assert_agree(folder: Path) -> None:
    ours, theirs = read_scan(folder, min_slices=10).volume, by_simpleitk(folder)
    assert ours.hu.shape == theirs.hu.shape
    assert (ours.hu == theirs.hu).all()
    corner = np.array([*ours.hu.shape, 1.0]) - (1, 1, 1, 0)
    for index in ((0, 0, 0, 1), corner):
        assert (ours.affine @ index)[:3] == pytest.approx((theirs.affine @ index)[:3], abs=0.01)


@needs_real_data
@pytest.mark.parametrize("name", ["chest-contrast-ge", "chest-noncontrast-siemens", "chest-jpeg2000-empty-uids"])
def test_real_series(name: str) -> None:
    assert_agree(REAL / name)


@pytest.mark.parametrize("make", [lambda: stack(even()), prone, flipped, slope_per_slice])
def test_made_up_series(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    assert_agree(save(tmp_path / "a", make()))


@pytest.mark.parametrize("scanner", ["ge", "siemens", "toshiba", "philips"])
def test_phantoms(tmp_path: Path, scanner: str) -> None:
    """Each scanner's habits: order, signedness, padding, names."""
    phantom(
        tmp_path / "a", site="x", patients=1, prevalence="0,1,0,0", scanner=scanner, slices=12, matrix=64, workers=1
    )
    (case,) = (path for path in (tmp_path / "a").iterdir() if path.is_dir())
    assert_agree(case)
