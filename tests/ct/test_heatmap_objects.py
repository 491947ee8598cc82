"""DICOM objects of heatmaps: valid by dciodvfy, about their source, in the right place, the same bytes every time."""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from heatmaps import SAYS, objects_of, style
from numpy.typing import NDArray
from PIL import Image
from places import REAL
from series import save
from traps import enhanced, flipped, prone, stack, tilted

from ucadi.commands.gradcam import GradcamResult, gradcam
from ucadi.commands.init import init
from ucadi.commands.phantom import phantom
from ucadi.commands.preprocess import preprocess
from ucadi.ct.heatmap_objects import PARAMETRIC_MAP, SEGMENTATION, UNKNOWN_DATE, write
from ucadi.ct.overlay import Style, overlay
from ucadi.ct.placing import onto_slice
from ucadi.ct.reading.scan import read_scan, source_series
from ucadi.ct.statement import HeatmapDescription
from ucadi.errors import MismatchError, SeriesError, UsageError
from ucadi.labels import NOTICE
from ucadi.scoring.plots import overlay_colours

needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="no real CT data; UCADI_TEST_DATA names its folder")
needs_validator = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="no dciodvfy: apt-get install dicom3tools"
)

PATIENT = {"StudyInstanceUID": "1.2.3.8", "FrameOfReferenceUID": "1.2.3.7", "PatientID": "17", "PatientName": "A^B"}
DATES = {"StudyDate": "20200102", "StudyTime": "030405", "SpecificCharacterSet": "ISO_IR 192"}


