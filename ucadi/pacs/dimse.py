"""C-FIND, C-GET and C-STORE (PS3.4 B, C; PS3.7) by pynetdicom."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, RLELossless
from pynetdicom import AE, DEFAULT_TRANSFER_SYNTAXES, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from ucadi.errors import CapacityError, FormatError, PacsError, UcadiError
from ucadi.pacs.address import Node
from ucadi.pacs.inbox import Address, Inbox
from ucadi.pacs.query import Query

PULLED = (
    *(CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage, SecondaryCaptureImageStorage),
    *(MultiFrameTrueColorSecondaryCaptureImageStorage, ParametricMapStorage, SegmentationStorage),
)
"""Storage classes that are taken: of CT, and of what ucadi makes."""

SYNTAXES = (
    *DEFAULT_TRANSFER_SYNTAXES,
    *(JPEGLosslessSV1, JPEG2000Lossless, RLELossless, JPEGBaseline8Bit, JPEG2000),
)

TIMEOUT_S = 60.0

SUCCESS, PENDING, WARNINGS = 0x0000, (0xFF00, 0xFF01), (0xB000, 0xB006, 0xB007)


class NodeArchive:
    """An archive that speaks the DICOM protocol, called by the title `own`."""

    def __init__(self, node: Node, own: str) -> None:
        self._node = node
        self._name = f"{node.title}@{node.host}:{node.port}"
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # what matters becomes an error
        self._ae = AE(ae_title=own)
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = TIMEOUT_S
        self._ae.connection_timeout = 10.0

    def find(self, query: Query, most: int) -> frozenset[Address]:
        """Every instance of the series that the query means. CapacityError for more than `most`."""
        found: set[Address] = set()
        with self._association([StudyRootQueryRetrieveInformationModelFind]) as association:
            studies = self._rows(
                association,
                "STUDY",
                StudyInstanceUID=query.study,
                PatientID=query.patient,
                StudyDate=query.dates,
                ModalitiesInStudy=query.modality,
            )
            for study in studies:
                for series in self._rows(
                    association,
                    "SERIES",
                    StudyInstanceUID=str(study.StudyInstanceUID),
                    SeriesInstanceUID=query.series,
                    Modality=query.modality,
                ):
                    uids = str(series.StudyInstanceUID), str(series.SeriesInstanceUID)
                    keys = dict(zip(("StudyInstanceUID", "SeriesInstanceUID"), uids, strict=True))
                    for image in self._rows(association, "IMAGE", **keys, SOPInstanceUID=""):
                        found.add(Address(*uids, str(image.SOPInstanceUID)))
                        if len(found) > most:
                            raise CapacityError(
                                f"the archive has more than {most} instances for this",
                                hint="ask for less, or raise --most-instances",
                            )
        return frozenset(found)

    def _rows(self, association: Association, level: str, **keys: str) -> list[Dataset]:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        rows: list[Dataset] = []
        for status, row in association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind):
            code = _code(status)
            if code in PENDING and row is not None:
                rows.append(row)
            elif code != SUCCESS:
                raise PacsError(f"{self._name}: a query failed, {_words(code)}")
        return rows

    def fetch(self, inbox: Inbox) -> Iterator[Address]:
        """Brings what the inbox lacks, a series at a time; whatever else comes ends the transfer."""
        arrived: deque[Address] = deque()
        faults: list[UcadiError] = []

        def receive(event: evt.Event) -> int:
            if faults:
                return _REFUSED
            try:
                arrived.append(inbox.add(event.encoded_dataset()))
            except UcadiError as error:
                faults.append(error)
                event.assoc.dimse_timeout = 0.1  # nothing more is waited for
                event.assoc.abort()
                return _REFUSED
            return SUCCESS

        contexts = [StudyRootQueryRetrieveInformationModelGet, *PULLED]
        roles = [build_role(uid, scp_role=True) for uid in PULLED]
        missing: dict[tuple[str, str], list[str]] = {}
        for address in inbox.missing:
            missing.setdefault((address.study, address.series), []).append(address.instance)
        for (study, series), instances in missing.items():
            with self._association(contexts, roles, [(evt.EVT_C_STORE, receive)]) as association:
                identifier = Dataset()
                identifier.QueryRetrieveLevel = "IMAGE"
                identifier.StudyInstanceUID, identifier.SeriesInstanceUID = study, series
                for start in range(0, len(instances), LIST):
                    identifier.SOPInstanceUID = instances[start : start + LIST]
                    for status, _ in association.send_c_get(identifier, StudyRootQueryRetrieveInformationModelGet):
                        code = _code(status)
                        if faults:
                            raise faults[0]
                        if code not in (SUCCESS, *PENDING, *WARNINGS):
                            raise PacsError(
                                f"{self._name}: the transfer of a series failed, {_words(code)}",
                                hint="run again to go on where it broke",
                            )
                        while arrived:
                            yield arrived.popleft()
            yield from arrived
            arrived.clear()
        left = inbox.missing
        if left:
            raise PacsError(
                f"{self._name}: {len(left)} of {len(inbox.wanted)} instances did not come",
                hint="run again to go on; other kinds of images than CT do not come this way",
            )

    def store(self, path: Path) -> None:
        """Sends one file. PacsError, with the archive's status, if it is refused."""
        try:
            dataset = pydicom.dcmread(path)
            sop_class, syntax = str(dataset.SOPClassUID), str(dataset.file_meta.TransferSyntaxUID)
        except Exception as error:
            raise FormatError(f"no DICOM file ({type(error).__name__})") from None
        with self._association([sop_class], syntaxes=[syntax]) as association:
            try:
                code = _code(association.send_c_store(dataset))
            except ValueError as error:
                raise PacsError(f"the archive takes no such object: {error}") from None
        if code != SUCCESS and code not in WARNINGS:
            raise PacsError(f"refused, {_words(code)}")

    @contextmanager
    def _association(
        self,
        contexts: Sequence[str],
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
        handlers: Sequence[Any] = (),
        syntaxes: Sequence[str] = SYNTAXES,
    ) -> Iterator[Association]:
        self._ae.requested_contexts = []
        for uid in contexts:
            self._ae.add_requested_context(uid, list(syntaxes))
        association = self._ae.associate(
            self._node.host,
            self._node.port,
            ae_title=self._node.title,
            ext_neg=list(roles),
            evt_handlers=list(handlers),
        )
        if not association.is_established:
            raise PacsError(
                f"{self._name}: {'refused' if association.is_rejected else 'not reached'}",
                hint=f"does it know the title {self._ae.ae_title} and this machine's address?",
            )
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def close(self) -> None:
        """Nothing stays open between two operations."""
        self._ae.shutdown()


LIST = 100
"""Instances that one C-GET names: UIDs have 64 characters, and identifiers should stay short."""

_REFUSED = 0xA700  # out of resources


def _code(status: Dataset) -> int:
    """A status; an empty one means that the connection broke."""
    return int(status.Status) if "Status" in status else _BROKEN


_BROKEN = -1


def _words(code: int) -> str:
    return "the connection broke" if code == _BROKEN else f"status {code:#06x}"
