"""One DICOM image: what its header says, and its pixels in Hounsfield units.

Headers are read first, for all files of a case, and say which images can be used and where they lie;
pixels are read once the series is chosen. Nothing here trusts a file name or an instance number.

Source: DICOM PS3.3 C.7.6.2 (image plane), C.8.2.1 (CT image), C.7.5.1.1.2 (pixel padding), PS3.5 8 (pixels).
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from ucadi.ct import tags
from ucadi.ct.refusals import Reason, RefusedError
from ucadi.ct.volume import AIR_HU, HounsfieldArray

MAX_FILE_BYTES = 1 << 30
"""Largest file that is opened, and largest that a deflated one may become: a gibibyte."""

MAX_SIDE = 4096
"""Most rows or columns of an image."""

TISSUE_HU = (-900, 3000)
"""A padding value that means HU in this range is more likely a mistake in the header than padding."""

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Instance:
    """What the header of one image says. Lengths are in mm, directions are DICOM patient coordinates (LPS).

    position: centre of the first pixel. across, down: unit vectors along which the column and the row index
    grow. spacing_mm: (between rows, between columns). reason: why this image cannot be used, or None; the
    geometry is only meaningful when there is none.
    """

    path: Path
    reason: Reason | None
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
    compressed: bool
    lossy: bool
    facts: dict[str, str | float]


def read_header(path: Path) -> Instance | None:
    """The header of a file; None for a file that is no DICOM image at all (or the index of a medium).

    Raises RefusedError (UNREADABLE) for a DICOM file that is broken.
    """
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # pydicom warns of every oddity that the checks below decide about
            start = file.read(1024)
            if not _is_dicom(start):
                return None
            _check_size(path, start)
            file.seek(0)
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_KEYWORDS), force=True)
            if _uid(dataset, "SOPClassUID") == MediaStorageDirectoryStorage:
                return None
            return _instance(path, dataset)
    except RefusedError:
        raise
    except Exception as error:  # a parser of broken input raises whatever it likes; all of it means the same
        raise RefusedError(Reason.UNREADABLE, type(error).__name__) from error


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image's int16 HU (row, column), the SHA-256 of its file, and flags about it."""

    hu: HounsfieldArray
    file_digest: bytes
    flags: frozenset[str]


