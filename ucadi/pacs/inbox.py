"""The folder that received images go to. What an archive sends is checked before it is kept, and never names a path.

An instance becomes STUDY/SERIES/NAME.dcm, by UIDs that were checked to be UIDs and that were asked for. It appears
whole or not at all; what is there already is not fetched again, so a broken transfer goes on where it ended.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pydicom

from ucadi.errors import CapacityError, FormatError, PacsError
from ucadi.files import flush, writing

UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
"""PS3.5 9.1; old archives hold components with leading zeros, which are refused."""

MAX_INSTANCE_BYTES = 1 << 31
"""Largest instance that is kept; `preprocess` opens no larger file."""


@dataclass(frozen=True)
class TransferLimits:
    """Most instances, and most bytes of all of them together, that one transfer may bring."""

    instances: int
    total_bytes: int


@dataclass(frozen=True, order=True)
class Address:
    """An instance by the UIDs of its study, its series and itself."""

    study: str
    series: str
    instance: str

    def __post_init__(self) -> None:
        for uid in (self.study, self.series, self.instance):
            check_uid(uid)


def check_uid(uid: str) -> str:
    """The same text; FormatError if it is no UID."""
    if len(uid) > 64 or not UID.fullmatch(uid):
        raise FormatError(f"{uid[:80]!r} is no UID")
    return uid


class Inbox:
    """Instances that lie in `folder`, and those that come. `wanted` is what may come."""

    def __init__(self, folder: Path, wanted: frozenset[Address], limits: TransferLimits) -> None:
        if len(wanted) > limits.instances:
            raise CapacityError(
                f"the archive has {len(wanted)} instances for this, more than {limits.instances}",
                hint="ask for less, or raise --most-instances",
            )
        self.folder = folder
        self.wanted = wanted
        self.limits = limits
        self.received: list[Address] = []
        self._bytes = 0

    @property
    def missing(self) -> list[Address]:
        """What is wanted and not here, in the order of its UIDs."""
        return [address for address in sorted(self.wanted) if not self.path(address).exists()]

    def path(self, address: Address) -> Path:
        """Where an instance lies. Its name is a digest of its UID, as long names are too long for some systems."""
        name = hashlib.sha256(address.instance.encode()).hexdigest()[:16]
        return self.folder / address.study / address.series / f"{name}.dcm"

    @property
    def room(self) -> int:
        """Bytes that the next instance may have."""
        return min(MAX_INSTANCE_BYTES, self.limits.total_bytes - self._bytes)

    def add(self, data: bytes) -> Address:
        """Keeps one instance, a DICOM file's bytes (PS3.10).

        Raises CapacityError beyond the limits, PacsError for what is no DICOM or was not asked for.
        """
        if len(data) > self.room:
            raise CapacityError(
                f"more than {self.limits.total_bytes} bytes, or an instance of more than {MAX_INSTANCE_BYTES}",
                hint="what has come is kept; raise --max-size, and the transfer goes on",
            )
        address = _address(data)
        if address not in self.wanted:
            raise PacsError(f"the archive sent instance {address.instance}, which was not asked for")
        path = self.path(address)
        # of one name, so that the next transfer takes over what a broken one leaves; hidden from preprocess
        part = path.with_name(f".{path.name}.part")
        with writing(path, "what has come is kept; make room, and the transfer goes on"):
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            flush(part)
            part.replace(path)
        self._bytes += len(data)
        self.received.append(address)
        return address


def _address(data: bytes) -> Address:
    """The UIDs that a DICOM file says, whatever the archive called it."""
    try:
        if data[128:132] != b"DICM":
            raise ValueError("no DICOM file")
        tags = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
        header = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=list(tags))
        return Address(*(str(header[tag].value) for tag in tags))
    except FormatError as error:
        raise PacsError(f"the archive sent an instance that cannot be kept: {error.message}") from None
    except Exception as error:  # a parser of broken input raises whatever it likes; all of it means the same
        raise PacsError("the archive sent something that is no DICOM image") from error
