"""ucadi preprocess: from folders and a labels file to a dataset that names no patient."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import signal
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pydicom
import pytest
from PIL import Image
from places import REAL
from series import body, save, series
from traps import enhanced

from ucadi.commands.merge import merge
from ucadi.commands.preprocess import PreprocessResult, preprocess
from ucadi.commands.split import split
from ucadi.ct.reading import nifti, parallel
from ucadi.ct.reading.parallel import ReadJob, read_scans
from ucadi.ct.reading.refusals import Reason, RefusedError
from ucadi.ct.reading.scan import Scan, read_scan
from ucadi.ct.volume import Volume
from ucadi.errors import FormatError, MismatchError, OutputError, SeriesError, UsageError
from ucadi.files import write_file
from ucadi.formats import caselist, dataset
from ucadi.formats.salt import pseudonym, read_or_make
from ucadi.labels import Diagnosis
from ucadi.pages import quality

needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="no real CT data; UCADI_TEST_DATA names its folder")

SECRET = bytes(range(32))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site with three scans of two patients, and an empty folder to write to."""
    for number, name in enumerate(("a", "b/first", "b/second")):
        save(tmp_path / "scans" / name, series(seed=number, SeriesInstanceUID=f"1.2.{number}"))
    (tmp_path / "labels.csv").write_text("case,patient,label\na,,covid\nb/first,b,healthy\nb/second,b,other viral\n")
    (tmp_path / "out").mkdir()
    write_file(tmp_path / "salt", SECRET, mode=0o600)
    return tmp_path


def run(site: Path, **options: Any) -> PreprocessResult:
    arguments: dict[str, Any] = {
        "output": site / "out" / "site.h5",
        "labels": site / "labels.csv",
        "size": 16,
        "min_slices": 4,
        "salt": site / "salt",
        "workers": 1,
    }
    return preprocess(site / "scans", **{**arguments, **options})


def report_of(site: Path) -> dict[str, Any]:
    """The report's records by the cases' ids."""
    document = json.loads((site / "report" / "report.json").read_text())
    return {record["id"]: record for record in document["cases"]}


def test_a_site(site: Path) -> None:
    result = run(site)
    assert (result.cases, result.patients, result.rejected) == (3, 2, {})
    assert result.labels == {"covid": 1, "healthy": 1, "other_viral": 1}
    assert str(result).startswith(
        f"{site / 'out' / 'site.h5'}: 3 cases of 2 patients: 1 covid, 1 healthy, 1 other_viral"
    )
    with dataset.open(result.dataset) as data:
        assert data.digest == result.digest
        labels = dict(zip(data.ids, data.labels, strict=True))
        assert labels == {
            pseudonym(SECRET, "case", "a"): Diagnosis.COVID,
            pseudonym(SECRET, "case", "b/first"): Diagnosis.HEALTHY,
            pseudonym(SECRET, "case", "b/second"): Diagnosis.OTHER_VIRAL,
        }
        index = data.ids.index(pseudonym(SECRET, "case", "a"))
        expected = read_scan(site / "scans" / "a", size=16, min_slices=4)
        case = data.case(index)
        assert (case.volume.hu == expected.volume.hu).all()
        assert (case.volume.affine == expected.volume.affine).all()
        assert (case.patient, case.series_digest) == (pseudonym(SECRET, "patient", "a"), expected.digest)
        assert case.positions_mm == pytest.approx(100 + 2.5 * np.arange(12))
        assert data.attributes == {"min_slices": 4, "revision": 2}


def test_bytes_depend_on_the_scans_and_the_salt_only(site: Path) -> None:
    """Not on the number of processes, the order of the labels, the time or the place."""
    first = run(site).digest
    lines = (site / "labels.csv").read_text().splitlines()
    (site / "labels.csv").write_text("\r\n".join([lines[0], *lines[:0:-1]]))
    (site / "elsewhere").mkdir()
    (site / "scans").rename(site / "elsewhere" / "scans")
    (site / "scans").symlink_to(site / "elsewhere" / "scans")
    assert run(site, output=site / "elsewhere" / "again.h5", workers=2).digest == first
    write_file(site / "salt", SECRET[::-1], force=True, mode=0o600)
    assert run(site, output=site / "elsewhere" / "other.h5").digest != first


