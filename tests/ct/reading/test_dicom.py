"""Reading DICOM: order, geometry, gaps, duplicates, units, choice of series, and a reason for every refusal.

The synthetic series are in `series.py`. Real data is read from the folder that UCADI_TEST_DATA names.
"""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from environments import linked
from hypothesis import given
from hypothesis import strategies as st
from places import REAL
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)
from series import COLUMN_MM, ROW_MM, body, save, series, slice_dataset

from ucadi.ct.reading import instance as instance_module
from ucadi.ct.reading import jpeg12
from ucadi.ct.reading.dicom import PixelReader, Pixels, read_headers
from ucadi.ct.reading.instance import Instance
from ucadi.ct.reading.refusals import Reason, RefusedError
from ucadi.ct.reading.scan import Scan, read_scan
from ucadi.ct.reading.series import is_sharp
from ucadi.ct.reading.stack import regular_grid

needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="no real CT data; UCADI_TEST_DATA names its folder")


def read(folder: Path, **options: Any) -> Scan:
    return read_scan(folder, **{"min_slices": 4, **options})


def refusal(folder: Path, **options: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        read(folder, **options)
    return caught.value


def assert_is_body(scan: Scan, slices: int = 12, spacing_mm: float = 2.5, seed: int = 0) -> None:
    """The scan is `series.series()`: the same voxels at the same places."""
    assert scan.volume.hu.tolist() == np.clip(body(slices, seed), -1024, 600).tolist()
    expected = [[0, 0, COLUMN_MM, -20], [0, ROW_MM, 0, -15], [spacing_mm, 0, 0, 100], [0, 0, 0, 1]]
    assert scan.volume.affine == pytest.approx(np.array(expected))


def read_header(path: Path) -> Instance:
    (instance,) = read_headers(path)
    return instance


def read_pixels(path: Path) -> Pixels:
    return PixelReader().read(read_header(path))


# Order and place


def test_a_plain_series(tmp_path: Path) -> None:
    scan = read(save(tmp_path / "a", series()))
    assert_is_body(scan)
    assert scan.flags == ()
    assert (scan.slices, scan.interpolated, scan.unreadable, scan.set_aside) == (12, 0, (), ())
    assert scan.tags == {"ConvolutionKernel": "B30f", "SliceThickness": 5.0}


def test_names_and_instance_numbers_do_not_matter(tmp_path: Path) -> None:
    slices = series()
    order = np.random.default_rng(3).permutation(12)
    for number, index in enumerate(order):
        slices[index].InstanceNumber = number
    folder = save(tmp_path / "a", slices, [f"{n}.img" for n in order[::-1]])
    assert_is_body(read(folder))
    plain = read(save(tmp_path / "b", series()))
    assert plain.volume.hu.tolist() == read(folder).volume.hu.tolist()


def test_files_in_folders_below_belong_to_the_case(tmp_path: Path) -> None:
    slices = series()
    save(tmp_path / "a" / "x", slices[:5])
    save(tmp_path / "a" / "y" / "z", slices[5:])
    assert_is_body(read(tmp_path / "a"))


@pytest.mark.parametrize(
    ("orientation", "flips"),
    [
        ((-1, 0, 0, 0, -1, 0), (1, 2)),  # prone
        ((1, 0, 0, 0, -1, 0), (1,)),  # upside down: the normal points to the feet
        ((-1, 0, 0, 0, 1, 0), (2,)),
    ],
)
def test_flipped_orientations_become_canonical(
    tmp_path: Path, orientation: tuple[float, ...], flips: tuple[int, ...]
) -> None:
    datasets = []
    for index, hu in enumerate(body(12)):
        position = [-20.0, -15.0, 100.0 + 2.5 * index]
        if 1 in flips:
            position[1] += ROW_MM * (hu.shape[0] - 1)
        if 2 in flips:
            position[0] += COLUMN_MM * (hu.shape[1] - 1)
        hu = np.flip(hu, [axis - 1 for axis in flips])
        datasets.append(slice_dataset(hu, position, ImageOrientationPatient=list(orientation)))
    assert_is_body(read(save(tmp_path / "a", datasets)))


def test_rows_and_columns_swapped(tmp_path: Path) -> None:
    datasets = [
        slice_dataset(
            hu.T,
            (-20.0, -15.0, 100.0 + 2.5 * index),
            ImageOrientationPatient=[0, 1, 0, 1, 0, 0],
            PixelSpacing=[COLUMN_MM, ROW_MM],
        )
        for index, hu in enumerate(body(12))
    ]
    assert_is_body(read(save(tmp_path / "a", datasets)))


def test_resized_while_reading_is_resized_after_reading(tmp_path: Path) -> None:
    from ucadi.ct.volume import resize

    folder = save(tmp_path / "a", series())
    small, full = read(folder, size=16).volume, read(folder).volume
    assert small.hu.tolist() == resize(full, 16).hu.tolist()
    assert small.affine == pytest.approx(resize(full, 16).affine)


def test_an_oblique_gantry_is_sheared_back(tmp_path: Path) -> None:
    """Slices tilted by 15 degrees and stacked along the table: a point of the patient stays where it is."""
    tilt = np.radians(15)
    down = np.array([0, np.cos(tilt), np.sin(tilt)])
    normal = np.cross([1, 0, 0], down)
    datasets = []
    centre = np.array([0, 0, 150.0])
    for index in range(20):
        origin = np.array([-20, -60, 100 + 5.0 * index])
        rows = np.arange(80)
        points = origin[:, None] + down[:, None] * rows * 1.5
        distance = np.linalg.norm(points - centre[:, None], axis=0)  # of the column at x = -20
        hu = np.broadcast_to(np.rint(-1000 + 10 * distance)[:, None], (80, 8)).astype(np.int16)
        datasets.append(slice_dataset(hu, origin, ImageOrientationPatient=[1, 0, 0, *down], PixelSpacing=[1.5, 1.5]))
    scan = read(save(tmp_path / "a", datasets))
    assert scan.flags == ("gantry-tilt",)
    volume = scan.volume
    assert volume.spacing_mm == pytest.approx((5 * np.cos(tilt), 1.5, 1.5))
    across, along, down_axis = volume.affine[:3, 2], volume.affine[:3, 0], volume.affine[:3, 1]
    assert along @ down_axis == pytest.approx(0, abs=1e-9)
    assert along / np.linalg.norm(along) == pytest.approx(normal)
    for index in ((5, 40, 0), (10, 30, 0), (14, 50, 0)):
        point = (volume.affine @ [*index, 1])[:3]
        expected = -1000 + 10 * np.linalg.norm(point - centre)
        assert volume.hu[index] == pytest.approx(expected, abs=4)
    assert across[0] > 0


# Gaps, duplicates, broken slices


def test_a_missing_slice_is_interpolated_at_its_place(tmp_path: Path) -> None:
    slices = series()
    scan = read(save(tmp_path / "a", slices[:4] + slices[5:]))
    expected = np.clip(body(12), -1024, 600)
    assert scan.volume.hu[[*range(4), *range(5, 12)]].tolist() == expected[[*range(4), *range(5, 12)]].tolist()
    assert np.abs(scan.volume.hu[4] - (expected[3].astype(float) + expected[5]) / 2).max() <= 0.5
    assert (scan.slices, scan.interpolated, scan.flags) == (11, 1, ("interpolated",))
    assert scan.volume.spacing_mm[0] == pytest.approx(2.5)


@given(data=st.data(), count=st.integers(40, 200), spacing_mm=st.floats(0.3, 10), start=st.floats(-1500, 1500))
def test_any_few_missing_slices_leave_the_grid_as_it_is(
    data: st.DataObject, count: int, spacing_mm: float, start: float
) -> None:
    inner = st.integers(1, count - 2)
    missing = data.draw(st.sets(inner, max_size=count // 11).filter(lambda gaps: longest_run(gaps) <= 3))
    jitter = data.draw(st.floats(0, 0.04)) * spacing_mm
    places = start + spacing_mm * np.arange(count) + jitter * (-1.0) ** np.arange(count)
    grid = regular_grid(np.delete(places, list(missing)))
    assert (grid.count, grid.missing, grid.irregular) == (count, len(missing), False)
    assert grid.spacing_mm == pytest.approx(spacing_mm, rel=0.003)


def longest_run(numbers: set[int]) -> int:
    run = longest = 0
    for number in range(max(numbers, default=0) + 1):
        run = run + 1 if number in numbers else 0
        longest = max(longest, run)
    return longest


def test_a_large_gap_is_refused(tmp_path: Path) -> None:
    slices = series(60)
    assert refusal(save(tmp_path / "a", slices[:30] + slices[34:])).reason is Reason.GAP
    assert "4 in one place" in str(refusal(tmp_path / "a"))


def test_many_small_gaps_are_refused(tmp_path: Path) -> None:
    slices = [s for index, s in enumerate(series(60)) if index % 8]
    assert refusal(save(tmp_path / "a", slices)).detail == "7 of 59"


def test_irregular_spacing_is_resampled_from_true_positions(tmp_path: Path) -> None:
    places = np.cumsum([0, 2, 2, 2, 2.6, 2, 2, 1.5, 2, 2, 2, 2])
    datasets = [
        slice_dataset(np.full((24, 20), round(-500 + 10 * place), np.int16), (-20, -15, 100 + place))
        for place in places
    ]
    scan = read(save(tmp_path / "a", datasets))
    assert scan.flags == ("irregular-spacing",)
    assert scan.volume.hu[:, 3, 3] == pytest.approx(-500 + 10 * (scan.volume.positions_mm - 100), abs=2.1)
    assert scan.volume.positions_mm[[0, -1]] == pytest.approx([100, 100 + places[-1]])


def test_small_jitter_of_positions_is_no_irregularity(tmp_path: Path) -> None:
    slices = series()
    for index, dataset in enumerate(slices):
        dataset.ImagePositionPatient[2] += 0.04 * (-1) ** index
    assert read(save(tmp_path / "a", slices)).flags == ()


def test_the_same_slice_twice_is_dropped(tmp_path: Path) -> None:
    scan = read(save(tmp_path / "a", [*series(), series()[7]]))
    assert_is_body(scan)
    assert scan.flags == ("duplicates-dropped",)


def test_another_slice_at_the_same_place_is_refused(tmp_path: Path) -> None:
    other = slice_dataset(body(12, seed=9)[7], (-20, -15, 100 + 7 * 2.5))
    assert refusal(save(tmp_path / "a", [*series(), other])).reason is Reason.CONFLICTING_SLICES


def test_a_truncated_slice_is_named_and_interpolated(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", series())
    path = folder / "0006.dcm"
    path.write_bytes(path.read_bytes()[:-300])
    scan = read(folder)
    assert scan.unreadable == ("0006.dcm",)
    assert (scan.slices, scan.interpolated, len(scan.volume.hu)) == (11, 1, 12)
    assert scan.flags == ("interpolated", "unreadable-slices")


def test_a_slice_without_a_readable_header_is_named_too(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", series())
    path = folder / "0006.dcm"
    path.write_bytes(path.read_bytes()[:200])
    scan = read(folder)
    assert (scan.slices, scan.interpolated) == (11, 1)


def test_mostly_truncated_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", series())
    for path in sorted(folder.iterdir())[2:]:
        path.write_bytes(path.read_bytes()[:-300])
    assert refusal(folder).reason is Reason.UNREADABLE


# Units


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": 1, "RescaleIntercept": 0, "PixelRepresentation": 1},
        {"RescaleSlope": 0.5, "RescaleIntercept": -1000},
        {"RescaleSlope": "1.0", "RescaleIntercept": "-01.024000E+03"},
    ],
)
def test_rescaling(tmp_path: Path, elements: dict[str, Any]) -> None:
    assert_is_body(read(save(tmp_path / "a", series(**elements))))


def test_slope_and_intercept_belong_to_each_slice(tmp_path: Path) -> None:
    datasets = [
        slice_dataset(
            hu, (-20, -15, 100 + 2.5 * index), RescaleSlope=0.5 if index % 2 else 0.25, RescaleIntercept=-1024 - index
        )
        for index, hu in enumerate(body(12))
    ]
    assert_is_body(read(save(tmp_path / "a", datasets)))


@pytest.mark.parametrize(
    ("vr", "value", "representation"), [("SS", -2000, 1), ("US", 63536, 1), ("US", 63536, 0), ("US", 0, 0)]
)
def test_padding_is_air_whatever_its_sign(tmp_path: Path, vr: str, value: int, representation: int) -> None:
    stored = np.arange(24 * 20).reshape(24, 20).astype(np.int16 if representation else np.uint16) + 200
    stored[:3] = np.array(value).astype(stored.dtype)
    dataset = slice_dataset(np.zeros((24, 20), np.int16), (0, 0, 0), PixelRepresentation=representation)
    dataset.PixelData = stored.tobytes()
    dataset.add_new("PixelPaddingValue", vr, value)
    save(tmp_path / "a", [dataset])
    hu = read_pixels(tmp_path / "a" / "0000.dcm").hu
    assert (hu[:3] == -1024).all()
    assert (hu[3:] == stored[3:].astype(int) - 1024).all()


def test_a_padding_range(tmp_path: Path) -> None:
    hu = np.full((24, 20), 40, np.int16)
    dataset = slice_dataset(hu, (0, 0, 0), RescaleIntercept=-5000, PixelPaddingValue=100, PixelPaddingRangeLimit=104)
    stored = np.frombuffer(dataset.PixelData, np.uint16).copy()
    stored[:3] = (100, 102, 104)
    dataset.PixelData = stored.tobytes()
    save(tmp_path / "a", [dataset])
    assert read_pixels(tmp_path / "a" / "0000.dcm").hu.ravel()[:4].tolist() == [-1024, -1024, -1024, 40]


def test_a_padding_value_that_is_tissue_is_flagged_not_masked(tmp_path: Path) -> None:
    scan = read(save(tmp_path / "a", series(PixelPaddingValue=1024)))
    assert_is_body(scan)
    assert scan.flags == ("padding-value-is-tissue",)


def test_nothing_lies_below_air_without_any_padding_tag(tmp_path: Path) -> None:
    hu = np.full((24, 20), -3024, np.int16)
    slices = [slice_dataset(hu, (0, 0, z), PixelRepresentation=1) for z in range(12)]
    slices[3].PixelData = np.full((24, 20), 3000, np.int16).tobytes()
    volume = read(save(tmp_path / "a", slices)).volume
    assert (volume.hu.min(), volume.hu.max()) == (-1024, 600)


def test_bits_above_bits_stored_are_ignored(tmp_path: Path) -> None:
    datasets = series(BitsStored=12, HighBit=11)
    for dataset in datasets:
        dataset.PixelData = (np.frombuffer(dataset.PixelData, np.uint16) | 0xA000).tobytes()
    assert_is_body(read(save(tmp_path / "a", datasets)))


def test_pixels_end_where_they_say(tmp_path: Path) -> None:
    """What follows Pixel Data is never taken for pixels; too many are no harm."""
    short, long = series(), series()
    short[4].PixelData = short[4].PixelData[:-200]
    short[4].add_new(0xFFFCFFFC, "OB", bytes(400))
    long[4].PixelData += bytes(200)
    scan = read(save(tmp_path / "a", short))
    assert (scan.unreadable, scan.interpolated) == (("0004.dcm",), 1)
    assert_is_body(read(save(tmp_path / "b", long)))


def test_signed_values_of_twelve_bits(tmp_path: Path) -> None:
    datasets = series(BitsStored=12, HighBit=11, PixelRepresentation=1, RescaleIntercept=0)
    for dataset in datasets:
        dataset.PixelData = (np.frombuffer(dataset.PixelData, np.int16) & 0x0FFF).astype(np.uint16).tobytes()
    assert_is_body(read(save(tmp_path / "a", datasets)))


# Enhanced multi-frame images


def enhanced(slices: int = 12, **elements: Any) -> pydicom.Dataset:
    """The series of `series.series` as one enhanced image, with its slices in a shuffled order of frames."""
    plain = series(slices)
    order = np.random.default_rng(5).permutation(slices)
    whole = pydicom.Dataset()
    whole.update(plain[0])
    whole.file_meta = plain[0].file_meta
    whole.SOPClassUID = EnhancedCTImageStorage
    whole.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(whole, keyword)
    for keyword in ("RescaleSlope", "RescaleIntercept", "ConvolutionKernel"):
        delattr(whole, keyword)
    whole.NumberOfFrames = slices
    whole.PixelData = b"".join(plain[index].PixelData for index in order)
    shared = group(
        PixelMeasuresSequence={"PixelSpacing": [ROW_MM, COLUMN_MM], "SliceThickness": 5},
        PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        CTReconstructionSequence={"ConvolutionKernel": "B30f"},
        PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"},
    )
    whole.SharedFunctionalGroupsSequence = [shared]
    whole.PerFrameFunctionalGroupsSequence = [
        group(
            PlanePositionSequence={"ImagePositionPatient": plain[index].ImagePositionPatient},
            CTImageFrameTypeSequence={"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]},
        )
        for index in order
    ]
    for keyword, value in elements.items():
        setattr(whole, keyword, value)
    return whole


def group(**sequences: dict[str, Any]) -> pydicom.Dataset:
    """An item of functional groups: a sequence of one item for each."""
    groups = pydicom.Dataset()
    for sequence, elements in sequences.items():
        item = pydicom.Dataset()
        for keyword, value in elements.items():
            setattr(item, keyword, value)
        setattr(groups, sequence, [item])
    return groups


def test_an_enhanced_image_is_its_frames(tmp_path: Path) -> None:
    scan = read(save(tmp_path / "a", [enhanced()]))
    assert_is_body(scan)
    assert scan.slices == 12
    assert scan.tags == {"ConvolutionKernel": "B30f", "SliceThickness": 5.0}


def test_frames_that_are_localizers_are_set_aside(tmp_path: Path) -> None:
    image = enhanced()
    for index in (0, 1):
        frame_type = image.PerFrameFunctionalGroupsSequence[index].CTImageFrameTypeSequence[0]
        frame_type.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    caught = refusal(save(tmp_path / "a", [image]), min_slices=11)
    assert {(s.reason, s.slices) for s in caught.series} == {(Reason.TOO_FEW_SLICES, 10), (Reason.LOCALIZER, 2)}


def test_an_enhanced_image_with_a_rescale_a_frame(tmp_path: Path) -> None:
    image = enhanced()
    del image.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for index, groups in enumerate(image.PerFrameFunctionalGroupsSequence):
        transformation = {"RescaleSlope": 1, "RescaleIntercept": -1024 + index, "RescaleType": "HU"}
        groups.update(group(PixelValueTransformationSequence=transformation))
    pixels = np.frombuffer(image.PixelData, np.uint16).reshape(12, -1) - np.arange(12, dtype=np.uint16)[:, None]
    image.PixelData = pixels.tobytes()
    assert_is_body(read(save(tmp_path / "a", [image])))


def test_an_enhanced_image_that_lies_about_its_frames(tmp_path: Path) -> None:
    assert refusal(save(tmp_path / "a", [enhanced(NumberOfFrames=11)])).reason is Reason.UNREADABLE
    assert refusal(save(tmp_path / "b", [enhanced(PerFrameFunctionalGroupsSequence=[])])).reason is Reason.UNREADABLE


# Refusals


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Modality": "MR", "SOPClassUID": MRImageStorage}, Reason.NOT_CT),
        ({"Modality": "PT"}, Reason.NOT_CT),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, Reason.SECONDARY_CAPTURE),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67", "Modality": "SR"}, Reason.SECONDARY_CAPTURE),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "DOSE_INFO"]}, Reason.SECONDARY_CAPTURE),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.LOCALIZER),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}, Reason.REFORMATTED),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"]}, Reason.REFORMATTED),
        ({"PhotometricInterpretation": "MONOCHROME1"}, Reason.INVERTED),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, Reason.COLOUR),
        ({"NumberOfFrames": 3}, Reason.MULTI_FRAME),
        ({"ImagePositionPatient": None}, Reason.NO_GEOMETRY),
        ({"ImageOrientationPatient": None}, Reason.NO_GEOMETRY),
        ({"PixelSpacing": None}, Reason.NO_GEOMETRY),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, Reason.INVALID_GEOMETRY),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, Reason.INVALID_GEOMETRY),
        ({"PixelSpacing": [0, 0]}, Reason.INVALID_GEOMETRY),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, Reason.NOT_AXIAL),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, Reason.NOT_AXIAL),
        ({"RescaleSlope": None}, Reason.NO_RESCALE),
        ({"RescaleIntercept": None}, Reason.NO_RESCALE),
        ({"RescaleSlope": 0}, Reason.INVALID_RESCALE),
        ({"RescaleSlope": -1}, Reason.INVALID_RESCALE),
        ({"RescaleType": "Z_EFF"}, Reason.NOT_HOUNSFIELD),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, Reason.UNSUPPORTED_PIXELS),
        ({"HighBit": 13}, Reason.UNSUPPORTED_PIXELS),
        ({"Rows": 0}, Reason.UNSUPPORTED_PIXELS),
    ],
)
def test_every_refusal_has_its_reason(tmp_path: Path, elements: dict[str, Any], reason: Reason) -> None:
    datasets = series()
    for dataset in datasets:
        for keyword, value in elements.items():
            delattr(dataset, keyword) if value is None else setattr(dataset, keyword, value)
    caught = refusal(save(tmp_path / "a", datasets))
    assert caught.reason is reason
    assert [(s.reason, s.slices) for s in caught.series] == [(reason, 12)]
    assert reason.sentence in str(caught)


