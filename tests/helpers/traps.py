"""Series as hospitals have them, made up: each a trap for loaders, with the truth to judge a loaded volume by.

The HU of every voxel follow from its place in the patient (`field`). So whatever grid a loader returns, its values say
whether its geometry is right. `tests/ct/reading/test_traps.py` holds ucadi to it, and `examples/compare_loaders.py`
other loaders too.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.uid import (
    EnhancedCTImageStorage,
    ImplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)
from series import save, slice_dataset

ROWS, COLUMNS = 28, 24
PIXEL_MM = 1.5
CORNER = (-18.0, -21.0)
FIRST_MM = 100.0
"""Where slices begin: the lowest at z = 100."""

AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
SLOPES = np.array([5.0, 3.0, 4.0])
"""HU per mm to the left, to the back, to the head."""

Array = npt.NDArray[Any]


def field(points: Array) -> Array:
    """HU at places (..., 3) in mm: linear, so that interpolation along any line is exact."""
    hu: Array = (np.asarray(points, dtype=np.float64) - (0.0, 0.0, 130.0)) @ SLOPES
    return hu


def image(corner: Sequence[float], axes: Sequence[Sequence[float]] = AXES, **elements: Any) -> pydicom.Dataset:
    """One image of the field, whose first voxel lies at `corner` and whose rows and columns run along `axes`."""
    across, down = np.array(axes[0]), np.array(axes[1])
    rows, columns = np.arange(ROWS)[:, None, None], np.arange(COLUMNS)[None, :, None]
    hu = field(np.array(corner) + PIXEL_MM * (down * rows + across * columns))
    elements = {"PixelSpacing": [PIXEL_MM, PIXEL_MM], **elements}
    elements.setdefault("ImageOrientationPatient", [*axes[0], *axes[1]])
    return slice_dataset(np.rint(hu).astype(np.int16), corner, **elements)


def stack(places_mm: Sequence[float], **elements: Any) -> list[pydicom.Dataset]:
    """Axial slices of the field at these z."""
    return [image((*CORNER, z), InstanceNumber=n, **elements) for n, z in enumerate(places_mm, start=1)]


def even(slices: int = 60, spacing_mm: float = 1.25, begin: float = FIRST_MM) -> list[float]:
    """Equidistant places."""
    return [begin + spacing_mm * index for index in range(slices)]


@dataclass(frozen=True)
class Trap:
    """One row of the comparison.

    build: writes the series to a folder, or a file in it, and returns what a loader is given. extent: the z of the
    first and last slice that a right volume has, or None where no right volume can be made. flag, reason: the word
    by which ucadi says what is odd about it, or why it is refused; empty where there is nothing to say.
    """

    name: str
    build: Callable[[Path], Path]
    extent: tuple[float, float] | None
    flag: str = ""
    reason: str = ""


def verdict(trap: Trap, hu: Array, affine: Array) -> str:
    """What is wrong with a canonical volume, (slice, row, column) with the affine of (slice, row, column, 1) in
    LPS, or nothing."""
    slices, rows, columns = np.indices(hu.shape)
    points = np.stack([slices, rows, columns, np.ones_like(slices)], axis=-1) @ affine.T
    inside = hu > -1000
    inside[:, 1:-1] &= inside[:, :-2] & inside[:, 2:]  # beside air that a shift moved in, values are between the two
    inside[:, [0, -1]] = False
    spacing = float(np.linalg.norm(affine[:3, 0]))
    where = f"{len(hu)} slices, {spacing:.3f} mm apart"
    if trap.extent is None:
        return f"loaded: {where}"
    if hu.min() < -1024:
        return f"{hu.min():.0f} HU"
    error = np.abs(hu - field(points[..., :3]))[inside].max(initial=0)
    z = points[..., 2]
    covered = abs(z.min() - trap.extent[0]) < 4 and abs(z.max() - trap.extent[1]) < 4
    if not covered or error > 2:
        return f"{where}, up to {error:.0f} HU off" if covered else f"{where}, not the whole volume"
    return ""


def _saved(make: Callable[[], list[pydicom.Dataset]]) -> Callable[[Path], Path]:
    """Writes what `make` makes to a folder; who has no instance number gets one in the order of the list."""

    def build(folder: Path) -> Path:
        datasets = make()
        for number, dataset in enumerate(datasets, start=1):
            dataset.setdefault("InstanceNumber", number)
        return save(folder / "case", datasets)

    return build


def whole_study() -> list[pydicom.Dataset]:
    """A localizer, a dose report, coronal reformats, a thick series, and a thin one with a soft and a sharp kernel."""
    scout = image((*CORNER, 90), ((1.0, 0, 0), (0, 0, -1.0)), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    scout.SeriesInstanceUID = "1.2.3.0"
    dose = image((*CORNER, 90), SOPClassUID=SecondaryCaptureImageStorage, SeriesInstanceUID="1.2.3.9")
    coronal = [
        image((-18, y, 180), ((1.0, 0, 0), (0, 0, -1.0)), ImageType=["DERIVED", "SECONDARY", "REFORMATTED"])
        for y in range(-20, 20)
    ]
    for each in coronal:
        each.SeriesInstanceUID = "1.2.3.1"
    return [
        scout,
        dose,
        *coronal,
        *stack(even(15, 5), SeriesInstanceUID="1.2.3.2"),
        *stack(even(), SeriesInstanceUID="1.2.3.3", ConvolutionKernel="B70f"),
        *stack(even(), SeriesInstanceUID="1.2.3.4", ConvolutionKernel="B30f"),
    ]


def shuffled() -> list[pydicom.Dataset]:
    """Slices whose file names (by position in the list) and instance numbers are in two random orders."""
    slices = stack(even())
    rng = np.random.default_rng(1)
    for dataset, number in zip(slices, rng.permutation(len(slices)), strict=True):
        dataset.InstanceNumber = int(number) + 1
    return [slices[index] for index in rng.permutation(len(slices))]


def without(places: Sequence[float], *missing: int) -> list[pydicom.Dataset]:
    """A series that lacks some of its slices."""
    return stack([z for index, z in enumerate(places) if index not in missing])


def other_pixels() -> list[pydicom.Dataset]:
    """Three places with two different slices each."""
    extra = stack(even()[20:23])
    for dataset in extra:
        dataset.PixelData = (np.frombuffer(dataset.PixelData, np.uint16) + 40).tobytes()
    return [*stack(even()), *extra]


def two_kernels() -> list[pydicom.Dataset]:
    """The same places twice under one Series Instance UID, the second time by a sharp kernel, which is noisy."""
    sharp = stack(even(), ConvolutionKernel="B70f")
    rng = np.random.default_rng(2)
    for dataset in sharp:
        stored = np.frombuffer(dataset.PixelData, np.uint16) + rng.integers(-90, 90, ROWS * COLUMNS)
        dataset.PixelData = stored.astype(np.uint16).tobytes()
    return [*stack(even(), ConvolutionKernel="B30f"), *sharp]


def two_phases() -> list[pydicom.Dataset]:
    """Two acquisitions under one UID, the second a third of a millimetre higher and brighter by contrast."""
    second = stack(even(59, begin=FIRST_MM + 0.3), AcquisitionNumber=2)
    for dataset in second:
        dataset.PixelData = (np.frombuffer(dataset.PixelData, np.uint16) + 60).tobytes()
    return [*second, *stack(even(), AcquisitionNumber=1)]


def localizer_inside() -> list[pydicom.Dataset]:
    """A coronal localizer under the series' own UID, labelled AXIAL like the rest."""
    return [image((-18, 0, 180), ((1.0, 0, 0), (0, 0, -1.0)), InstanceNumber=0), *stack(even())]


