"""Synthetic chest CTs: DICOM read back, geometry, determinism, and what tells the diagnoses apart and what does not."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy.ndimage import distance_transform_edt

from ucadi.commands.phantom import phantom
from ucadi.ct.phantom.anatomy import DESCENDING_AORTA
from ucadi.ct.phantom.cohort import CohortPlan, PatientPlan, apportion, scan_patient
from ucadi.ct.phantom.patient import PhantomScan, scan
from ucadi.ct.phantom.scanner import SCANNERS, reconstruction_kernel, white_noise_gain
from ucadi.ct.reading.scan import read_scan
from ucadi.errors import OutputError, UsageError
from ucadi.labels import LABELS, Diagnosis

SMALL = {"matrix": 64, "slices": 12, "workers": 1}
COVID, VIRAL, BACTERIAL, HEALTHY = (
    Diagnosis.COVID,
    Diagnosis.OTHER_VIRAL,
    Diagnosis.BACTERIAL,
    Diagnosis.HEALTHY,
)


def plan(diagnosis: Diagnosis = HEALTHY, number: int = 1, **changes: object) -> PatientPlan:
    """A patient to scan in coarse pixels."""
    made = PatientPlan("test", number, 5, diagnosis, "ge", contrast=False, scans=1, matrix=128, slices=32)
    return replace(made, **changes)  # type: ignore[arg-type]


def first_scan(made: PatientPlan) -> PhantomScan:
    return next(scan_patient(made))[2]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def series(folder: Path) -> list[pydicom.FileDataset]:
    """The instances of a folder from the feet to the head."""
    return sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda d: float(d.ImagePositionPatient[2]))


@pytest.mark.parametrize("scanner", SCANNERS)
def test_dicom_reads_back_as_it_was_scanned(tmp_path: Path, scanner: str) -> None:
    phantom(tmp_path / "site", scanner=scanner, patients=1, prevalence="0,1,0,0", seed=3, **SMALL)
    preset = SCANNERS[scanner]
    (made,) = CohortPlan("site", 1, (0, 1, 0, 0), scanner, matrix=64, slices=12, seed=3).plan_patients()
    expected = first_scan(made)
    slices = series(tmp_path / "site" / "site-0001-1")
    assert len(slices) == 12
    for hu, instance in zip(expected.hu, slices, strict=True):
        assert instance.file_meta.MediaStorageSOPClassUID == pydicom.uid.CTImageStorage
        assert instance.file_meta.MediaStorageSOPInstanceUID == instance.SOPInstanceUID
        stored = instance.pixel_array
        assert stored.dtype == np.int16
        assert np.array_equal(stored * float(instance.RescaleSlope) + float(instance.RescaleIntercept), hu)
    first, last = slices[0], slices[-1]
    heights = [float(instance.ImagePositionPatient[2]) for instance in slices]
    assert np.allclose(np.diff(heights), expected.protocol.spacing, atol=2e-3)
    assert float(first.SliceThickness) / expected.protocol.spacing == pytest.approx(
        preset.thickness / preset.spacing, abs=0.01
    )
    assert float(first.PixelSpacing[0]) * 64 == pytest.approx(float(first.ReconstructionDiameter), abs=1e-3)
    assert [float(value) for value in first.ImageOrientationPatient] == [1, 0, 0, 0, 1, 0]
    assert (first.InstanceNumber > last.InstanceNumber) == preset.head_first
    assert (first.Manufacturer, first.ConvolutionKernel, first.KVP) == (preset.manufacturer, preset.kernel, preset.kvp)
    assert first.BodyPartExamined == "CHEST"
    assert first.QualityControlImage == "YES"
    assert str(first.PatientName).startswith("PHANTOM^")
    assert len({instance.SOPInstanceUID for instance in slices}) == 12
    for shared in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert len({str(instance[shared].value) for instance in slices}) == 1


def test_names_of_files_may_not_follow_the_slices(tmp_path: Path) -> None:
    phantom(tmp_path / "ge", scanner="ge", patients=1, **SMALL)
    by_name = [pydicom.dcmread(path).InstanceNumber for path in sorted((tmp_path / "ge" / "site-0001-1").iterdir())]
    assert sorted(by_name) == list(range(1, 13))
    assert by_name != sorted(by_name)


def test_padding_outside_the_field_of_view(tmp_path: Path) -> None:
    phantom(tmp_path / "ge", scanner="ge", patients=1, **SMALL)
    instance = series(tmp_path / "ge" / "site-0001-1")[5]
    stored = instance.pixel_array
    rows, columns = np.indices(stored.shape) - 31.5
    assert instance.PixelPaddingValue == -2000
    assert np.array_equal(stored == -2000, np.hypot(rows, columns) > 32)


def test_the_reader_accepts_it_and_finds_its_order(tmp_path: Path) -> None:
    phantom(tmp_path / "ge", scanner="ge", patients=1, seed=8, **SMALL)
    (made,) = CohortPlan("site", 1, (1, 1, 1, 1), "ge", matrix=64, slices=12, seed=8).plan_patients()
    read = read_scan(tmp_path / "ge" / "site-0001-1", min_slices=10)
    expected = np.clip(first_scan(made).hu, read.volume.hu.min(), read.volume.hu.max())
    assert np.array_equal(read.volume.hu, expected) or np.array_equal(read.volume.hu, expected[::-1])


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    options = {"patients": 3, "prevalence": "0,1,1,1", "scans_per_patient": "2", "contrast": 0.5, **SMALL}
    phantom(tmp_path / "one", seed=4, lesion_masks=tmp_path / "masks-one", **options)
    phantom(tmp_path / "two", seed=4, lesion_masks=tmp_path / "masks-two", **{**options, "workers": 2})
    phantom(tmp_path / "other", seed=5, **options)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert files(tmp_path / "masks-one") == files(tmp_path / "masks-two")
    uids = [{d.SOPInstanceUID for d in series(tmp_path / name / "site-0001-1")} for name in ("one", "other")]
    assert not uids[0] & uids[1]


@pytest.mark.parametrize(
    ("total", "weights", "counts"),
    [
        (10, (3, 3, 1, 3), (3, 3, 1, 3)),
        (12, (3, 3, 1, 3), (4, 4, 1, 3)),
        (4, (1, 1, 1, 1), (1, 1, 1, 1)),
        (5, (0, 1, 0, 1), (0, 3, 0, 2)),
        (7, (0.1, 0.1, 0.1, 0.7), (1, 1, 0, 5)),
    ],
)
def test_apportion(total: int, weights: tuple[float, ...], counts: tuple[int, ...]) -> None:
    assert apportion(total, weights) == counts


def test_labels_follow_the_prevalence(tmp_path: Path) -> None:
    result = phantom(tmp_path / "a", site="north", patients=6, prevalence="3,2,0,1", scans_per_patient="2..3", **SMALL)
    assert result.patients == {"healthy": 3, "covid": 2, "other_viral": 0, "bacterial": 1}
    assert "6 patients (3 healthy, 2 covid" in str(result)
    with (tmp_path / "a" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == {path.name for path in (tmp_path / "a").iterdir() if path.is_dir()}
    assert len(rows) == result.scans
    labels = {row["patient"]: row["label"] for row in rows}
    assert [sum(label == name for label in labels.values()) for name in LABELS] == [3, 2, 0, 1]
    assert all(2 <= sum(row["patient"] == patient for row in rows) <= 3 for patient in labels)
    assert list(labels.values()) != sorted(labels.values(), key=LABELS.index)


def test_scans_of_a_patient_share_the_anatomy_while_the_disease_evolves() -> None:
    visits = list(scan_patient(plan(COVID, scans=3)))
    assert all(patient.habitus == visits[0][0].habitus for patient, _, _ in visits)
    assert [visit.day for _, visit, _ in visits] == sorted({visit.day for _, visit, _ in visits})
    ill = [made.lesions.mean() for _, _, made in visits]
    assert len(set(ill)) == 3
    assert max(ill) < 4 * min(ill)
    lungs = [float((made.lungs > 0).mean()) * made.protocol.field_of_view**2 for _, _, made in visits]
    assert max(lungs) == pytest.approx(min(lungs), rel=0.03)


def test_masks_mark_the_denser_lung_in_the_geometry_of_the_series(tmp_path: Path) -> None:
    import nibabel

    masks = tmp_path / "masks"
    phantom(tmp_path / "a", patients=2, prevalence="1,1,0,0", lesion_masks=masks, matrix=128, slices=24, workers=1)
    with (tmp_path / "a" / "labels.csv").open() as file:
        labels = {row["case"]: row["label"] for row in csv.DictReader(file)}
    for case, label in labels.items():
        image = nibabel.load(masks / f"{case}.nii.gz")
        mask = np.asarray(image.dataobj).T
        slices = series(tmp_path / "a" / case)
        corner = image.affine @ [0, 0, 0, 1]
        assert np.allclose(corner[:3] * (-1, -1, 1), [float(v) for v in slices[0].ImagePositionPatient], atol=1e-3)
        assert np.allclose(image.header.get_zooms()[:2], [float(v) for v in slices[0].PixelSpacing], atol=1e-3)
        if label == "healthy":
            assert not mask.any()
        else:
            hu = np.stack([instance.pixel_array for instance in slices]) - 1024
            assert -700 < hu[mask > 0].mean() < 0


def test_contrast_brightens_the_aorta() -> None:
    def aorta(contrast: bool) -> float:
        patient, _, made = next(scan_patient(plan(contrast=contrast)))
        x, y, z, _ = DESCENDING_AORTA[2]
        habitus, protocol = patient.habitus, made.protocol
        column = (x * habitus.scale[0] + habitus.offset_mm[0] - protocol.origin[0]) / protocol.pixel
        row = (y * habitus.scale[1] + habitus.offset_mm[1] - protocol.origin[1]) / protocol.pixel
        level = int(np.argmin(np.abs(made.z_mm - z * habitus.scale[2])))
        region = made.hu[level, round(row) - 1 : round(row) + 2, round(column) - 1 : round(column) + 2]
        return float(region.mean())

    assert 20 < aorta(contrast=False) < 65
    assert aorta(contrast=True) > aorta(contrast=False) + 120


@pytest.mark.parametrize("scanner", SCANNERS)
def test_tissues_have_plausible_densities(scanner: str) -> None:
    made = first_scan(plan(HEALTHY, scanner=scanner))
    lungs = made.hu[made.lungs > 0]
    litres = lungs.size * made.protocol.pixel**2 * made.protocol.spacing / 1e6
    assert 2 < litres < 6.5
    assert -930 < np.median(lungs) < -720
    assert abs(np.median(made.hu[:, :20, 50:80]) + 1000) < 25
    inner = made.hu[made.lungs == 0]
    soft, fat = ((inner > 0) & (inner < 100)).sum(), ((inner > -150) & (inner < -60)).sum()
    assert soft > fat > 0
    assert (inner > 300).any()


def test_scanners_differ_in_noise() -> None:
    """The deviation in a small patch of the liver is about what the preset says for slices of its thickness."""
    patient = next(scan_patient(plan()))[0]
    noise = {}
    for name in SCANNERS:
        made = first_scan(plan(scanner=name))
        pixel, origin = made.protocol.pixel, made.protocol.origin
        row, column = (round((at - first) / pixel) for at, first in zip((-10, -60), reversed(origin), strict=True))
        level = int(np.argmin(np.abs(made.z_mm - 10 * patient.habitus.scale[2])))
        patch = made.hu[level, row - 6 : row + 7, column - 6 : column + 7]
        noise[name] = float(patch.std())
        photons = made.protocol.thickness / SCANNERS[name].thickness
        assert noise[name] == pytest.approx(SCANNERS[name].noise_hu / np.sqrt(photons), rel=0.35)
    assert noise["ge"] < noise["siemens"]


def test_kernels_blur_or_sharpen_noise() -> None:
    assert white_noise_gain(reconstruction_kernel(-1.0)) == pytest.approx(6 / 16)
    assert white_noise_gain(reconstruction_kernel(0.0)) == 1
    assert white_noise_gain(reconstruction_kernel(0.8)) > 1


def test_slices_cover_the_chest_whatever_their_number() -> None:
    few, many = (first_scan(plan(slices=number)) for number in (16, 48))
    assert few.z_mm[-1] - few.z_mm[0] == pytest.approx(many.z_mm[-1] - many.z_mm[0], abs=1)
    assert few.protocol.thickness > many.protocol.thickness
    for made in (few, many):
        assert made.lungs[len(made.lungs) // 2].any()
        assert not made.lungs[-1].any()


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    return float((positive[:, None] > negative[None]).mean() + (positive[:, None] == negative[None]).mean() / 2)


@pytest.fixture(scope="module")
def features() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By feature, its values over a cohort of all scanners, and the diagnoses."""
    scanners = list(SCANNERS)
    rows: dict[str, list[float]] = {}
    diagnoses = []
    for number in range(17):
        for diagnosis in Diagnosis:
            made = first_scan(
                plan(diagnosis, 4 * number + diagnosis, scanner=scanners[number % 4], matrix=96, slices=26)
            )
            hu, lung = np.maximum(made.hu, -1000).astype(float), made.lungs > 0
            spacing = (made.protocol.spacing, made.protocol.pixel, made.protocol.pixel)
            depth = distance_transform_edt(lung, sampling=spacing)
            right, left = hu[made.lungs == 1], hu[made.lungs == 2]
            values = {
                "volume": hu.mean(),
                "lungs": hu[lung].mean(),
                "peripheral": hu[lung & (depth < 12)].mean() - hu[lung & (depth > 22)].mean(),
                "asymmetry": abs(right.mean() - left.mean()),
            }
            for name, value in values.items():
                rows.setdefault(name, []).append(float(value))
            diagnoses.append(diagnosis)
    return {name: (np.array(values), np.array(diagnoses)) for name, values in rows.items()}