def test_every_reason_has_a_sentence() -> None:
    for reason in Reason:
        assert reason.sentence
        assert reason.hint is None or reason.hint


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: folder.mkdir(), Reason.NO_IMAGES),
        (lambda folder: (folder.mkdir(), (folder / "readme.txt").write_text("no image")), Reason.NO_IMAGES),
        (lambda folder: save(folder, series(3)), Reason.TOO_FEW_SLICES),
        (lambda folder: save(folder, [series()[0]] * 12), Reason.TOO_FEW_SLICES),
    ],
)
def test_folders_without_a_series(tmp_path: Path, make: Callable[[Path], object], reason: Reason) -> None:
    make(tmp_path / "a")
    assert refusal(tmp_path / "a").reason is reason


def test_the_paper_wants_forty_slices(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", series(39))
    with pytest.raises(RefusedError) as caught:
        read_scan(folder)
    assert caught.value.detail == "39 of 40"


def test_slices_beside_the_line_are_refused(tmp_path: Path) -> None:
    slices = series()
    slices[5].ImagePositionPatient[0] += 40
    assert refusal(save(tmp_path / "a", slices)).reason is Reason.INVALID_GEOMETRY


def test_a_deflated_file_that_inflates_without_end(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", series())
    first = pydicom.dcmread(folder / "0000.dcm")
    first.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    first.save_as(folder / "0000.dcm")
    start = (folder / "0000.dcm").read_bytes()
    meta_length = pydicom.filereader.read_file_meta_info(folder / "0000.dcm").FileMetaInformationGroupLength
    meta = start[: 128 + 4 + 12 + meta_length]
    packer = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(packer.compress(bytes(1 << 24)) for _ in range(20)) + packer.flush()
    (folder / "0000.dcm").write_bytes(meta + bomb)
    with pytest.raises(RefusedError, match="inflates"):
        read_header(folder / "0000.dcm")
    assert read(folder).slices == 11


def test_without_a_decoder_the_hint_says_which_to_install(tmp_path: Path) -> None:
    datasets = series()
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(40)])
        dataset["PixelData"].VR = "OB"
    folder = save(tmp_path / "a", datasets)
    assert refusal(folder).reason is Reason.NO_DECODER  # the decoder is there, but cannot do any slice
    decoders = ("pylibjpeg", "pylibjpeg-openjpeg", "pyjpegls", "python-gdcm", "imagecodecs")
    programs = linked(tmp_path / "without", "imaging", without=decoders)
    code = """
import sys
from pathlib import Path
from ucadi.ct.reading.scan import read_scan
from ucadi.errors import SeriesError
try:
    read_scan(Path(sys.argv[1]), min_slices=3)
except SeriesError as error:
    print(error.message, error.hint)
"""
    ran = subprocess.run([programs / "python", "-c", code, folder], capture_output=True, text=True, check=True)
    assert "no decoder" in ran.stdout
    assert "pip install" in ran.stdout
    assert "'pylibjpeg-openjpeg>=" in ran.stdout