def tilted() -> list[pydicom.Dataset]:
    """A gantry tilted by 15 degrees, stacked along the table; the tilt tag says something else."""
    tilt = np.radians(15)
    axes = ((1.0, 0.0, 0.0), (0.0, float(np.cos(tilt)), float(np.sin(tilt))))
    return [image((*CORNER, z), axes, GantryDetectorTilt=-7) for z in even(40, 2.5)]


def padded(stored: int, vr: str, declared: int | None) -> Callable[[], list[pydicom.Dataset]]:
    """Signed pixels whose corners hold padding."""

    def make() -> list[pydicom.Dataset]:
        slices = stack(even(), PixelRepresentation=1, RescaleIntercept=-1024)
        for dataset in slices:
            pixels = np.frombuffer(dataset.PixelData, np.int16).reshape(ROWS, COLUMNS).copy()
            pixels[:2, :2] = stored
            dataset.PixelData = pixels.tobytes()
            if declared is not None:
                dataset.add_new("PixelPaddingValue", vr, declared)
        return slices

    return make


def wrong_rescale() -> list[pydicom.Dataset]:
    """A chest of air, lung and tissue whose intercept says 0."""
    slices = stack(even())
    for dataset in slices:
        hu = np.full((ROWS, COLUMNS), -1000)
        hu[4:24, 3:21] = 50
        hu[8:18, 5:10] = hu[8:18, 14:19] = -820
        dataset.PixelData = (hu + 1024).astype(np.uint16).tobytes()
        dataset.RescaleIntercept = 0
    return slices