def errors(path: Path) -> list[str]:
    """What dciodvfy finds wrong."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


CASES = {"plain": lambda: stack(range(12)), "flipped": flipped, "prone": prone, "tilted": tilted, "enhanced": enhanced}


@needs_validator
@pytest.mark.parametrize("name", CASES)
def test_a_validator_finds_no_errors(name: str, tmp_path: Path) -> None:
    datasets = CASES[name]()
    for dataset in datasets:
        for keyword, value in (PATIENT | DATES).items():
            setattr(dataset, keyword, value)
    folder, *_ = objects_of(save(tmp_path / "a", datasets), tmp_path / "b")
    paths = sorted(folder.iterdir())
    for path in (paths[0], paths[len(paths) // 2], folder / PARAMETRIC_MAP, folder / SEGMENTATION):
        assert errors(path) == [], path.name


@needs_validator
def test_a_validator_finds_no_errors_where_the_source_says_next_to_nothing(tmp_path: Path) -> None:
    bare = save(tmp_path / "a", stack(range(12), StudyInstanceUID="1.2.3.8"))
    folder, *_ = objects_of(bare, tmp_path / "b")
    for path in (folder / "overlay-0001.dcm", folder / PARAMETRIC_MAP, folder / SEGMENTATION):
        assert errors(path) == [], path.name
    assert pydicom.dcmread(folder / SEGMENTATION).ContentDate == UNKNOWN_DATE


@needs_validator
def test_the_validator_would_find_errors(tmp_path: Path) -> None:
    folder, *_ = objects_of(save(tmp_path / "a", stack(range(12), **PATIENT)), tmp_path / "b")
    dataset = pydicom.dcmread(folder / SEGMENTATION)
    del dataset.SegmentSequence
    dataset.save_as(tmp_path / "broken.dcm")
    assert errors(tmp_path / "broken.dcm")


@pytest.mark.parametrize("name", CASES)
def test_frames_lie_where_the_heat_is(name: str, tmp_path: Path) -> None:
    """Read back by highdicom, and placed by what the objects themselves say."""
    datasets = CASES[name]()
    for dataset in datasets:
        for keyword, value in PATIENT.items():
            setattr(dataset, keyword, value)
    place = save(tmp_path / "a", datasets)
    folder, heatmap, affine = objects_of(place, tmp_path / "b")
    values = highdicom.imread(folder / PARAMETRIC_MAP)
    mapping = values.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    with source_series(place, read_scan(place, size=24, min_slices=10).digest) as instances:
        assert values.NumberOfFrames == len(instances)
        by_position = {i.position: onto_slice(heatmap, affine, i) for i in instances}
    frames = values.pixel_array * mapping.RealWorldValueSlope
    for frame, groups in zip(frames, values.PerFrameFunctionalGroupsSequence, strict=True):
        position = tuple(map(float, groups.PlanePositionSequence[0].ImagePositionPatient))
        nearest = min(by_position, key=lambda p: float(np.linalg.norm(np.subtract(p, position))))
        np.testing.assert_allclose(nearest, position, atol=1e-3)
        np.testing.assert_allclose(frame, by_position[nearest], atol=1e-4)
    segmentation = highdicom.seg.segread(folder / SEGMENTATION)
    shares = segmentation.pixel_array / segmentation.MaximumFractionalValue
    assert abs(shares.sum() - frames.sum()) < 0.02 * frames.sum()
    assert 0.9 < frames.max() <= 1.001


def test_objects_refer_to_their_source(tmp_path: Path) -> None:
    place = save(tmp_path / "a", stack(range(12), **PATIENT, **DATES))
    folder, *_ = objects_of(place, tmp_path / "b")
    source = {pydicom.dcmread(path).SOPInstanceUID for path in place.iterdir()}
    pictures = [pydicom.dcmread(path) for path in sorted(folder.glob("overlay-*.dcm"))]
    assert {p.SourceImageSequence[0].ReferencedSOPInstanceUID for p in pictures} == source
    for name in (PARAMETRIC_MAP, SEGMENTATION):
        series = pydicom.dcmread(folder / name).ReferencedSeriesSequence[0]
        assert series.SeriesInstanceUID == "1.2.3.4"
        assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == source
    made = [pydicom.dcmread(path) for path in folder.iterdir()]
    for dataset in made:
        assert (dataset.PatientID, dataset.PatientName, dataset.StudyInstanceUID) == ("17", "A^B", "1.2.3.8")
        assert (dataset.ContentDate, dataset.InstanceCreationDate) == ("20200102", "20200102")
        assert "not for clinical use" in dataset.SeriesDescription
        assert dataset.SOPInstanceUID.startswith("2.25.")
        assert dataset.DeviceSerialNumber == SAYS.model[:16]
    assert len({dataset.SOPInstanceUID for dataset in made}) == len(made) == 14
    assert len({dataset.SeriesInstanceUID for dataset in made}) == 3


def test_equal_inputs_give_equal_bytes_and_others_other_uids(tmp_path: Path) -> None:
    place = save(tmp_path / "a", stack(range(12), **PATIENT))
    one, *_ = objects_of(place, tmp_path / "one")
    two, *_ = objects_of(place, tmp_path / "two")
    names = [path.name for path in one.iterdir()]
    assert filecmp.cmpfiles(one, two, names, shallow=False) == (names, [], [])
    other, *_ = objects_of(
        place, tmp_path / "other", HeatmapDescription("covid", 0.5, "grad-cam", "cd" * 32, "1.0", SAYS.details)
    )
    uids = [{pydicom.dcmread(path).SOPInstanceUID for path in folder.iterdir()} for folder in (one, other)]
    assert not uids[0] & uids[1]


def test_images_without_uids_cannot_be_referred_to(tmp_path: Path) -> None:
    place = save(tmp_path / "a", stack(range(12)))  # no Study Instance UID
    with pytest.raises(SeriesError, match="StudyInstanceUID is missing") as caught:
        objects_of(place, tmp_path / "b")
    assert "--dicom" in (caught.value.hint or "")


def test_nothing_hot_gives_objects_all_the_same(tmp_path: Path) -> None:
    place = save(tmp_path / "a", stack(range(12), **PATIENT))
    scan = read_scan(place, min_slices=10)
    (tmp_path / "b").mkdir()
    with source_series(place, scan.digest) as instances:
        write(tmp_path / "b", instances, np.zeros(scan.volume.hu.shape, np.float32), scan.volume.affine, SAYS, style())
    assert not highdicom.imread(tmp_path / "b" / PARAMETRIC_MAP).pixel_array.any()
    assert not highdicom.seg.segread(tmp_path / "b" / SEGMENTATION).pixel_array.any()


# The picture


def picture(edges: tuple[str, str, str, str] = ("R", "L", "A", "P"), notice: str = NOTICE) -> NDArray[np.uint8]:
    hu = np.full((100, 80), -850, np.int16)
    heat = np.zeros(hu.shape, np.float32)
    heat[20:30, 50:60] = 1
    pixels, side_mm = overlay(hu, heat, (1.0, 2.0), edges, Style(overlay_colours(), SAYS.title, notice), "slice 3 of 9")
    assert pixels.shape == (320, 512, 3)  # 100 by 160 mm
    assert side_mm == pytest.approx(160 / 512)
    return pixels


def test_the_heat_is_seen_where_it_is() -> None:
    colour = picture().astype(int)
    warm = colour[..., 0] - colour[..., 2] > 60
    rows, columns = np.nonzero(warm[:280, :460])  # above the notice, left of the scale
    assert 20 * 3.2 - 4 < rows.min() < rows.max() < 30 * 3.2 + 4
    assert 50 * 6.4 - 7 < columns.min() < columns.max() < 60 * 6.4 + 7


def test_sides_and_notice_are_burnt_in() -> None:
    plain, mirrored = picture(), picture(("L", "R", "A", "P"))
    differ = np.nonzero((plain != mirrored).any(axis=(0, 2)))[0]
    assert differ.min() < 30
    assert differ.max() > 420
    assert not (plain != mirrored).any(axis=(0, 2))[40:400].any()
    changed = np.nonzero((picture(notice="") != plain).any(axis=(1, 2)))[0]
    assert changed.size
    assert changed.min() > 290
    turned = picture(("A", "P", "R", "L"))
    assert (turned != plain).any(axis=(0, 2))[200:300].any()


# The command


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom's dataset of 32 x 32, a network that has learned nothing, and the linkage."""
    folder = tmp_path_factory.mktemp("heatmap")
    phantom(folder / "ct", patients=1, prevalence="0,1,0,0", matrix=64, slices=20, workers=1)
    preprocess(
        folder / "ct", labels=folder / "ct" / "labels.csv", size=32, min_slices=10, workers=1, output=folder / "a.h5"
    )
    init(width=4, size=32, seed=3, output=folder / "a.weights")
    return folder


