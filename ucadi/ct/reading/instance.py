"""What a DICOM header says about one image: whether it can be a slice of a CT volume, where, and in which unit.

Source: DICOM PS3.3 C.7.6.2 (image plane), C.8.2.1 (CT image), C.7.6.16 (functional groups of multi-frame images).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

from ucadi.ct.reading import jpeg12, tags
from ucadi.ct.reading.elements import integer, number, numbers, text, words
from ucadi.ct.reading.refusals import Reason, RefusedError

MAX_SIDE = 4096
"""Most rows or columns of an image."""

MAX_FRAMES = 10_000
"""Most frames of an image."""

MAX_TILT_DEGREES = 40
"""From this angle to the horizontal plane on, a slice is not axial. Gantries tilt by 30 degrees at most."""

GE_PRIVATE = "1.2.840.113619.5.2"
"""A transfer syntax of GE's old archives: implicit VR little endian, but for the pixels, which are big endian."""

Triple = tuple[float, float, float]

KEYWORDS = (
    *(
        "SOPClassUID",
        "PatientID",
        "SeriesInstanceUID",
        "Modality",
        "ImageType",
        "ConvolutionKernel",
        "AcquisitionNumber",
    ),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "LossyImageCompression"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *tags.KEYWORDS,
)
"""The elements that `instances` reads."""


@dataclass(frozen=True)
class Instance:
    """One image, or one frame of an enhanced one. Lengths are in mm, directions in DICOM patient coordinates (LPS).

    frame: its index in the file. reason: why it cannot be used, or None; what follows is only meaningful then.
    acquisition: what sets apart images at the same place. position: centre of the first pixel. across, down:
    unit vectors along which the column and the row index grow. spacing_mm: (between rows, between columns).
    rescale: (slope, intercept) from stored values to HU. pixels_at: byte of the file at which its Pixel Data begin, 0
    if they need a decoder. padding: the least and the greatest stored value that mean padding, as in the header.
    header: its elements, for `tags.technical`. patient: Patient ID, by which a folder with several is told; it is
    written nowhere.
    """

    path: Path
    frame: int
    reason: Reason | None
    patient: str
    series_uid: str
    image_type: tuple[str, ...]
    kernel: str
    acquisition: str
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    position: Triple
    across: Triple
    down: Triple
    thickness_mm: float
    rescale: tuple[float, float]
    bits_stored: int
    signed: bool
    pixels_at: int
    padding: tuple[float, float] | None
    compressed: bool
    lossy: bool
    header: Dataset


def instances(path: Path, dataset: Dataset, end: int) -> list[Instance]:
    """The images of a file: one, or for an enhanced CT one a frame. `end` is the byte at which its header ends."""
    syntax = transfer_syntax(dataset)
    if text(dataset, "SOPClassUID") in _ENHANCED:
        frames = [_instance(path, index, frame, syntax, end) for index, frame in enumerate(_frames(dataset))]
        if frames:
            return frames
    return [_instance(path, 0, dataset, syntax, end)]


def transfer_syntax(dataset: Dataset) -> UID:
    """The transfer syntax; without file meta information it is one of those that need none."""
    implicit, _ = dataset.original_encoding
    default = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return UID(dataset.file_meta.get("TransferSyntaxUID", default))