def one_against_rest(features: dict[str, tuple[np.ndarray, np.ndarray]], name: str, diagnosis: Diagnosis) -> float:
    values, diagnoses = features[name]
    return auroc(values[diagnoses == diagnosis], values[diagnoses != diagnosis])


@pytest.mark.parametrize("feature", ["volume", "lungs"])
@pytest.mark.parametrize("diagnosis", [COVID, VIRAL, BACTERIAL])
def test_mean_density_does_not_tell_the_pneumonias_apart(features, feature: str, diagnosis: Diagnosis) -> None:
    limit = 0.75 if diagnosis is COVID else 0.8
    assert 1 - limit < one_against_rest(features, feature, diagnosis) < limit


def test_mean_density_hardly_tells_who_is_healthy(features) -> None:
    assert 0.3 < one_against_rest(features, "volume", HEALTHY) < 0.7
    assert one_against_rest(features, "lungs", HEALTHY) > 0.12  # lungs with pneumonia are denser, but overlap


def test_where_the_lungs_are_dense_tells_the_diagnoses_apart(features) -> None:
    assert one_against_rest(features, "peripheral", COVID) > 0.8
    assert one_against_rest(features, "peripheral", VIRAL) < 0.2
    assert one_against_rest(features, "asymmetry", BACTERIAL) > 0.9