def explain(made: Path, output: Path, **options: object) -> GradcamResult:
    case = "" if "case" not in options else str(options.pop("case"))
    return gradcam(made / "a.h5", model=made / "a.weights", case=case, output=output, **options)  # type: ignore[arg-type]


def test_from_the_dataset_to_objects_for_a_pacs(made: Path, tmp_path: Path) -> None:
    (source,) = (path for path in (made / "ct").iterdir() if path.is_dir())
    result = explain(made, tmp_path / "a", diagnosis="covid", dicom=source)
    assert result.dicom == 22
    described = json.loads((tmp_path / "a" / "regions.json").read_text())
    assert described["diagnosis"] == "covid"
    assert len(described["regions"]) == len(result.regions)
    assert all(set(region) >= {"position_mm", "slice", "side", "volume_ml"} for region in described["regions"])
    assert len(described["model"]) == len(described["dataset"]) == 64
    first = pydicom.dcmread(tmp_path / "a" / "dicom" / "overlay-0001.dcm")
    assert first.PatientName == pydicom.dcmread(next(source.iterdir())).PatientName
    if shutil.which("dciodvfy"):
        assert [errors(path) for path in sorted((tmp_path / "a" / "dicom").iterdir())[-3:]] == [[]] * 3
    explain(made, tmp_path / "b", diagnosis="covid", dicom=source)
    for path in sorted(path for path in (tmp_path / "a").rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name


def test_a_source_of_another_case_is_refused_and_leaves_nothing(made: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "other", stack(range(20), **PATIENT))
    with pytest.raises(MismatchError, match="no series that the case was made from"):
        explain(made, tmp_path / "a", dicom=other)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.slow
def test_occlusion_from_the_command(made: Path, tmp_path: Path) -> None:
    result = explain(made, tmp_path / "a", method="occlusion", diagnosis="bacterial")
    assert result.method == "occlusion"
    with Image.open(tmp_path / "a" / "montage.png") as image:
        assert image.width > 500


def test_an_unknown_method_is_named_with_those_that_there_are(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no method is called 'eye-cam'") as caught:
        explain(made, tmp_path / "a", method="eye-cam")
    assert caught.value.hint == "there are grad-cam, occlusion"


def test_occlusion_looks_at_no_layer(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="looks at no layer"):
        explain(made, tmp_path / "a", method="occlusion", layer="last_act")


# Real scans


@needs_real_data
@needs_validator
@pytest.mark.parametrize("name", ["chest-contrast-ge", "chest-noncontrast-siemens"])
def test_real_series(name: str, tmp_path: Path) -> None:
    """Feet first by GE, and one that lacks half of the tags by Siemens; only the middle slices, for speed."""
    headers = sorted(
        (pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2], path)
        for path in (REAL / name).glob("*.dcm")
    )
    (tmp_path / "a").mkdir()
    for _, path in headers[40:52]:
        shutil.copy(path, tmp_path / "a")
    folder, *_ = objects_of(tmp_path / "a", tmp_path / "b")
    for path in (folder / "overlay-0006.dcm", folder / PARAMETRIC_MAP, folder / SEGMENTATION):
        assert errors(path) == [], path.name


@needs_real_data
def test_a_real_series_without_uids_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SeriesError, match="UID"):
        objects_of(REAL / "chest-jpeg2000-empty-uids", tmp_path / "a")