def slope_per_slice() -> list[pydicom.Dataset]:
    """Every slice with a slope and an intercept of its own."""
    return [
        image((*CORNER, z), RescaleSlope=0.25 * (1 + index % 3), RescaleIntercept=-1024 - index)
        for index, z in enumerate(even())
    ]


def enhanced() -> list[pydicom.Dataset]:
    """One enhanced file, frames shuffled, with a rescale for each frame in its functional groups."""
    places = [even()[index] for index in np.random.default_rng(3).permutation(60)]
    slices = [image((*CORNER, z), RescaleIntercept=-1024 - n % 7) for n, z in enumerate(places)]
    whole = pydicom.Dataset()
    whole.update(slices[0])
    whole.file_meta = slices[0].file_meta
    whole.SOPClassUID = EnhancedCTImageStorage
    whole.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(whole, keyword)
    for keyword in ("RescaleSlope", "RescaleIntercept", "ConvolutionKernel"):
        delattr(whole, keyword)
    whole.NumberOfFrames = len(slices)
    whole.PixelData = b"".join(dataset.PixelData for dataset in slices)
    orientation = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    measures = {"PixelSpacing": [PIXEL_MM, PIXEL_MM], "SliceThickness": 5}
    whole.SharedFunctionalGroupsSequence = [
        _groups(PixelMeasuresSequence=measures, PlaneOrientationSequence=orientation)
    ]
    whole.PerFrameFunctionalGroupsSequence = [
        _groups(
            PlanePositionSequence={"ImagePositionPatient": dataset.ImagePositionPatient},
            PixelValueTransformationSequence={
                "RescaleSlope": 1,
                "RescaleIntercept": dataset.RescaleIntercept,
                "RescaleType": "HU",
            },
        )
        for dataset in slices
    ]
    return [whole]


def _groups(**sequences: dict[str, Any]) -> pydicom.Dataset:
    """An item of functional groups, each a sequence of one item."""
    groups = pydicom.Dataset()
    for keyword, elements in sequences.items():
        item = pydicom.Dataset()
        for name, value in elements.items():
            setattr(item, name, value)
        setattr(groups, keyword, [item])
    return groups


def empty_uids(folder: Path) -> Path:
    """Study, series, instance and class UIDs are all empty strings."""
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    slices = stack(even(), **dict.fromkeys(names, ""))
    (folder / "case").mkdir(parents=True)
    for index, dataset in enumerate(slices):
        dataset.file_meta.MediaStorageSOPClassUID = ""
        dataset.file_meta.MediaStorageSOPInstanceUID = ""
        dataset.save_as(folder / "case" / f"{index:03d}.dcm")
    return folder / "case"


def no_preamble(folder: Path) -> Path:
    """Implicit VR without preamble or file meta information, without extension, among files of other kinds."""
    case = folder / "case"
    case.mkdir(parents=True)
    for index, dataset in enumerate(stack(even())):
        del dataset.file_meta
        dataset.save_as(case / f"IM{index}", implicit_vr=True, little_endian=True)
    (case / "readme.txt").write_text("Please call the ward.")
    (case / "Thumbs.db").write_bytes(bytes(2000))
    (case / "report.pdf").write_bytes(b"%PDF-1.4 " + bytes(300))
    (case / "autorun.inf").write_bytes(b"")
    return case