def test_a_bad_scan_is_rejected_and_the_rest_goes_on(site: Path) -> None:
    (site / "scans" / "empty").mkdir()
    save(site / "scans" / "short", series(3))
    save(site / "scans" / "mr", series(Modality="MR"))
    scout = series(2, SeriesInstanceUID="1.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    save(site / "scans" / "a", scout)
    with (site / "labels.csv").open("a") as file:
        file.write("empty,,covid\nshort,,covid\nmr,,covid\n")
    result = run(site, report=site / "report", linkage=site / "linkage.csv")
    assert result.rejected == {
        "empty": "no DICOM image in it",
        "mr": "not CT (Modality or SOP Class)",
        "short": "too few slices (3 of 4)",
    }
    assert result.series_not_used == {"localizer": 1}
    assert "rejected: 3 of 6 cases\n  empty: no DICOM image in it\n" in str(result)
    ids = {name: pseudonym(SECRET, "case", name) for name in ("a", "empty", "short", "mr")}
    with dataset.open(result.dataset) as data:
        assert len(data) == 3
        found = {(r.case, r.series, r.reason, r.slices) for r in data.rejections}
    assert found == {
        (ids["a"], 2, "localizer", 2),
        (ids["empty"], 0, "no-images", 0),
        (ids["short"], 0, "too-few-slices", 3),
        (ids["short"], 1, "too-few-slices", 3),
        (ids["mr"], 0, "not-ct", 12),
        (ids["mr"], 1, "not-ct", 12),
    }
    records = report_of(site)
    assert records[ids["a"]]["used"] is True
    assert records[ids["a"]]["spacing_mm"][0] == 2.5
    assert records[ids["a"]]["not_used"] == [{"series": 2, "slices": 2, "reason": "localizer", "detail": ""}]
    assert records[ids["short"]]["reason"] == "too-few-slices"

    rows = list(csv.DictReader((site / "report" / "report.csv").read_text().splitlines()))
    by_id = {row["id"]: row for row in rows}
    assert by_id[ids["a"]]["slice_mm"] == "2.5"
    assert by_id[ids["a"]]["not_used"] == "2:localizer"
    assert (by_id[ids["mr"]]["used"], by_id[ids["mr"]]["reason"]) == ("no", "not-ct")

    linked = {
        (row["id"], row["series"]): row for row in csv.DictReader((site / "linkage.csv").read_text().splitlines())
    }
    assert (site / "linkage.csv").stat().st_mode & 0o777 == 0o600
    assert linked[ids["a"], "2"]["uid"] == "1.9"
    assert (linked[ids["a"], "1"]["case"], linked[ids["a"], "1"]["used"]) == ("a", "yes")
    assert linked[ids["empty"], ""]["case"] == "empty"


def test_if_all_are_rejected_there_is_a_report_but_no_dataset(site: Path) -> None:
    with pytest.raises(SeriesError, match="no usable scan in 3 cases; a: too few slices") as caught:
        run(site, min_slices=40, report=site / "report")
    assert caught.value.exit_code == 5
    assert list((site / "out").iterdir()) == []
    assert len(report_of(site)) == 3


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("case,patient,label\na,,covid\nb/first,b,healthy\n", MismatchError, "b/second"),
        ("case,patient,label\na,,covid\nb,b,healthy\nc,,covid\n", MismatchError, "c, which"),
        ("case,label\na,covid\n", MismatchError, "holds b,"),
        ("case,label\na,covid\nb,measles\n", FormatError, "labels.csv:3: unknown diagnosis"),
        ("case,label\na,covid\nb,\n", FormatError, "labels.csv:3: case b has no label"),
        ("case,label\na,covid\na,covid\n", FormatError, "stands twice"),
        ("case,label\n../a,covid\n", FormatError, "no path within"),
        ("case,label\n/a,covid\n", FormatError, "no path within"),
        ("case,label\n,covid\n", FormatError, "no path within"),
        ("folder,label\na,covid\n", FormatError, "the columns are folder, label"),
        ("", FormatError, "the columns are none"),
        ('case,label\n"a,covid\n', FormatError, "labels.csv"),
    ],
)
def test_labels_and_folders_must_match(site: Path, text: str, error: type[Exception], words: str) -> None:
    (site / "labels.csv").write_text(text)
    with pytest.raises(error, match=words):
        run(site)
    assert list((site / "out").iterdir()) == []


