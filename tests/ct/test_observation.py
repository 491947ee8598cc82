"""Contrast, lungs and extent, in a body of cylinders whose numbers are known and in real slices."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from places import REAL

from ucadi.ct.observation import (
    body_mask,
    central_tissue_hu,
    contrast_estimate,
    lung_and_body_mm2,
    lung_mask,
    midline_mm,
    observe,
)
from ucadi.ct.reading.dicom import PixelReader, read_headers
from ucadi.ct.reading.scan import read_scan
from ucadi.ct.regions import regions
from ucadi.ct.volume import Volume, clip_hu, resize_slice

needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="no real CT data; UCADI_TEST_DATA names its folder")

SPACING_MM = (5.0, 3.0, 3.0)


def thorax(tissue_hu: int = 40, slices: int = 60, shift: int = 0) -> Volume:
    """A cylinder of tissue, 300 mm wide, with two lungs of 100 mm in the middle 40 slices, on a table of foam."""
    y, x = np.mgrid[:128, :128] * 3.0
    plane = np.full((128, 128), -1024)
    plane[np.hypot(x - 192, (y - 160) * 1.3) < 150] = tissue_hu
    plane[320:340] = -900  # the table
    hu = np.repeat(plane[np.newaxis], slices, axis=0)
    lungs = (np.hypot(x - 122, y - 160) < 50) | (np.hypot(x - 262, y - 160) < 50)
    hu[10:50, lungs] = -820
    return Volume(np.roll(hu, shift, axis=2).astype(np.int16), np.diag([*SPACING_MM, 1.0])[[2, 1, 0, 3]])


def test_a_whole_chest_has_no_flags() -> None:
    facts, flags = observe(thorax(), {})
    assert flags == set()
    lung_ml, body_ml = 2 * np.pi * 50**2 * 40 * 5 / 1000, np.pi * 150**2 / 1.3 * 60 * 5 / 1000
    assert facts == {
        "contrast_estimate": "unlikely",
        "extent_mm": 300.0,
        "tissue_hu": 40.0,
        "lung_fraction": pytest.approx(lung_ml / body_ml, rel=0.02),
        "lung_ml": pytest.approx(lung_ml, rel=0.02),
    }


@pytest.mark.parametrize("shift", [-14, 0, 12])
def test_the_midline_is_the_body_s_and_not_the_image_s(shift: int) -> None:
    volume = thorax(shift=shift)
    assert midline_mm(volume) == pytest.approx(192 + 3 * shift, abs=2)
    lung = lung_mask(volume, body_mask(volume))
    right, left = _halves(volume, lung)
    assert right.sum() == pytest.approx(left.sum(), rel=0.05)
    heatmap = np.zeros(volume.hu.shape, np.float32)
    heatmap[20:30, 50:58, 75 + shift : 80 + shift] = 1  # within the left lung
    (region,) = regions(heatmap, volume.affine, middle_mm=midline_mm(volume))
    assert region.side == "left"


def _halves(volume: Volume, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a mask what lies to the right and to the left of the midline."""
    column = round((midline_mm(volume) - volume.affine[0, 3]) / SPACING_MM[2])
    return mask[..., :column], mask[..., column:]


def test_where_there_is_no_body_the_middle_is_the_image_s() -> None:
    volume = Volume(np.full((4, 5, 7), -1000, np.int16), np.diag([*SPACING_MM, 1.0])[[2, 1, 0, 3]])
    assert not body_mask(volume).any()
    assert midline_mm(volume) == pytest.approx(9)


def test_lungs_that_the_field_of_view_opens_still_count() -> None:
    whole, cut = lung_and_body_mm2(thorax())[0], lung_and_body_mm2(thorax(shift=-35))[0]
    assert cut[30] > 0.8 * whole[30]


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (0, 30, {"lung-cut-off-head"}),
        (30, 60, {"lung-cut-off-feet"}),
        (20, 40, {"lung-cut-off-feet", "lung-cut-off-head", "short-extent"}),
        (0, 20, {"lung-cut-off-head", "little-lung", "short-extent"}),
    ],
)
def test_incomplete_chests_are_flagged(first: int, last: int, expected: set[str]) -> None:
    volume = thorax()
    _, flags = observe(Volume(volume.hu[first:last], volume.affine), {})
    assert flags == expected


@pytest.mark.parametrize(
    ("tissue_hu", "agent", "disagrees"),
    [(40, "named", True), (40, "none", False), (100, "none", True), (100, "named", False), (60, "named", False)],
)
def test_contrast_and_its_tag(tissue_hu: int, agent: str, disagrees: bool) -> None:
    _, flags = observe(thorax(tissue_hu), {"ContrastBolusAgent": agent})
    assert ("contrast-disagrees" in flags) is disagrees


@pytest.mark.parametrize(("slope", "intercept"), [(1, 1024), (1, -400), (2, 0), (0.25, -700), (-1, 0)])
def test_a_wrong_rescale_is_flagged(slope: float, intercept: float) -> None:
    noise = np.random.default_rng(0).normal(0, 10, thorax().hu.shape)
    volume = thorax()
    hu = np.where(volume.hu == -1024, -1000, volume.hu) + noise
    right = Volume(clip_hu(hu), volume.affine)
    wrong = Volume(clip_hu(hu * slope + intercept), volume.affine)
    assert "units-doubtful" not in observe(right, {})[1]
    assert "units-doubtful" in observe(wrong, {})[1]


def test_nothing_at_all() -> None:
    facts, flags = observe(Volume(np.full((3, 8, 8), -1024, np.int16), np.eye(4)), {})
    assert facts["lung_ml"] == 0
    assert "little-lung" in flags


@needs_real_data
def test_contrast_on_slices_where_it_is_known() -> None:
    folder = REAL / "slices-contrast-50x50"
    text = (folder / "labels.csv").read_bytes().decode().replace("\r", "")
    reader, judged = PixelReader(), {"0": [], "1": []}  # type: dict[str, list[str]]
    for row in csv.DictReader(text.splitlines()):
        (instance,) = read_headers(folder / row["file"])
        plane = resize_slice(clip_hu(reader.read(instance).hu), 128, 128)
        judged[row["contrast"]].append(contrast_estimate(central_tissue_hu(Volume(plane[np.newaxis], np.eye(4)))))
    assert [judged["1"].count(word) for word in ("likely", "unclear", "unlikely")] == [40, 8, 2]
    assert [judged["0"].count(word) for word in ("likely", "unclear", "unlikely")] == [4, 8, 38]


@needs_real_data
def test_real_volumes() -> None:
    def observed(name: str) -> tuple[object, set[str]]:
        scan = read_scan(REAL / name, size=128, min_slices=10)
        facts, flags = observe(scan.volume, scan.tags)
        return facts["contrast_estimate"], flags

    assert observed("chest-contrast-ge") == ("likely", {"short-extent", "lung-cut-off-feet", "lung-cut-off-head"})
    assert observed("chest-noncontrast-siemens") == ("unlikely", {"short-extent", "lung-cut-off-feet"})
    assert "little-lung" in observed("chest-jpeg2000-empty-uids.nii.gz")[1]  # an abdomen