def truncated(folder: Path) -> Path:
    """One slice is cut off in its pixels, another in its header."""
    case = save(folder / "case", stack(even()))
    for name, length in (("0020.dcm", -500), ("0040.dcm", 240)):
        path = case / name
        path.write_bytes(path.read_bytes()[:length])
    return case


def private_syntax(uid: bytes, *numbers: int) -> Callable[[Path], Path]:
    """A series of which some slices are in a private transfer syntax: implicit VR, pixels in big endian, as GE's."""

    def build(folder: Path) -> Path:
        case = save(folder / "case", stack(even()))
        for number in numbers:
            path = case / f"{number:04d}.dcm"
            dataset = pydicom.dcmread(path)
            dataset.PixelData = np.frombuffer(dataset.PixelData, np.uint16).byteswap().tobytes()
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            dataset.save_as(path, implicit_vr=True, little_endian=True)
            data = path.read_bytes()
            assert data.count(b"1.2.840.10008.1.2\0") == 1
            path.write_bytes(data.replace(b"1.2.840.10008.1.2\0", uid))
        return case

    return build


def prone() -> list[pydicom.Dataset]:
    """A prone patient, feet first: rows and columns run the other way, and instance numbers from the head down."""
    corner = (CORNER[0] + PIXEL_MM * (COLUMNS - 1), CORNER[1] + PIXEL_MM * (ROWS - 1))
    axes = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))
    return [image((*corner, z), axes, PatientPosition="FFP", InstanceNumber=60 - n) for n, z in enumerate(even())]


def flipped() -> list[pydicom.Dataset]:
    """Rows from back to front only, so that the slices' normal points to the feet."""
    corner = (CORNER[0], CORNER[1] + PIXEL_MM * (ROWS - 1))
    return [image((*corner, z), ((1.0, 0, 0), (0, -1.0, 0))) for z in even()]


def coronal() -> list[pydicom.Dataset]:
    """Coronal reformats that claim to be original and axial."""
    return [image((-18, y, 180), ((1.0, 0, 0), (0, 0, -1.0))) for y in np.arange(-30, 30)]


def zipped(folder: Path) -> Path:
    """A zip file, with a member that would climb out of the folder."""
    case = save(folder / "loose", stack(even()))
    with zipfile.ZipFile(folder / "case.zip", "w") as archive:
        for path in sorted(case.iterdir()):
            archive.write(path, f"study/{path.name}")
        archive.writestr("../../climbed.dcm", b"out")
    return folder / "case.zip"


def names(folder: Path) -> Path:
    """A character set that does not exist, a name whose bytes are none of it, and a private tag of half a megabyte."""
    slices = stack(even(), SpecificCharacterSet="ISO_IR 100", PatientName="Mueller^Ottil")
    for dataset in slices:
        dataset.private_block(0x0099, "VENDOR", create=True).add_new(1, "OB", bytes(500_000))
    case = save(folder / "case", slices)
    for path in case.iterdir():
        data = path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 999")
        path.write_bytes(data.replace(b"Mueller^Ottil", b"\xff\xfeM\xfcller\x1b$B\xdf^"))
    return case


_SPAN = (FIRST_MM, FIRST_MM + 59 * 1.25)
_95 = even(95, 0.8)