def test_labels_as_spreadsheets_write_them(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("\ufeffCase;Patient;Label;Note\r\nx\\y;p;Other-Viral;é\r\n".encode())
    assert caselist.read(tmp_path / "labels.csv") == [caselist.ListedCase("x/y", "p", Diagnosis.OTHER_VIRAL)]


def test_unlabelled(site: Path) -> None:
    with pytest.raises(UsageError):
        run(site, labels=None)
    result = run(site, labels=None, unlabelled=True)
    assert result.labels == {"unlabelled": 2}
    assert result.series_not_used == {"not-chosen": 1}  # b is one case with two series then
    (site / "labels.csv").write_text("case,label\na,covid\nb,\n")
    with dataset.open(run(site, unlabelled=True, force=True).dataset) as data:
        assert set(data.labels) == {None, Diagnosis.COVID}


def test_no_source_and_no_cases(site: Path) -> None:
    with pytest.raises(SeriesError, match="no such folder"):
        preprocess(site / "absent", output=site / "x.h5", unlabelled=True)
    with pytest.raises(SeriesError, match="no cases"):
        preprocess(site / "out", output=site / "x.h5", unlabelled=True)


def test_a_series_by_its_uid(site: Path) -> None:
    save(site / "scans" / "a", series(10, seed=7, spacing_mm=5, SeriesInstanceUID="1.2.7"))
    with dataset.open(run(site, series=["1.2.7"]).dataset) as data:
        index = data.ids.index(pseudonym(SECRET, "case", "a"))
        assert data.volume(index).spacing_mm[0] == pytest.approx(5)
    with pytest.raises(MismatchError, match=r"1\.2\.8: not used"):
        run(site, series=["1.2.8"], force=True)


def test_the_salt_is_made_once_and_only_its_owner_reads_it(site: Path) -> None:
    result = run(site, salt=None)
    salt = site / "out" / "ucadi.salt"
    assert result.salt == salt
    assert salt.stat().st_mode & 0o777 == 0o600
    assert len(salt.read_bytes()) == 32
    assert run(site, salt=None, force=True).digest == result.digest


def test_a_short_salt_is_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "salt", b"secret", force=True, mode=0o600)
    with pytest.raises(FormatError, match="too few"):
        read_or_make(tmp_path / "salt")


def test_existing_results_are_kept(site: Path) -> None:
    run(site)
    with pytest.raises(OutputError):
        run(site)
    (site / "report").write_text("mine")
    for option in ("report", "linkage"):
        with pytest.raises(OutputError, match=f"choose another --{option}|exists"):
            run(site, output=site / "b.h5", **{option: site / "report"})
    assert (site / "report").read_text() == "mine"