def read_pixels(path: Path) -> Pixels:
    """Decodes an image whose header has no reason against it. Padding becomes air, and nothing lies below air.

    Raises RefusedError (UNREADABLE, NO_RESCALE, UNSUPPORTED_PIXELS and so on) when it cannot.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = path.read_bytes()
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:
                dataset.file_meta.TransferSyntaxUID = _syntax(dataset)
            stored = dataset.pixel_array
    except Exception as error:  # as above; truncated pixel data ends here
        raise RefusedError(Reason.UNREADABLE, type(error).__name__) from error
    if stored.ndim != 2:
        raise RefusedError(Reason.UNSUPPORTED_PIXELS, f"{stored.ndim} dimensions")
    hu, flags = _hounsfield(stored, dataset)
    return Pixels(hu, hashlib.sha256(data).digest(), flags)


_KEYWORDS = (
    *("SOPClassUID", "SeriesInstanceUID", "Modality", "ImageType", "ConvolutionKernel", "AcquisitionNumber"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "LossyImageCompression"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType"),
    *tags.KEYWORDS,
)

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.88."
_CAPTURES = {"SCREEN SAVE", "SCREENSAVE", "DOSE_INFO", "DOSE REPORT", "PROTOCOL"}
_REFORMATS = {"REFORMATTED", "MPR", "MIP", "MINIP", "MNIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "CPR", "CURVED"}
_RENDERINGS = {"VRT", "SSD", "3D RENDERING", "VOLREN", "RANGE"}
_HOUNSFIELD_TYPES = {"", "HU", "HU_MOD", "US"}  # US: unspecified, which old scanners write for HU
_LOSSY_SYNTAXES = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"}


def _instance(path: Path, dataset: Dataset) -> Instance:
    position = _numbers(dataset, "ImagePositionPatient", 3)
    orientation = _numbers(dataset, "ImageOrientationPatient", 6)
    spacing = _numbers(dataset, "PixelSpacing", 2)
    reason = _unusable(dataset) or _geometry_fault(position, orientation, spacing)
    nowhere = (math.nan,) * 6
    across, down = _unit((orientation or nowhere)[:3]), _unit((orientation or nowhere)[3:])
    syntax = _syntax(dataset)
    return Instance(
        path=path,
        reason=reason,
        series_uid=_uid(dataset, "SeriesInstanceUID"),
        image_type=_words(dataset, "ImageType"),
        kernel="\\".join(_words(dataset, "ConvolutionKernel")),
        acquisition="\\".join(_words(dataset, "AcquisitionNumber")),
        shape=(_integer(dataset, "Rows"), _integer(dataset, "Columns")),
        spacing_mm=(spacing or nowhere)[:2],  # type: ignore[arg-type]  # both have two entries at least
        position=(position or nowhere)[:3],  # type: ignore[arg-type]
        across=across,
        down=down,
        thickness_mm=(_numbers(dataset, "SliceThickness", 1) or (math.nan,))[0],
        compressed=syntax.is_compressed,
        lossy=_words(dataset, "LossyImageCompression") == ("01",) or syntax in _LOSSY_SYNTAXES,
        facts=tags.technical(dataset),
    )


def _unusable(dataset: Dataset) -> Reason | None:
    """Why an image cannot be part of a CT volume, whatever its geometry; the most telling reason first."""
    sop_class = _uid(dataset, "SOPClassUID")
    words = {word.upper() for word in _words(dataset, "ImageType")}
    photometric = _words(dataset, "PhotometricInterpretation")
    slope, intercept = _numbers(dataset, "RescaleSlope", 1), _numbers(dataset, "RescaleIntercept", 1)
    bits, stored = _integer(dataset, "BitsAllocated"), _integer(dataset, "BitsStored")
    checks = (
        (Reason.SECONDARY_CAPTURE, sop_class.startswith((_SECONDARY_CAPTURE, _STRUCTURED_REPORT))),
        (Reason.NOT_CT, _words(dataset, "Modality") not in ((), ("CT",))),
        (Reason.LOCALIZER, "LOCALIZER" in words),
        (Reason.SECONDARY_CAPTURE, bool(words & _CAPTURES)),
        (Reason.REFORMATTED, "DERIVED" in words and bool(words & (_REFORMATS | _RENDERINGS))),
        (Reason.COLOUR, _integer(dataset, "SamplesPerPixel", 1) != 1),
        (Reason.INVERTED, photometric == ("MONOCHROME1",)),
        (Reason.COLOUR, photometric not in ((), ("MONOCHROME2",))),
        (Reason.MULTI_FRAME, _integer(dataset, "NumberOfFrames", 1) > 1),
        (Reason.NOT_CT, sop_class not in ("", CTImageStorage)),
        (Reason.NOT_CT, not (_words(dataset, "Modality") or sop_class)),
        (Reason.NO_RESCALE, slope is None or intercept is None),
        (Reason.INVALID_RESCALE, slope is not None and slope[0] <= 0),
        (Reason.NOT_HOUNSFIELD, "".join(_words(dataset, "RescaleType")).upper() not in _HOUNSFIELD_TYPES),
        (Reason.UNSUPPORTED_PIXELS, bits not in (8, 16) or not 0 < stored <= bits),
        (Reason.UNSUPPORTED_PIXELS, _integer(dataset, "HighBit", stored - 1) != stored - 1),
        (Reason.UNSUPPORTED_PIXELS, not 0 < _integer(dataset, "Rows") <= MAX_SIDE),
        (Reason.UNSUPPORTED_PIXELS, not 0 < _integer(dataset, "Columns") <= MAX_SIDE),
        (Reason.NO_DECODER, not _decodable(_syntax(dataset))),
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
    if abs(np.cross(across, down)[2]) < math.cos(math.radians(40)):  # gantries tilt by 30 degrees at most
        return Reason.NOT_AXIAL
    return None


def _hounsfield(stored: npt.NDArray[np.integer], dataset: Dataset) -> tuple[HounsfieldArray, frozenset[str]]:
    """Stored values to HU. `stored` has the size and signedness of Bits Allocated, not yet of Bits Stored."""
    rescale = _numbers(dataset, "RescaleSlope", 1), _numbers(dataset, "RescaleIntercept", 1)
    if rescale[0] is None or rescale[1] is None:
        raise RefusedError(Reason.NO_RESCALE)
    slope, intercept = rescale[0][0], rescale[1][0]
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    padding, flags = _padding(stored, dataset, slope, intercept)
    values = _significant_bits(stored, _integer(dataset, "BitsStored"))
    if slope == 1 and intercept.is_integer() and abs(intercept) < 1 << 15:
        hu = values.astype(np.int32) + np.int32(intercept)
    else:
        hu = np.rint(values * slope + intercept)
    hu = np.clip(hu, AIR_HU, np.iinfo(np.int16).max).astype(np.int16)
    if padding is not None:
        hu[padding] = AIR_HU
    return hu, flags


def _padding(
    stored: npt.NDArray[np.integer], dataset: Dataset, slope: float, intercept: float
) -> tuple[npt.NDArray[np.bool_] | None, frozenset[str]]:
    """Where the image is padded. The value is cast to the signedness of the pixels: 63536 can stand for -2000."""
    value = _numbers(dataset, "PixelPaddingValue", 1)
    if value is None:
        return None, frozenset()
    limit = _numbers(dataset, "PixelPaddingRangeLimit", 1) or value
    ends = [int(np.int64(end).astype(stored.dtype)) for end in (value[0], limit[0])]
    low, high = min(ends), max(ends)
    if low * slope + intercept < TISSUE_HU[1] and high * slope + intercept > TISSUE_HU[0]:
        return None, frozenset({"padding-value-is-tissue"})
    return (stored >= low) & (stored <= high), frozenset()


def _significant_bits(stored: npt.NDArray[np.integer], bits: int) -> npt.NDArray[np.integer]:
    """The values without what overlays or careless writers left in the bits above Bits Stored."""
    unused = stored.dtype.itemsize * 8 - bits
    return stored if unused <= 0 else (stored << unused) >> unused


def _is_dicom(start: bytes) -> bool:
    """Whether a file begins like DICOM: with the preamble, or with group 8 or 2 as old exports without one do."""
    return start[128:132] == b"DICM" or start[:2] in (b"\x08\x00", b"\x02\x00")


def _check_size(path: Path, start: bytes) -> None:
    """Refuses a file that is, or would be when inflated, larger than any CT image."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise RefusedError(Reason.UNREADABLE, f"{size} bytes")
    syntax = DeflatedExplicitVRLittleEndian.encode()
    if syntax not in start:
        return
    # pydicom inflates the whole data set at once, so its size is found out first, in small pieces.
    meta = pydicom.filereader.read_file_meta_info(path)
    with path.open("rb") as file:
        file.seek(128 + 4 + 12 + meta.FileMetaInformationGroupLength)
        inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
        rest = file.read(1 << 16)
        while rest and not inflater.eof:
            inflated += len(inflater.decompress(rest, 1 << 20))
            if inflated > 1 << 28:
                raise RefusedError(Reason.UNREADABLE, "inflates to more than 256 MiB")
            rest = inflater.unconsumed_tail or file.read(1 << 16)