TRAPS = (
    Trap("whole study: localizer, dose report, reformats, thick, two kernels", _saved(whole_study), _SPAN),
    Trap("file names and instance numbers shuffled", _saved(shuffled), _SPAN),
    Trap("3 of 95 slices missing", _saved(lambda: without(_95, 20, 50, 51)), (100, 175.2), "interpolated"),
    Trap("10 of 95 slices missing in one place", _saved(lambda: without(_95, *range(40, 50))), None, reason="gap"),
    Trap("3 slices repeated", _saved(lambda: [*stack(even()), *stack(even()[20:23])]), _SPAN, "duplicates-dropped"),
    Trap("3 places with two different slices", _saved(other_pixels), None, reason="conflicting-slices"),
    Trap("two kernels under one series UID", _saved(two_kernels), _SPAN),
    Trap("two phases under one series UID, 0.3 mm apart", _saved(two_phases), _SPAN),
    Trap(
        "exposure that differs per slice",
        _saved(lambda: [image((*CORNER, z), Exposure=n, XRayTubeCurrent=100 + n) for n, z in enumerate(even())]),
        _SPAN,
    ),
    Trap("a coronal localizer inside the series, labelled AXIAL", _saved(localizer_inside), _SPAN),
    Trap(
        "slices 4 mm apart, then 7 mm",
        _saved(lambda: stack([*even(20, 4), *even(6, 7, 183)])),
        (100, 218),
        "irregular-spacing",
    ),
    Trap("a gap of 119 mm", _saved(lambda: stack([*even(30), *even(30, begin=255.25)])), None, reason="gap"),
    Trap("gantry tilt of 15 degrees", _saved(tilted), (100, 208.5), "gantry-tilt"),
    Trap(
        "SliceThickness 5, SpacingBetweenSlices 2.5, slices 1.25 mm apart",
        _saved(lambda: stack(even(), SliceThickness=5, SpacingBetweenSlices=2.5)),
        _SPAN,
    ),
    Trap(
        "no ImagePositionPatient", _saved(lambda: stack(even(), ImagePositionPatient=None)), None, reason="no-geometry"
    ),
    Trap("padding -2000, declared", _saved(padded(-2000, "SS", -2000)), _SPAN),
    Trap("padding -2000, declared as 63536", _saved(padded(-2000, "US", 63536)), _SPAN),
    Trap("padding -2000, not declared", _saved(padded(-2000, "SS", None)), _SPAN),
    Trap(
        "rescale missing",
        _saved(lambda: stack(even(), RescaleSlope=None, RescaleIntercept=None)),
        None,
        reason="no-rescale",
    ),
    Trap(
        "rescale empty", _saved(lambda: stack(even(), RescaleSlope="", RescaleIntercept="")), None, reason="no-rescale"
    ),
    Trap("rescale intercept 0 instead of -1024", _saved(wrong_rescale), None, "units-doubtful"),
    Trap("slope and intercept differ per slice", _saved(slope_per_slice), _SPAN),
    Trap(
        "enhanced multi-frame, a rescale per frame",
        lambda folder: save(folder / "case", enhanced()) / "0000.dcm",
        _SPAN,
    ),
    Trap("all UIDs empty", empty_uids, _SPAN),
    Trap("no preamble, no extension, stray files", no_preamble, _SPAN),
    Trap("two slices truncated", truncated, _SPAN, "interpolated"),
    Trap("GE's private transfer syntax", private_syntax(b"1.2.840.113619.5.2", *range(60)), _SPAN),
    Trap(
        "two slices in an unknown private transfer syntax",
        private_syntax(b"1.2.840.113619.5.7", 20, 40),
        _SPAN,
        "interpolated",
    ),
    Trap("prone, feet first", _saved(prone), _SPAN),
    Trap("rows from back to front", _saved(flipped), _SPAN),
    Trap("coronal, labelled ORIGINAL AXIAL", _saved(coronal), None, reason="not-axial"),
    Trap("compressed with loss", _saved(lambda: stack(even(), LossyImageCompression="01")), _SPAN, "lossy"),
    Trap(
        "colour",
        _saved(lambda: [rgb(z) for z in even()]),
        None,
        reason="colour",
    ),
    Trap(
        "MONOCHROME1",
        _saved(lambda: stack(even(), PhotometricInterpretation="MONOCHROME1")),
        None,
        reason="inverted",
    ),
    Trap("MR", _saved(lambda: stack(even(), Modality="MR", SOPClassUID=MRImageStorage)), None, reason="not-ct"),
    Trap("20 slices, 24 mm of a chest", _saved(lambda: stack(even(20))), (100, 123.75), "short-extent"),
    Trap("zip file with a path that climbs out", zipped, _SPAN),
    Trap("names in no known character set, large private tags", names, _SPAN),
)


def rgb(z: float) -> pydicom.Dataset:
    """A colour image of CT class."""
    dataset = image((*CORNER, z), SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(ROWS * COLUMNS * 3)
    return dataset