def test_scans_of_an_earlier_dataset_are_reused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also under another salt and label; the result has the bytes that reading all anew gives."""
    first = run(site)
    write_file(site / "salt", SECRET[::-1], force=True, mode=0o600)
    labels = (site / "labels.csv").read_text().replace("a,,covid", "a,,bacterial")
    (site / "labels.csv").write_text(labels + "c,,healthy\n")
    save(site / "scans" / "c", series(seed=5))
    anew = run(site, output=site / "out" / "anew.h5")

    read: list[str] = []

    def reading(path: Path, **options: Any) -> Scan:
        read.append(path.name)
        return read_scan(path, **options)

    monkeypatch.setattr(parallel, "read_scan", reading)
    again = run(site, output=site / "out" / "again.h5", reuse=first.dataset, report=site / "report")
    assert read == ["c"]
    assert again.digest == anew.digest
    records = report_of(site)
    new = records.pop(pseudonym(SECRET[::-1], "case", "c"))
    assert (new["interpolated"], new["unreadable"]) == (0, 0)
    assert {record["interpolated"] for record in records.values()} == {None}  # known only where they were read
    assert (site / "report" / "report.html").read_text().count("data:image/jpeg") == 4
    replaced = run(site, output=first.dataset, reuse=first.dataset, force=True)
    assert replaced.digest == anew.digest


def test_a_changed_scan_is_read_again(site: Path) -> None:
    first = run(site)
    path = next((site / "scans" / "a").iterdir())
    image = pydicom.dcmread(path)
    image.RescaleIntercept = -1000
    image.save_as(path)
    again = run(site, output=site / "out" / "again.h5", reuse=first.dataset)
    assert again.digest == run(site, output=site / "out" / "anew.h5").digest != first.digest


def test_a_dataset_made_otherwise_is_not_reused(site: Path) -> None:
    first = run(site)
    with pytest.raises(MismatchError, match="size 32"):
        run(site, output=site / "out" / "again.h5", reuse=first.dataset, size=32)


# De-identification


PLANTED = {
    "PatientName": "Rosenqvist^Ottilie",
    "PatientID": "MRN-5550123",
    "PatientBirthDate": "19481107",
    "StudyDate": "20200229",
    "AcquisitionDateTime": "20200229101112",
    "StudyInstanceUID": "1.3.6.1.4.1.77777.1",
    "SeriesInstanceUID": "1.3.6.1.4.1.77777.2",
    "FrameOfReferenceUID": "1.3.6.1.4.1.77777.3",
    "AccessionNumber": "ACC5550199",
    "InstitutionName": "Haukeland Sjukehus",
    "ReferringPhysicianName": "Dr Vandersmissen",
    "OperatorsName": "Quackenbush",
    "StudyDescription": "CT for Rosenqvist",
    "SeriesDescription": "ottilie thorax",
    "ProtocolName": "ROSENQVIST",
    "ImageComments": "call Ottilie",
    "StationName": "CT-KELDER-2",
    "DeviceSerialNumber": "SN77777",
    "Manufacturer": "Rosenqvist Medical",
    "ManufacturerModelName": "Ottilie 3000",
    "ConvolutionKernel": "ROSENQVIST",
    "ContrastBolusAgent": "Ultravist for Rosenqvist",
    "SoftwareVersions": "Quackenbush 2",
    "KVP": "19481107",
    "SeriesNumber": 5550123,
    "AcquisitionNumber": 5550177,
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "ROSENQVIST"],
}
TRACES = ("rosenqvist", "ottilie", "5550123", "19481107", "20200229", "77777", "5550199", "haukeland", "vandersmissen")
TRACES = (*TRACES, "quackenbush", "kelder", "5550177", "ultravist", "2020-02-29", "1948", "jansson")


def test_no_trace_of_a_patient_is_left(site: Path) -> None:
    private = series(**PLANTED)
    for dataset_ in private:
        block = dataset_.private_block(0x0099, "Rosenqvist", create=True)
        block.add_new(1, "LO", "Ottilie Rosenqvist")
        dataset_.OtherPatientIDsSequence = [pydicom.Dataset()]
        dataset_.OtherPatientIDsSequence[0].PatientID = "MRN-5550123"
    names = [f"Rosenqvist_Ottilie_19481107_{n}.dcm" for n in range(12)]
    save(site / "scans" / "Jansson 19481107", private, names)
    save(site / "scans" / "Jansson 19481107", series(3, **{**PLANTED, "SeriesInstanceUID": "1.3.6.1.4.1.77777.9"}))
    save(site / "scans" / "Ottilie", series(2, **PLANTED))
    with (site / "labels.csv").open("a") as file:
        file.write("Jansson 19481107,Ottilie Rosenqvist,covid\nOttilie,MRN-5550123,covid\nRosenqvist,,covid\n")
    zipped = site / "scans" / "Rosenqvist.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("Rosenqvist_Ottilie.dcm", b"x" * 3000)
    data = zipped.read_bytes()
    zipped.write_bytes(data.replace(b"xxx", b"xxy", 1))  # its checksum is wrong now, which zipfile says with the name
    result = run(site, report=site / "out" / "report", linkage=site / "linkage.csv")
    assert (result.cases, len(result.rejected)) == (4, 2)
    split(result.dataset, output=site / "out" / "site.split", folds=2, test=0)
    merge([result.dataset], output=site / "out" / "merged.h5")
    outputs = sorted(path for path in (site / "out").rglob("*") if path.is_file())
    assert [path.name for path in outputs] == [
        *("merged.h5", "report.csv", "report.html", "report.json", "site.h5", "site.split")
    ]

    texts = [path.name + path.read_bytes().decode("latin-1") for path in outputs]

    def gather(name: str, item: h5py.HLObject) -> None:
        texts.append(name)
        texts.extend(f"{key}={value!r}" for key, value in item.attrs.items())
        if isinstance(item, h5py.Dataset) and item.dtype.kind not in "if":
            texts.append(repr(item[()]))

    for path in (result.dataset, site / "out" / "merged.h5"):
        with h5py.File(path) as file:
            file.visititems(gather)
            texts.extend(f"{key}={value!r}" for key, value in file.attrs.items())
    everything = "\n".join(texts).lower()
    assert "other" in everything
    assert "other_viral" in everything
    for trace in (*TRACES, str(site).lower(), "scans/", "b/first"):
        assert trace not in everything, trace
    # Only this one names them, and only its owner reads it.
    assert "Jansson 19481107" in (site / "linkage.csv").read_text()


# The quality report


class Page(HTMLParser):
    """What a browser would fetch or run, the pictures, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.pictures: list[bytes] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "src" and (value or "").startswith("data:image/jpeg;base64,"):
                self.pictures.append(base64.b64decode((value or "").partition(",")[2], validate=True))
            elif name in ("src", "href", "srcset", "data") or tag in ("script", "link", "iframe") or name[:2] == "on":
                self.outside.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_every_case_and_fetches_nothing(site: Path) -> None:
    slices = series(Manufacturer="SIEMENS", ContrastBolusAgent="OMNI")
    save(site / "scans" / "c", [*slices[:5], *slices[6:]])
    save(site / "scans" / "d", series(Modality="MR"))
    with (site / "labels.csv").open("a") as file:
        file.write("c,,bacterial\nd,,covid\n")
    run(site, report=site / "report")
    text = (site / "report" / "report.html").read_text()
    page = Page(text)
    assert page.outside == []
    assert len(page.pictures) == 4
    for picture in page.pictures:
        image = Image.open(io.BytesIO(picture))
        assert (image.format, image.size) == ("JPEG", (1024, 128))
        assert np.asarray(image)[:, 128:].std() > 20  # something is to be seen
    for name in ("a", "b/first", "b/second", "c", "d"):
        assert pseudonym(SECRET, "case", name) in page.text
    assert {"4 of 5 cases used" in page.text, "interpolated" in page.text, "not-ct" in page.text} == {True}
    (row,) = (r for r in report_of(site).values() if "interpolated" in r.get("flags", ()))
    assert (row["interpolated"], row["slices"], row["tags"]["ContrastBolusAgent"]) == (1, 11, "named")
    assert "url(" not in text