@functools.cache
def _decodable(syntax: UID) -> bool:
    """Whether a plug-in for the transfer syntax is installed."""
    try:
        return get_decoder(syntax).is_available if syntax.is_encapsulated else True
    except (NotImplementedError, ValueError):
        return False


def _syntax(dataset: Dataset) -> UID:
    """The transfer syntax; without file meta information it is one of those that need none."""
    implicit, _ = dataset.original_encoding
    return UID(
        dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian)
    )


def _unit(vector: tuple[float, ...]) -> Triple:
    length = math.hypot(*vector) or math.nan
    return tuple(part / length for part in vector)  # type: ignore[return-value]  # as many as came in


def _numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """An element's `count` finite numbers, or None if it is absent, empty, malformed or has another number of them."""
    try:
        value = dataset.get(keyword)
        if value is None or isinstance(value, str | bytes):
            return None
        numbers = tuple(float(part) for part in (value if hasattr(value, "__iter__") else (value,)))
    except (ValueError, TypeError, OverflowError, AttributeError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _integer(dataset: Dataset, keyword: str, default: int = 0) -> int:
    numbers = _numbers(dataset, keyword, 1)
    return default if numbers is None else int(numbers[0])


def _words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """An element's values as text, without empty ones."""
    value = dataset.get(keyword)
    values = () if value is None else (value,) if isinstance(value, str | int | float) else tuple(value)
    return tuple(str(part).strip() for part in values if str(part).strip())


def _uid(dataset: Dataset, keyword: str) -> str:
    return "\\".join(_words(dataset, keyword))
