"""DICOM files: the images that a file holds, and their pixels in Hounsfield units.

Headers are read first, for all files of a case, and say which images can be used and where they lie;
pixels are read once the series is chosen. Nothing here trusts a file name or an instance number.

Source: DICOM PS3.10 7 (file format), PS3.3 C.7.5.1.1.2 (pixel padding), PS3.5 8 (pixels).
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from ucadi.ct.reading import jpeg12
from ucadi.ct.reading.instance import GE_PRIVATE, KEYWORDS, Instance, instances, transfer_syntax
from ucadi.ct.reading.refusals import Reason, RefusedError
from ucadi.ct.volume import AIR_HU, HounsfieldArray
from ucadi.files import opened

MAX_FILE_BYTES = 1 << 31
"""Largest file that is opened."""

MAX_INFLATED_BYTES = 1 << 28
"""Largest that a deflated file may become."""

TISSUE_HU = (-900, 3000)
"""A padding value that means HU in this range is more likely a mistake in the header than padding."""


def read_headers(path: Path) -> list[Instance]:
    """The images of a file; none for a file that is no DICOM image at all, or the index of a medium.

    Raises RefusedError (UNREADABLE) for a DICOM file that is broken.
    """
    try:
        with warnings.catch_warnings(), opened(path) as file:
            warnings.simplefilter("ignore")  # pydicom warns of every oddity that `instances` decides about
            start = file.read(1024)
            if not _is_dicom(start):
                return []
            _check_size(path, start)
            file.seek(0)
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(KEYWORDS), force=True)
            stored_as = dataset.file_meta.get("MediaStorageSOPClassUID")
            if stored_as == MediaStorageDirectoryStorage:
                return []
            if stored_as == CTImageStorage and "Rows" not in dataset:
                raise RefusedError(Reason.UNREADABLE, "ends within its header")
            return instances(path, dataset, file.tell())
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


class PixelReader:
    """Decodes images. The file read last is kept, because the frames of an enhanced image share it."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._data = b""
        self._digest = b""
        self._parsed: Dataset | None = None

    def read(self, instance: Instance) -> Pixels:
        """The pixels of a usable image. Padding becomes air, and nothing lies below air.

        Raises RefusedError (UNREADABLE, UNSUPPORTED_PIXELS) when it cannot.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._open(instance.path)
                stored = self._stored(instance)
        except Exception as error:  # as above; truncated pixel data ends here
            raise RefusedError(Reason.UNREADABLE, type(error).__name__) from error
        if stored.shape != instance.shape:
            raise RefusedError(Reason.UNSUPPORTED_PIXELS, f"shape {stored.shape}")
        hu, flags = _hounsfield(stored, instance)
        return Pixels(hu, self._digest, flags)

    def _open(self, path: Path) -> None:
        if path == self._path:
            return
        self._path = self._parsed = None
        self._data = path.read_bytes()
        self._digest, self._path = hashlib.sha256(self._data).digest(), path

    def _stored(self, instance: Instance) -> npt.NDArray[np.integer]:
        if instance.bits_stored > 8 and self._data.startswith(_PIXEL_DATA, instance.pixels_at):
            return self._plain(instance)
        dataset = self._dataset
        syntax = dataset.file_meta.TransferSyntaxUID
        if instance.bits_stored > 8 and syntax in jpeg12.SYNTAXES:
            return jpeg12.decode(dataset, instance.frame)
        if syntax == GE_PRIVATE:
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            dataset.PixelData = np.frombuffer(dataset.PixelData, np.uint16).byteswap().tobytes()
        return pixel_array(dataset, index=instance.frame)

    def _plain(self, instance: Instance) -> npt.NDArray[np.integer]:
        """Uncompressed values of 16 bits, straight from the file: its header is known and not parsed again."""
        explicit = self._data[instance.pixels_at + 4 : instance.pixels_at + 6] in (b"OW", b"OB")
        begin = instance.pixels_at + (12 if explicit else 8)
        rows, columns = instance.shape
        frame = 2 * rows * columns
        if int.from_bytes(self._data[begin - 4 : begin], "little") < (instance.frame + 1) * frame:
            raise ValueError("Pixel Data end before the frame does")
        dtype = np.dtype("<i2" if instance.signed else "<u2")
        values = np.frombuffer(self._data, dtype, rows * columns, begin + instance.frame * frame)
        return values.reshape(rows, columns)

    @property
    def _dataset(self) -> Dataset:
        """The open file as pydicom parses it."""
        if self._parsed is None:
            self._parsed = pydicom.dcmread(io.BytesIO(self._data), force=True)
            if "TransferSyntaxUID" not in self._parsed.file_meta:
                self._parsed.file_meta.TransferSyntaxUID = transfer_syntax(self._parsed)
        return self._parsed


_PIXEL_DATA = b"\xe0\x7f\x10\x00"
"""The tag (7FE0,0010) in little endian."""


def _hounsfield(stored: npt.NDArray[np.integer], instance: Instance) -> tuple[HounsfieldArray, frozenset[str]]:
    """Stored values to HU. `stored` has the size and signedness of Bits Allocated, not yet of Bits Stored."""
    slope, intercept = instance.rescale
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    padding, flags = _padding(stored, instance)
    values = _significant_bits(stored, instance.bits_stored)
    if slope == 1 and intercept.is_integer() and abs(intercept) < 1 << 15:
        # Clipped first, so that the sum fits 16 bits.
        low, high = (int(np.clip(end - intercept, *_range(values))) for end in (AIR_HU, np.iinfo(np.int16).max))
        hu = values.clip(low, high).astype(np.int16) + np.int16(intercept)
        np.maximum(hu, AIR_HU, out=hu)
    else:
        hu = np.rint(values * slope + intercept).clip(AIR_HU, np.iinfo(np.int16).max).astype(np.int16)
    if padding is not None:
        hu[padding] = AIR_HU
    return hu, flags


def _range(values: npt.NDArray[np.integer]) -> tuple[int, int]:
    """Least and greatest number of an array's type."""
    limits = np.iinfo(values.dtype)
    return int(limits.min), int(limits.max)


def _padding(
    stored: npt.NDArray[np.integer], instance: Instance
) -> tuple[npt.NDArray[np.bool_] | None, frozenset[str]]:
    """Where the image is padded. The values are cast to the signedness of the pixels: 63536 can stand for -2000."""
    if instance.padding is None:
        return None, frozenset()
    slope, intercept = instance.rescale
    low, high = sorted(int(np.int64(end).astype(stored.dtype)) for end in instance.padding)
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
    if DeflatedExplicitVRLittleEndian.encode() not in start:
        return
    # pydicom inflates the whole data set at once, so its size is found out first, in small pieces.
    meta = pydicom.filereader.read_file_meta_info(path)
    with path.open("rb") as file:
        file.seek(128 + 4 + 12 + meta.FileMetaInformationGroupLength)
        inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
        rest = file.read(1 << 16)
        while rest and not inflater.eof:
            inflated += len(inflater.decompress(rest, 1 << 20))
            if inflated > MAX_INFLATED_BYTES:
                raise RefusedError(Reason.UNREADABLE, f"inflates to more than {MAX_INFLATED_BYTES} bytes")
            rest = inflater.unconsumed_tail or file.read(1 << 16)