def test_equal_scans_give_equal_reports(site: Path) -> None:
    run(site, report=site / "one")
    run(site, report=site / "two", force=True, workers=2)
    for name in ("report.html", "report.csv", "report.json"):
        assert (site / "one" / name).read_bytes() == (site / "two" / name).read_bytes()


def test_text_on_the_page_is_escaped() -> None:
    record = quality.Record("ab" * 8, "covid", detail="<script>alert(1)</script>", reason='x" onload="y')
    page = Page(quality._page({"<b>": "</style><img src=x>"}, [record]))
    assert page.outside == []
    assert "<script>alert(1)</script>" in page.text


def test_a_single_file_of_several_frames_is_a_case(site: Path) -> None:
    image = enhanced()[0]
    save(site / "scans", [image], ["whole.dcm"])
    result = run(site, labels=None, unlabelled=True)
    assert result.labels == {"unlabelled": 3}
    for name in ("1.dcm", "2.dcm"):
        save(site / "loose", [series()[0]], [name])
    with pytest.raises(SeriesError) as caught:
        preprocess(site / "loose", output=site / "x.h5", unlabelled=True, workers=1)
    assert "name the folder above it" in str(caught.value.hint)


# NIfTI


def axial_nifti(path: Path, slices: int = 12) -> Path:
    affine = np.eye(4)
    affine[:3] = np.array([[0, 0, 2.0, -20], [0, 1.5, 0, -15], [2.5, 0, 0, 100]])
    nifti.write(path, body(slices), affine)
    return path


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_nifti_and_dicom_of_one_scan_are_one_volume(tmp_path: Path, name: str) -> None:
    from_dicom = read_scan(save(tmp_path / "dicom", series()), size=16, min_slices=4)
    from_nifti = read_scan(axial_nifti(tmp_path / name), size=16, min_slices=4)
    assert (from_nifti.volume.hu == from_dicom.volume.hu).all()
    assert from_nifti.volume.affine == pytest.approx(from_dicom.volume.affine)
    assert from_nifti.flags == ("nifti",)


