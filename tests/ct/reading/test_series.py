"""The series of a case: what belongs together, what is refused by its headers, and which one is preferred."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest
from series import ROW_MM, save, series

from ucadi.ct.reading.refusals import Reason
from ucadi.ct.reading.series import SHARP_KERNEL_PREFIXES, Folder, Series, is_sharp, list_series, preference
from ucadi.ct.reading.stack import SAME_PLACE_MM


def listed(folder: Path, *groups: list[pydicom.Dataset]) -> Folder:
    """What is found when these are saved to a folder."""
    return list_series(save(folder, [dataset for group in groups for dataset in group]), min_slices=4)


def sizes(found: Folder) -> list[int]:
    return [len(each.instances) for each in found.series]


def moved(datasets: list[pydicom.Dataset], by: float, axis: int = 2) -> list[pydicom.Dataset]:
    for dataset in datasets:
        dataset.ImagePositionPatient[axis] += by
    return datasets


# What belongs together


@pytest.mark.parametrize(
    "elements",
    [
        {"ImageOrientationPatient": [1, 0.0004, 0, -0.0004, 1, 0]},
        {"PixelSpacing": [ROW_MM + 0.00004, 2]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]},
        {"SliceThickness": 3},
    ],
)
def test_small_differences_do_not_part_a_series(tmp_path: Path, elements: dict[str, Any]) -> None:
    found = listed(tmp_path / "a", series(6), moved(series(6, **elements), 6 * 2.5))
    assert sizes(found) == [12]
    assert found.series[0].reason is None


@pytest.mark.parametrize(
    "elements",
    [
        {"ImageOrientationPatient": [1, 0.002, 0, -0.002, 1, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0.002]},
        {"PixelSpacing": [ROW_MM + 0.0002, 2]},
        {"PixelSpacing": [ROW_MM, 2.0002]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "VOLUME"]},
        {"ConvolutionKernel": "B31f"},
        {"SeriesInstanceUID": "1.2.3.5"},
        {"PhotometricInterpretation": "MONOCHROME1"},
    ],
)
def test_other_differences_do(tmp_path: Path, elements: dict[str, Any]) -> None:
    found = listed(tmp_path / "a", series(6), moved(series(7, **elements), 6 * 2.5))
    assert sorted(sizes(found)) == [6, 7]


def test_images_of_another_size_are_another_series(tmp_path: Path) -> None:
    narrow = series(7)
    for dataset in narrow:
        dataset.Rows, dataset.Columns = dataset.Columns, dataset.Rows
    assert sorted(sizes(listed(tmp_path / "a", series(6), narrow))) == [6, 7]


def test_without_a_uid_a_folder_is_a_series(tmp_path: Path) -> None:
    save(tmp_path / "a" / "x", series(5, SeriesInstanceUID=""))
    save(tmp_path / "a" / "y", series(6, SeriesInstanceUID=""))
    assert sizes(list_series(tmp_path / "a", min_slices=4)) == [5, 6]


def test_what_cannot_be_used_is_parted_by_the_reason_alone(tmp_path: Path) -> None:
    scouts = [series(1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], AcquisitionNumber=n)[0] for n in (1, 2)]
    found = listed(tmp_path / "a", scouts, series(2, Modality="MR"))
    assert {(s.reason, len(s.instances)) for s in found.series} == {(Reason.LOCALIZER, 2), (Reason.NOT_CT, 2)}
    assert [(s.ordinal, s.detail, s.line) for s in found.series] == [(1, "", None), (2, "", None)]


@pytest.mark.parametrize(
    ("apart", "parts"), [(-2.5, 2), (0.0, 2), (SAME_PLACE_MM / 2, 2), (2 * SAME_PLACE_MM, 1), (2.5, 1)]
)
def test_acquisitions_that_follow_one_another_are_one_volume(tmp_path: Path, apart: float, parts: int) -> None:
    """The second of them begins so many mm beyond the last slice of the first."""
    first = series(6, AcquisitionNumber=7)
    second = moved(series(5, AcquisitionNumber=3), 5 * 2.5 + apart)
    found = listed(tmp_path / "a", first, second)
    assert sizes(found) == ([5, 6] if parts == 2 else [11])


def test_three_acquisitions_are_compared_in_the_order_of_their_places(tmp_path: Path) -> None:
    top, middle, bottom = (moved(series(4, AcquisitionNumber=n), 10 * (3 - n)) for n in (1, 2, 3))
    assert sizes(listed(tmp_path / "a", top, middle, bottom)) == [12]
    assert sizes(listed(tmp_path / "b", top, middle, bottom, moved(series(4, AcquisitionNumber=4), 12))) == [4] * 4


# Where they are


def test_series_are_numbered_in_the_order_of_their_uids(tmp_path: Path) -> None:
    groups = [series(n, SeriesInstanceUID=f"1.2.{9 - n}", AcquisitionNumber=n) for n in (4, 5, 6)]
    found = listed(tmp_path / "a", *groups)
    assert [(s.ordinal, s.uid, len(s.instances)) for s in found.series] == [
        (1, "1.2.3", 6),
        (2, "1.2.4", 5),
        (3, "1.2.5", 4),
    ]


def test_kernels_of_one_uid_are_numbered_in_their_order(tmp_path: Path) -> None:
    groups = [series(4, ConvolutionKernel=kernel) for kernel in ("B50f", "B30f", "B70f")]
    found = listed(tmp_path / "a", *groups)
    assert [s.instances[0].kernel for s in found.series] == ["B30f", "B50f", "B70f"]


def test_images_lie_in_the_order_of_their_places_then_names(tmp_path: Path) -> None:
    slices = series(5)
    found = list_series(save(tmp_path / "a", slices[::-1] + slices[:1], ["e", "d", "c", "b", "a2", "a1"]), min_slices=4)
    (one,) = found.series
    assert [i.path.name for i in one.instances] == ["a1", "a2", "b", "c", "d", "e"]
    assert one.positions[:, 2].tolist() == [100, 100, 102.5, 105, 107.5, 110]


def test_hidden_files_and_links_to_folders_are_left_alone(tmp_path: Path) -> None:
    save(tmp_path / "a", series(4))
    save(tmp_path / "a" / ".trash", series(5, SeriesInstanceUID="1.2"))
    save(tmp_path / "a" / "b" / ".snapshot", series(5, SeriesInstanceUID="1.2"))
    save(tmp_path / "a" / "b", series(1, SeriesInstanceUID="1.2"), [".hidden.dcm"])
    save(tmp_path / "elsewhere", series(5, SeriesInstanceUID="1.2"))
    (tmp_path / "a" / "link").symlink_to(tmp_path / "elsewhere")
    assert sizes(list_series(tmp_path / "a", min_slices=4)) == [4]


def test_unreadable_files_are_named_in_a_fixed_order(tmp_path: Path) -> None:
    save(tmp_path / "a", series(4))
    header = (tmp_path / "a" / "0000.dcm").read_bytes()[:200]
    for name in ("z", "b/y", "b/x", "a/w", "DICOMDIR"):
        (tmp_path / "a" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_bytes(header)
    found = list_series(tmp_path / "a", min_slices=4)
    assert sizes(found) == [4]
    assert [str(p.relative_to(tmp_path / "a")) for p in found.unreadable][-4:] == ["z", "a/w", "b/x", "b/y"]
    assert tmp_path / "a" / "DICOMDIR" in found.unreadable


def test_one_file_is_a_place(tmp_path: Path) -> None:
    save(tmp_path / "a", series(4))
    assert sizes(list_series(tmp_path / "a" / "0002.dcm", min_slices=1)) == [1]
    nothing = list_series(tmp_path / "absent", min_slices=1)
    assert (nothing.series, nothing.unreadable) == ((), ())


# What is refused


def judged(folder: Path, datasets: list[pydicom.Dataset], min_slices: int = 4) -> tuple[Reason | None, str]:
    (found,) = list_series(save(folder, datasets), min_slices=min_slices).series
    assert (found.line is None) == (found.reason is not None)
    return found.reason, found.detail


def test_slices_are_counted_by_their_places(tmp_path: Path) -> None:
    assert judged(tmp_path / "a", series(4)) == (None, "")
    assert judged(tmp_path / "b", series(3)) == (Reason.TOO_FEW_SLICES, "3 of 4")
    assert judged(tmp_path / "c", series(3) * 2) == (Reason.TOO_FEW_SLICES, "3 of 4")
    near = [*series(3), *moved(series(3), SAME_PLACE_MM / 2)]
    assert judged(tmp_path / "d", near) == (Reason.TOO_FEW_SLICES, "3 of 4")
    assert judged(tmp_path / "e", series(4) * 3) == (None, "")
    apart = series(3)
    for dataset, place in zip(apart, (0, 0, SAME_PLACE_MM), strict=True):
        dataset.ImagePositionPatient[2] = place
    assert judged(tmp_path / "f", apart, min_slices=3) == (Reason.TOO_FEW_SLICES, "2 of 3")


def test_geometry_is_judged_by_the_headers(tmp_path: Path) -> None:
    assert judged(tmp_path / "a", [*series(12)[:4], *series(12)[8:]]) == (Reason.GAP, "4 in one place")
    for by, reason in ((1.4, None), (1.75, Reason.INVALID_GEOMETRY)):
        slices = series(8)
        moved(slices[3:4], by, axis=0)  # pixels are 1.5 mm high and 2 mm wide
        assert judged(tmp_path / f"b{by}", slices)[0] is reason


def test_the_record_of_a_series_that_is_not_used(tmp_path: Path) -> None:
    usable, refused = listed(
        tmp_path / "a", series(5, SeriesInstanceUID="1.2"), series(3, SeriesInstanceUID="1.3")
    ).series
    aside = usable.set_aside()
    assert (aside.ordinal, aside.slices, aside.reason, aside.detail, aside.uid) == (1, 5, Reason.NOT_CHOSEN, "", "1.2")
    aside = refused.set_aside()
    assert (aside.ordinal, aside.slices, aside.reason, aside.detail) == (2, 3, Reason.TOO_FEW_SLICES, "3 of 4")
    aside = refused.set_aside(Reason.UNREADABLE, "all")
    assert (aside.reason, aside.detail, aside.uid) == (Reason.UNREADABLE, "all", "1.3")
    assert usable.set_aside(Reason.GAP).detail == ""


# Which one is preferred


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        # each of the better has what the worse has not, and lacks all that would decide after it
        (
            {"n": 4, "SliceThickness": 9, "ConvolutionKernel": "B70f"},
            {"n": 8, "ImageType": ["DERIVED", "PRIMARY", "AXIAL"]},
        ),
        ({"n": 4, "SliceThickness": 9}, {"n": 8, "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]}),
        (
            {"n": 4, "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME"]},
            {"n": 8, "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]},
        ),
        ({"n": 8, "ImageType": None}, {"n": 4}),
        ({"n": 8, "SliceThickness": 9, "ConvolutionKernel": "B70f"}, {"n": 7, "SliceThickness": 1}),
        ({"n": 5, "SliceThickness": 1}, {"n": 4, "twice": True, "SliceThickness": 1}),
        ({"n": 4, "SliceThickness": 2, "ConvolutionKernel": "B70f"}, {"n": 4, "SliceThickness": 3}),
        ({"n": 4, "SliceThickness": 9, "ConvolutionKernel": "B70f"}, {"n": 4, "SliceThickness": None}),
        ({"n": 4}, {"n": 4, "ConvolutionKernel": "B70f"}),
    ],
)
def test_the_better_series_comes_first(tmp_path: Path, better: dict[str, Any], worse: dict[str, Any]) -> None:
    for uids in (("1.2", "1.3"), ("1.3", "1.2")):
        groups = []
        for uid, wanted in zip(uids, (better, worse), strict=True):
            options = dict(wanted)
            count, times = options.pop("n"), 1 + options.pop("twice", False)
            groups.append(series(count, SeriesInstanceUID=uid, **options) * times)
        found = listed(tmp_path / uids[0], *groups)
        assert [s.uid for s in sorted(found.series, key=preference)] == list(uids)


def test_the_first_slice_says_how_thick_they_are(tmp_path: Path) -> None:
    thin, thick = (
        series(4, SeriesInstanceUID="1.3", SliceThickness=1),
        series(4, SeriesInstanceUID="1.2", SliceThickness=2),
    )
    thin[1].SliceThickness = 3
    found = listed(tmp_path / "a", thin, thick)
    assert min(found.series, key=preference).uid == "1.3"


def test_of_equals_the_first_is_preferred(tmp_path: Path) -> None:
    found = listed(tmp_path / "a", *(series(4, SeriesInstanceUID=f"1.{n}") for n in (3, 1, 2)))
    best: Series = min(reversed(found.series), key=preference)
    assert best.uid == "1.1"


@pytest.mark.parametrize(
    ("kernel", "sharp"),
    [
        *(
            (f"{letter}{number}{rest}", number >= 60)
            for letter in "BHUIQ"
            for number in (59, 60)
            for rest in ("f", "5s")
        ),
        *((prefix, True) for prefix in SHARP_KERNEL_PREFIXES),
        *(("lung", True), ("br64d", True), ("STANDARD\\LUNG", False), ("LUNG\\STANDARD", True)),
        *(("B7f", False), ("B\\70", False), ("X70", False), ("FC13", False), ("FC30", True), ("", False)),
    ],
)
def test_a_kernel_is_sharp_by_its_number_or_its_name(kernel: str, sharp: bool) -> None:
    assert is_sharp(kernel) is sharp


def test_hints_that_name_options_are_known() -> None:
    """The diagnosis page, where there are none, leaves them out."""
    assert [reason for reason in Reason if "--" in (reason.hint or "")] == [r for r in Reason if r.names_an_option]