def test_large_private_elements_are_not_read_with_the_header(tmp_path: Path) -> None:
    (dataset,) = series(1)
    dataset.private_block(0x0011, "VENDOR", create=True).add_new(1, "OB", bytes(40_000_000))
    save(tmp_path / "a", [dataset])
    tracemalloc.start()
    try:
        assert read_header(tmp_path / "a" / "0000.dcm").reason is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


# The choice of a series


def test_a_localizer_in_the_series_is_set_aside(tmp_path: Path) -> None:
    scout = [
        slice_dataset(np.zeros((30, 40), np.int16), (0, 0, z), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
        for z in (0, 1)
    ]
    scan = read(save(tmp_path / "a", [*scout, *series()]))
    assert_is_body(scan)
    assert [(s.reason, s.slices) for s in scan.set_aside] == [(Reason.LOCALIZER, 2)]


def test_two_kernels_under_one_uid_are_two_series(tmp_path: Path) -> None:
    soft, sharp = series(ConvolutionKernel="B30f"), series(seed=1, ConvolutionKernel="B70f")
    scan = read(save(tmp_path / "a", [*sharp, *soft]))
    assert_is_body(scan)
    assert [(s.reason, s.slices) for s in scan.set_aside] == [(Reason.NOT_CHOSEN, 12)]


def test_two_acquisitions_at_the_same_places_are_two_series(tmp_path: Path) -> None:
    first, second = series(AcquisitionNumber=1), series(seed=1, AcquisitionNumber=2)
    assert_is_body(read(save(tmp_path / "a", [*second, *first])))


def test_one_volume_in_several_acquisitions_stays_one(tmp_path: Path) -> None:
    slices = series()
    for index, dataset in enumerate(slices):
        dataset.AcquisitionNumber = index // 4
    assert_is_body(read(save(tmp_path / "a", slices)))


def test_thin_slices_win_and_a_uid_overrides(tmp_path: Path) -> None:
    thin = series(24, spacing_mm=1.25, seed=1, SeriesInstanceUID="1.2.1", SliceThickness=1.25)
    thick = series(12, SeriesInstanceUID="1.2.2")
    folder = save(tmp_path / "a", [*thick, *thin])
    assert_is_body(read(folder), 24, 1.25, seed=1)
    scan = read(folder, series={"1.2.2", "1.2.999"})
    assert_is_body(scan)
    assert (scan.uid, scan.ordinal) == ("1.2.2", 2)
    assert [s.uid for s in scan.set_aside] == ["1.2.1"]


def test_original_axial_wins_over_more_derived_slices(tmp_path: Path) -> None:
    derived = series(24, seed=1, SeriesInstanceUID="1.2.1", ImageType=["DERIVED", "SECONDARY", "AXIAL"])
    folder = save(tmp_path / "a", [*derived, *series(SeriesInstanceUID="1.2.2")])
    assert_is_body(read(folder))
    alone = read(save(tmp_path / "b", derived))
    assert alone.flags == ("derived",)


def test_the_next_series_is_used_when_the_best_cannot_be_read(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", series(24, seed=1, SeriesInstanceUID="1.2.1"))
    for path in list(folder.iterdir()):
        path.write_bytes(path.read_bytes()[:-100])
    save(folder, series(SeriesInstanceUID="1.2.2"))
    scan = read(folder)
    assert_is_body(scan)
    assert [(s.uid, s.reason) for s in scan.set_aside] == [("1.2.1", Reason.UNREADABLE)]


@pytest.mark.parametrize(
    ("kernel", "sharp"),
    [
        *(("B31f", False), ("B70f", True), ("Br38f", False), ("Bl64d", True), ("STANDARD", False), ("LUNG", True)),
        *(("FC51", True), ("FC08", False), ("", False), ("BONEPLUS", True), ("I70f\\3", True)),
    ],
)
def test_kernels(kernel: str, sharp: bool) -> None:
    assert is_sharp(kernel) is sharp


def test_empty_uids_and_implicit_vr_without_preamble(tmp_path: Path) -> None:
    datasets = series(SeriesInstanceUID="", SOPInstanceUID="", SOPClassUID="")
    folder = tmp_path / "a"
    folder.mkdir()
    for index, dataset in enumerate(datasets):
        del dataset.file_meta
        dataset.save_as(folder / f"{index}", implicit_vr=True, little_endian=True)
        assert (folder / f"{index}").read_bytes()[128:132] != b"DICM"
    scan = read(folder)
    assert_is_body(scan)
    assert scan.uid == ""


def test_the_digest_is_of_the_instances_not_their_names(tmp_path: Path) -> None:
    datasets = series()
    names = [f"{index}" for index in range(12)]
    one = read(save(tmp_path / "a", datasets, names))
    two = read(save(tmp_path / "b", datasets, names[::-1]))
    assert one.digest == two.digest
    datasets[3].RescaleIntercept = -1023
    assert read(save(tmp_path / "c", datasets)).digest != one.digest


# Real data


@needs_real_data
@pytest.mark.parametrize(
    ("name", "slices", "spacing_mm", "pixel_mm", "first"),
    [
        ("chest-contrast-ge", 95, 0.8, 0.644531, (-169.399994, -165.0, -280.0)),
        ("chest-noncontrast-siemens", 98, 1.0, 0.759765625, (-189.1201171875, -364.1201171875, -5.5)),
        ("chest-jpeg2000-empty-uids", 20, 2.0, 0.9765625, (-249.51171875, -437.51171875, -804.5)),
    ],
)
def test_real_series(
    name: str, slices: int, spacing_mm: float, pixel_mm: float, first: tuple[float, float, float]
) -> None:
    scan = read_scan(REAL / name, min_slices=10)
    assert scan.volume.hu.shape == (slices, 512, 512)
    assert scan.volume.spacing_mm == pytest.approx((spacing_mm, pixel_mm, pixel_mm), rel=1e-6)
    assert scan.volume.affine[:3, 3] == pytest.approx(first)
    assert scan.volume.hu.min() >= -1024
    assert scan.volume.hu.max() <= 600
    assert scan.flags == ()
    middle = scan.volume.hu[slices // 2]
    assert np.median(middle[:20]) < -900  # air in front of the patient, who lies supine


@needs_real_data
def test_padding_of_the_ge_series_is_air() -> None:
    """Its corners hold -2000, which would be -3024 HU."""
    pixels = read_pixels(REAL / "chest-contrast-ge" / "1-001.dcm")
    assert pixels.hu[0, 0] == -1024
    assert pixels.hu.min() == -1024


@needs_real_data
def test_a_padding_value_beyond_its_sign_in_the_wild() -> None:
    found = 0
    for path in sorted((REAL / "slices-contrast-50x50").glob("*.dcm")):
        dataset = pydicom.dcmread(path, specific_tags=["PixelPaddingValue", "PixelRepresentation"])
        if dataset.get("PixelPaddingValue") == 63536:
            found += 1
            assert read_pixels(path).hu[0, 0] == -1024
    assert found > 5


LOSSLESS = [
    "CTImage.dcm",
    "CTImage.dcm_BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2.dcm",
    "CTImage.dcm_DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99.dcm",
    "CTImage.dcm_JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90.dcm",
    "CTImage.dcm_JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80.dcm",
    "CTImage.dcm_JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70.dcm",
    "CTImage.dcm_JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57.dcm",
    "CTImage.dcm_LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1.dcm",
    "CTImage.dcm_LittleEndianImplicitTransferSyntax_1.2.840.10008.1.2.dcm",
    "CTImage.dcm_RLELosslessTransferSyntax_1.2.840.10008.1.2.5.dcm",
]


@needs_real_data
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_transfer_syntaxes_give_one_array(name: str) -> None:
    path = REAL / "transfer-syntaxes" / name
    header = read_header(path)
    if header.reason is Reason.NO_DECODER:
        pytest.skip("no decoder installed for this transfer syntax")
    assert header.reason is None
    assert not header.lossy
    expected = read_pixels(REAL / "transfer-syntaxes" / "CTImage.dcm").hu
    assert (read_pixels(path).hu == expected).all()


@needs_real_data
@pytest.mark.parametrize(
    ("syntax", "error_hu"),
    [("JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91", 5), ("JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50", 40)],
)
def test_lossy_transfer_syntaxes_are_close_and_flagged(syntax: str, error_hu: int) -> None:
    path = REAL / "transfer-syntaxes" / f"CTImage.dcm_{syntax}.dcm"
    header = read_header(path)
    if header.reason is Reason.NO_DECODER:
        pytest.skip("no decoder installed for this transfer syntax")
    assert header.lossy
    expected = read_pixels(REAL / "transfer-syntaxes" / "CTImage.dcm").hu
    inside = expected > -1000
    assert np.median(np.abs(read_pixels(path).hu.astype(int) - expected)[inside]) <= error_hu


@needs_real_data
@pytest.mark.parametrize("process", ["2_4", "6_8", "10_12"])
def test_jpeg_of_twelve_bits(process: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the extra `jpeg12`; without it, it is refused with the way out."""
    syntax = {"2_4": 51, "6_8": 53, "10_12": 55}[process]
    path = (
        REAL / "transfer-syntaxes" / f"CTImage.dcm_JPEGProcess{process}TransferSyntax_1.2.840.10008.1.2.4.{syntax}.dcm"
    )
    header = read_header(path)
    assert (header.reason, header.lossy) == (None, True)
    expected = read_pixels(REAL / "transfer-syntaxes" / "CTImage.dcm").hu
    inside = expected > -1000
    assert np.median(np.abs(read_pixels(path).hu.astype(int) - expected)[inside]) <= 4
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setattr(jpeg12, "is_available", lambda: False)
    instance_module._decodable.cache_clear()
    try:
        assert read_header(path).reason is Reason.NO_DECODER
    finally:
        instance_module._decodable.cache_clear()


def test_implicit_vr(tmp_path: Path) -> None:
    datasets = series()
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert_is_body(read(save(tmp_path / "a", datasets)))