def test_nifti_is_written_in_its_own_coordinates(tmp_path: Path) -> None:
    """As another reader sees it: the first voxel, at (-20, -15, 100) in LPS, is at (20, 15, 100) in RAS."""
    import nibabel

    image: Any = nibabel.load(axial_nifti(tmp_path / "a.nii.gz"))
    assert image.shape == (20, 24, 12)
    assert image.affine[:3, 3].tolist() == [20, 15, 100]
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    assert np.asarray(image.dataobj)[4, 3, 2] == body(12)[2, 3, 4]
    first = (tmp_path / "a.nii.gz").read_bytes()
    assert axial_nifti(tmp_path / "a.nii.gz").read_bytes() == first


def test_nifti_in_any_orientation(tmp_path: Path) -> None:
    import nibabel
    from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

    image: Any = nibabel.load(axial_nifti(tmp_path / "a.nii.gz"))
    expected = nifti.read(tmp_path / "a.nii.gz")[0]
    for codes in ("RAS", "LAS", "PIR", "SAR"):
        turn = ornt_transform(nibabel.io_orientation(image.affine), axcodes2ornt(codes))
        turned = image.as_reoriented(turn)
        assert inv_ornt_aff(turn, image.shape).shape == (4, 4)
        nibabel.save(turned, tmp_path / "b.nii.gz")
        volume = nifti.read(tmp_path / "b.nii.gz")[0]
        assert (volume.hu == expected.hu).all()
        assert volume.affine == pytest.approx(expected.affine)