_PLAIN = {ImplicitVRLittleEndian, ExplicitVRLittleEndian}
_ENHANCED = {EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.88."
_CAPTURES = {"SCREEN SAVE", "SCREENSAVE", "DOSE_INFO", "DOSE REPORT", "PROTOCOL"}
_REFORMATS = {"REFORMATTED", "MPR", "MIP", "MINIP", "MNIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "CPR", "CURVED"}
_RENDERINGS = {"VRT", "SSD", "3D RENDERING", "VOLREN", "RANGE"}
_HOUNSFIELD_TYPES = {"", "HU", "HU_MOD", "US"}  # US: unspecified, which old scanners write for HU
_ACQUISITION = ("AcquisitionNumber", "FrameAcquisitionNumber", "StackID", "TemporalPositionIndex")
_LOSSY_SYNTAXES = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.81", *jpeg12.SYNTAXES}


def _frames(dataset: Dataset) -> Iterator[Dataset]:
    """Each frame of an enhanced image as if it were an image of its own.

    The items of its functional groups, shared ones first, are laid over the elements of the whole. Frame Type is
    to a frame what Image Type is to an image.
    """
    own_groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if not 0 < len(own_groups) <= MAX_FRAMES or len(own_groups) != integer(dataset, "NumberOfFrames"):
        raise RefusedError(Reason.UNREADABLE, f"{len(own_groups)} functional groups")
    shared = Dataset()
    shared.update({e.tag: e for e in dataset if e.keyword in KEYWORDS and "FunctionalGroups" not in e.keyword})
    shared.NumberOfFrames = 1
    for groups in dataset.get("SharedFunctionalGroupsSequence") or []:
        _lay_over(shared, groups)
    for groups in own_groups:
        frame = Dataset()
        frame.update(shared)
        _lay_over(frame, groups)
        if "FrameType" in frame:
            frame.ImageType = frame.FrameType
        yield frame


def _lay_over(frame: Dataset, groups: Dataset) -> None:
    """Adds the elements of all groups' items to the frame."""
    for group in groups:
        if group.VR == "SQ":
            for item in group.value:
                frame.update(item)


def _instance(path: Path, frame: int, dataset: Dataset, syntax: UID, end: int) -> Instance:
    position = numbers(dataset, "ImagePositionPatient", 3)
    orientation = numbers(dataset, "ImageOrientationPatient", 6)
    spacing = numbers(dataset, "PixelSpacing", 2)
    nowhere = (math.nan,) * 6
    padding = number(dataset, "PixelPaddingValue")
    limit = number(dataset, "PixelPaddingRangeLimit")
    return Instance(
        path=path,
        frame=frame,
        reason=_unusable(dataset, syntax) or _geometry_fault(position, orientation, spacing),
        patient=text(dataset, "PatientID"),
        series_uid=text(dataset, "SeriesInstanceUID"),
        image_type=words(dataset, "ImageType"),
        kernel=text(dataset, "ConvolutionKernel"),
        acquisition="/".join(filter(None, (text(dataset, keyword) for keyword in _ACQUISITION))),
        shape=(integer(dataset, "Rows"), integer(dataset, "Columns")),
        spacing_mm=(spacing or nowhere)[:2],  # type: ignore[arg-type]  # both have two entries at least
        position=(position or nowhere)[:3],  # type: ignore[arg-type]
        across=_unit((orientation or nowhere)[:3]),
        down=_unit((orientation or nowhere)[3:]),
        thickness_mm=number(dataset, "SliceThickness") or math.nan,
        rescale=(number(dataset, "RescaleSlope") or math.nan, _or_nan(number(dataset, "RescaleIntercept"))),
        bits_stored=integer(dataset, "BitsStored"),
        signed=integer(dataset, "PixelRepresentation") == 1,
        pixels_at=end if syntax in _PLAIN else 0,
        padding=None if padding is None else (padding, padding if limit is None else limit),
        compressed=_is_encapsulated(syntax),
        lossy=words(dataset, "LossyImageCompression") == ("01",) or syntax in _LOSSY_SYNTAXES,
        header=dataset,
    )


def _unusable(dataset: Dataset, syntax: UID) -> Reason | None:
    """Why an image cannot be part of a CT volume, whatever its geometry; the most telling reason first."""
    sop_class = text(dataset, "SOPClassUID")
    kinds = {word.upper() for word in words(dataset, "ImageType")}
    photometric, modality = words(dataset, "PhotometricInterpretation"), words(dataset, "Modality")
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    bits, stored = integer(dataset, "BitsAllocated"), integer(dataset, "BitsStored")
    checks = (
        (Reason.SECONDARY_CAPTURE, sop_class.startswith((_SECONDARY_CAPTURE, _STRUCTURED_REPORT))),
        (Reason.NOT_CT, modality not in ((), ("CT",))),
        (Reason.LOCALIZER, "LOCALIZER" in kinds),
        (Reason.SECONDARY_CAPTURE, bool(kinds & _CAPTURES)),
        (Reason.REFORMATTED, "DERIVED" in kinds and bool(kinds & (_REFORMATS | _RENDERINGS))),
        (Reason.COLOUR, integer(dataset, "SamplesPerPixel", 1) != 1),
        (Reason.INVERTED, photometric == ("MONOCHROME1",)),
        (Reason.COLOUR, photometric not in ((), ("MONOCHROME2",))),
        (Reason.MULTI_FRAME, integer(dataset, "NumberOfFrames", 1) > 1),
        (Reason.NOT_CT, sop_class not in ("", CTImageStorage, *_ENHANCED)),
        (Reason.NOT_CT, not (modality or sop_class)),
        (Reason.NO_RESCALE, slope is None or intercept is None),
        (Reason.INVALID_RESCALE, slope is not None and slope <= 0),
        (Reason.NOT_HOUNSFIELD, text(dataset, "RescaleType").upper() not in _HOUNSFIELD_TYPES),
        (Reason.UNSUPPORTED_PIXELS, bits not in (8, 16) or not 0 < stored <= bits),
        (Reason.UNSUPPORTED_PIXELS, integer(dataset, "HighBit", stored - 1) != stored - 1),
        (Reason.UNSUPPORTED_PIXELS, not 0 < integer(dataset, "Rows") <= MAX_SIDE),
        (Reason.UNSUPPORTED_PIXELS, not 0 < integer(dataset, "Columns") <= MAX_SIDE),
        (Reason.NO_DECODER, not _decodable(syntax, stored)),
    )
    return next((reason for reason, applies in checks if applies), None)


def _geometry_fault(
    position: tuple[float, ...] | None, orientation: tuple[float, ...] | None, spacing: tuple[float, ...] | None
) -> Reason | None:
    """Why the image has no place in the patient, or not a place that an axial slice has."""
    if position is None or orientation is None or spacing is None:
        return Reason.NO_GEOMETRY
    across, down = np.array(orientation[:3]), np.array(orientation[3:])
    unit = abs(np.linalg.norm(across) - 1) < 1e-2 and abs(np.linalg.norm(down) - 1) < 1e-2
    if not unit or abs(across @ down) > 1e-2 or not all(0.01 < side < 20 for side in spacing):
        return Reason.INVALID_GEOMETRY
    if abs(np.cross(across, down)[2]) < math.cos(math.radians(MAX_TILT_DEGREES)):
        return Reason.NOT_AXIAL
    return None


@functools.cache
def _decodable(syntax: UID, bits: int) -> bool:
    """Whether a decoder for so many bits in the transfer syntax is installed."""
    if bits > 8 and syntax in jpeg12.SYNTAXES:
        return jpeg12.is_available()
    if syntax == GE_PRIVATE:
        return True
    try:
        return get_decoder(syntax).is_available if syntax.is_encapsulated else True
    except (NotImplementedError, ValueError):
        return False


def _is_encapsulated(syntax: UID) -> bool:
    """Whether the pixels are compressed; makers' own transfer syntaxes count as such, as nothing reads them."""
    return bool(syntax.is_encapsulated) if syntax.is_transfer_syntax else syntax != GE_PRIVATE


def _unit(vector: tuple[float, ...]) -> Triple:
    length = math.hypot(*vector) or math.nan
    return tuple(part / length for part in vector)  # type: ignore[return-value]  # as many as came in


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
