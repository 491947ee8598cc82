"""DICOMDIR: what it lists is read, what is missing is reported, and it leads nowhere else.

pydicom's FileSet writes the indices.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pydicom
import pytest
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid
from series import save, series

from ucadi.commands.preprocess import preprocess
from ucadi.ct.reading import dicomdir
from ucadi.ct.reading.refusals import Reason, RefusedError
from ucadi.ct.reading.scan import read_scan
from ucadi.ct.reading.series import list_series


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A CD with a DICOMDIR that lists one series of 12 slices, and beside it a series that it does not list."""
    study = {"PatientID": "1", "PatientName": "A^B", "StudyInstanceUID": generate_uid(), "StudyID": "1"}
    study |= {"StudyDate": "20200101", "StudyTime": "101112", "SeriesNumber": 1}
    files = FileSet()
    for dataset in series(SeriesInstanceUID=generate_uid(), **study):
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        files.add(dataset)
    files.write(tmp_path / "scans" / "cd")
    files._stage["t"].cleanup()  # which it leaves to the garbage collector, with a warning
    save(tmp_path / "scans" / "cd" / "OTHER", series(24, seed=1, spacing_mm=1.25, SeriesInstanceUID="1.2.9"))
    return tmp_path / "scans" / "cd"


def listed(medium: Path) -> list[Path]:
    return sorted((medium / "PT000000").rglob("IM*"))


def change(medium: Path, parts: list[str]) -> None:
    """Lets the index' first image record name another file."""
    dataset = pydicom.dcmread(medium / "DICOMDIR")
    record = next(r for r in dataset.DirectoryRecordSequence if r.DirectoryRecordType == "IMAGE")
    record["ReferencedFileID"] = pydicom.DataElement("ReferencedFileID", "LO", parts)
    dataset.save_as(medium / "DICOMDIR")


def test_the_listed_series_is_read_and_no_other(medium: Path) -> None:
    scan = read_scan(medium / "DICOMDIR", min_slices=4)
    assert (scan.slices, scan.unreadable, scan.set_aside) == (12, (), ())
    folder = read_scan(medium, min_slices=4)
    assert folder.slices == 24
    assert [s.slices for s in folder.set_aside] == [12]


def test_lower_case_names_are_found(medium: Path) -> None:
    for path in sorted(medium.rglob("*"), reverse=True):
        path.rename(path.with_name(path.name.lower()))
    assert read_scan(medium / "dicomdir", min_slices=4).slices == 12


@pytest.mark.parametrize("what", ["DICOMDIR", "."])
def test_missing_files_are_named(medium: Path, what: str) -> None:
    gone = listed(medium)[5]
    gone.unlink()
    scan = read_scan(medium / what, min_slices=4)
    assert scan.unreadable == (gone.name,)
    if what == "DICOMDIR":
        assert (scan.slices, scan.interpolated) == (11, 1)


@pytest.mark.parametrize(
    "parts",
    [["..", "..", "out"], ["..\\..\\out"], ["/etc/passwd"], ["", "etc", "passwd"], ["LINK", "out"], ["PT000000"]],
)
def test_it_leads_nowhere_else(medium: Path, parts: list[str]) -> None:
    outside = medium.parents[1]
    shutil.copy(listed(medium)[0], outside / "out")
    (medium / "LINK").symlink_to(outside)
    change(medium, parts)
    index = dicomdir.read(medium / "DICOMDIR")
    assert (len(index.files), len(index.missing)) == (11, 1)
    assert all(path.resolve().is_relative_to(medium.resolve()) for path in index.files)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_broken_index_is_refused_but_its_folder_is_read(medium: Path, share: float) -> None:
    """pydicom takes a truncated one without a word, so slices would be lost in silence."""
    data = (medium / "DICOMDIR").read_bytes()
    (medium / "DICOMDIR").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(RefusedError) as caught:
        read_scan(medium / "DICOMDIR", min_slices=4)
    assert caught.value.reason is Reason.UNREADABLE
    scan = read_scan(medium, min_slices=4)
    assert (scan.slices, scan.unreadable) == (24, ("DICOMDIR",))


def test_what_several_indices_lack_is_all_named(medium: Path) -> None:
    shutil.copy(medium / "DICOMDIR", medium / "dicomdir")
    (medium / "DICOMDIR").write_bytes(b"broken")
    gone = listed(medium)[5]
    gone.unlink()
    assert {path.name for path in list_series(medium, min_slices=4).unreadable} == {"DICOMDIR", gone.name}


@pytest.mark.usefixtures("medium")
def test_a_case_may_be_a_dicomdir(tmp_path: Path) -> None:
    """Its folder then belongs to it, so that the labels need not name what else is on the medium."""
    save(tmp_path / "scans" / "b", series(seed=3))
    (tmp_path / "labels.csv").write_text("case,label\ncd/DICOMDIR,covid\nb,healthy\n")
    result = preprocess(
        tmp_path / "scans",
        output=tmp_path / "a.h5",
        labels=tmp_path / "labels.csv",
        min_slices=4,
        size=16,
        workers=1,
        linkage=tmp_path / "linkage.csv",
    )
    assert (result.cases, result.rejected) == (2, {})
    rows = list(csv.DictReader((tmp_path / "linkage.csv").read_text().splitlines()))
    assert {row["case"] for row in rows} == {"cd/DICOMDIR", "b"}