def test_odd_nifti_is_refused(tmp_path: Path) -> None:
    import nibabel

    def reason_of(array: np.ndarray, affine: np.ndarray | None) -> Reason:
        image = nibabel.Nifti1Image(array, affine)  # type: ignore[no-untyped-call]
        nibabel.save(image, tmp_path / "a.nii")
        with pytest.raises(RefusedError) as caught:
            nifti.read(tmp_path / "a.nii")
        return caught.value.reason

    hu = body(12)
    assert reason_of(hu, None) is Reason.NO_GEOMETRY
    assert reason_of(hu[..., None].repeat(2, -1), np.eye(4)) is Reason.UNSUPPORTED_PIXELS
    assert reason_of(np.clip(hu, 0, 255).astype(np.uint8), np.eye(4)) is Reason.NOT_HOUNSFIELD
    (tmp_path / "b.nii.gz").write_bytes(axial_nifti(tmp_path / "a.nii.gz").read_bytes()[:2000])
    with pytest.raises(RefusedError) as caught:
        nifti.read(tmp_path / "b.nii.gz")
    assert caught.value.reason is Reason.UNREADABLE


def test_nifti_and_zip_cases_beside_folders(site: Path) -> None:
    axial_nifti(site / "scans" / "c.nii.gz")
    with zipfile.ZipFile(site / "scans" / "d.zip", "w") as archive:
        for path in (site / "scans" / "a").iterdir():
            archive.write(path, path.name)
    (site / "labels.csv").write_text("case,label\na,covid\nb,covid\nc,healthy\nd.zip,healthy\n")
    assert run(site).cases == 4


# Processes


def test_outcomes_come_in_order(site: Path) -> None:
    jobs = [ReadJob(site / "scans" / name, 16, 4) for name in ("a", "none", "b/first", "b/second", "a")]
    outcomes = list(read_scans(jobs, workers=2))
    assert [isinstance(outcome, Scan) for outcome in outcomes] == [True, False, True, True, True]
    expected = [outcome.digest if isinstance(outcome, Scan) else "" for outcome in read_scans(jobs, workers=1)]
    assert [outcome.digest if isinstance(outcome, Scan) else "" for outcome in outcomes] == expected


def die_of_b(job: ReadJob) -> parallel.Outcome:
    """Stands in for a decoder that crashes."""
    if job.path.name == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    return Scan(Volume(np.zeros((1, 1, 1), np.int16), np.eye(4)), {}, job.path.name, ())


def test_a_scan_that_kills_its_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "read_one", die_of_b)
    outcomes = list(read_scans([ReadJob(Path(name), None, 1) for name in "aabaaba"], workers=2))
    assert [o.digest if isinstance(o, Scan) else o.reason.value for o in outcomes] == [
        *("a", "a", "crashed", "a", "a", "crashed", "a")
    ]


def test_an_unexpected_error_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Scan:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(parallel, "read_scan", fail)
    (outcome,) = read_scans([ReadJob(tmp_path, None, 1)], workers=1)
    assert isinstance(outcome, RefusedError)
    assert outcome.detail.startswith("ZeroDivisionError in test_preprocess.py:")


@needs_real_data
def test_real_scans(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("chest-contrast-ge", "chest-noncontrast-siemens", "chest-jpeg2000-empty-uids"):
        (tmp_path / "scans" / name).symlink_to(REAL.resolve() / name)
    (tmp_path / "scans" / "swiss.nii.gz").symlink_to(REAL.resolve() / "chest-jpeg2000-empty-uids.nii.gz")
    result = preprocess(tmp_path / "scans", output=tmp_path / "a.h5", unlabelled=True, min_slices=10, workers=2)
    assert (result.cases, result.rejected) == (4, {})
    with dataset.open(result.dataset) as data:
        assert sorted(len(data.volume(index).hu) for index in range(4)) == [20, 95, 98, 112]
        spacings = sorted(data.volume(index).spacing_mm[0] for index in range(4))
        assert spacings == pytest.approx([0.8, 1.0, 2.0, 3.0])