def test_a_scan_can_be_made_without_a_cohort() -> None:
    patient, _, made = next(scan_patient(plan(BACTERIAL)))
    again = scan(patient, made.protocol, np.random.default_rng(1), growth=0.5)
    assert 0 < again.lesions.sum() < made.lesions.sum()


@pytest.mark.parametrize(
    "wrong",
    [
        {"scanner": "scanmaster"},
        {"site": "../up"},
        {"prevalence": "1,1,1"},
        {"prevalence": "a,b,c,d"},
        {"prevalence": "0,0,0,0"},
        {"prevalence": "1,1,-1,1"},
        {"prevalence": "1,1,nan,1"},
        {"scans_per_patient": "3..2"},
        {"scans_per_patient": "0"},
        {"scans_per_patient": "many"},
    ],
)
def test_what_it_does_not_understand_is_refused_with_a_hint(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError) as refused:
        phantom(tmp_path / "a", patients=1, **SMALL, **wrong)
    assert refused.value.hint
    assert not list(tmp_path.iterdir())


def test_existing_output_is_kept_without_force(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "precious").touch()
    with pytest.raises(OutputError):
        phantom(tmp_path / "a", patients=1, **SMALL)
    assert (tmp_path / "a" / "precious").exists()
    with pytest.raises(OutputError, match="also holds precious"):
        phantom(tmp_path / "a", patients=1, force=True, **SMALL)
    (tmp_path / "a" / "precious").unlink()
    phantom(tmp_path / "a", patients=1, force=True, **SMALL)
    phantom(tmp_path / "a", patients=1, force=True, seed=1, **SMALL)
