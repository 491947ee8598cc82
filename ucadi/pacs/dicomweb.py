"""QIDO-RS, WADO-RS and STOW-RS (PS3.18 10) by dicomweb-client."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.errors import InvalidDicomError
from requests.adapters import HTTPAdapter

from ucadi.errors import CapacityError, FormatError, PacsError
from ucadi.pacs.address import Credentials, Web, check_secrecy
from ucadi.pacs.inbox import Address, Inbox
from ucadi.pacs.query import Query

PAGE = 500
"""Results that are asked for at a time."""

MAX_ANSWER_BYTES = 1 << 26
"""Largest page of results."""

TIMEOUT_S = (10.0, 120.0)
"""To connect, and between two pieces of an answer."""


class WebArchive:
    """A DICOMweb service."""

    def __init__(self, web: Web, credentials: Credentials) -> None:
        check_secrecy(web, credentials)
        self._name = web.url
        session = requests.Session()
        session.trust_env = False  # no .netrc and no proxy that the archive's images and the password would pass
        session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        session.max_redirects = 0  # an archive that sends its callers elsewhere is not to be followed
        self._adapter = _LimitedAdapter()
        for scheme in ("https://", "http://"):
            session.mount(scheme, self._adapter)
        if credentials.token:
            session.headers["Authorization"] = f"Bearer {credentials.token}"
        elif credentials:
            session.auth = (credentials.user, credentials.password)
        self._session = session
        self._client = DICOMwebClient(web.url, session=session, timeout=TIMEOUT_S)
        self._client.set_http_retry_params(max_attempts=3, wait_exponential_multiplier=250)
        logging.getLogger("retrying").setLevel(logging.CRITICAL)  # the last attempt's error is reported

    def find(self, query: Query, most: int) -> frozenset[Address]:
        """Every instance of the series that the query means. CapacityError for more than `most`."""
        found: set[Address] = set()
        of_study = {
            "ModalitiesInStudy": query.modality,
            "StudyInstanceUID": query.study,
            "PatientID": query.patient,
            "StudyDate": query.dates,
        }
        of_series = {"Modality": query.modality, "SeriesInstanceUID": query.series}
        with self._errors():
            if any((query.study, query.patient, query.dates)):
                studies = {_uid(row, "0020000D") for row in self._rows("studies", of_study)}
                pairs = {
                    (study, _uid(r, "0020000E")) for study in studies for r in self._rows("series", of_series, study)
                }
            else:
                pairs = {(_uid(row, "0020000D"), _uid(row, "0020000E")) for row in self._rows("series", of_series)}
            for study, uid in sorted(pairs):
                rows = self._rows("instances", {}, study, uid)
                found |= {Address(study, uid, _uid(row, "00080018")) for row in rows}
                if len(found) > most:
                    raise CapacityError(
                        f"the archive has more than {most} instances for this",
                        hint="ask for less, or raise --most-instances",
                    )
        return frozenset(found)

    def _rows(self, level: str, filters: dict[str, Any], *above: str) -> Iterator[dict[str, Any]]:
        """Results of a search, page by page, until one is empty or brings nothing new."""
        search = getattr(self._client, f"search_for_{level}")
        filters = {name: value for name, value in filters.items() if value}
        offset, seen = 0, set()
        while True:
            self._adapter.most = MAX_ANSWER_BYTES
            rows = search(*above, search_filters=filters, limit=PAGE, offset=offset)
            new = [row for row in rows if str(row) not in seen]
            seen |= {str(row) for row in new}
            yield from new
            if len(rows) < PAGE or not new:
                return
            offset += len(rows)

    def fetch(self, inbox: Inbox) -> Iterator[Address]:
        """Brings what the inbox lacks, instance by instance."""
        for address in inbox.missing:
            with self._errors():
                self._adapter.most = inbox.room + (1 << 16)  # and the headers of the one part
                dataset = self._client.retrieve_instance(
                    address.study, address.series, address.instance, media_types=(("application/dicom", "*"),)
                )
                buffer = BytesIO()
                pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
            yield inbox.add(buffer.getvalue())

    def store(self, path: Path) -> None:
        """Sends one file. PacsError, with the archive's reason, if it is refused."""
        dataset = _read(path)
        with self._errors():
            self._adapter.most = MAX_ANSWER_BYTES
            answer = self._client.store_instances([dataset])
        failed = answer.get("FailedSOPSequence") or []
        stored = {str(item.ReferencedSOPInstanceUID) for item in answer.get("ReferencedSOPSequence") or []}
        if failed:
            raise PacsError(f"refused, reason {int(failed[0].get('FailureReason', 0)):#06x}")
        if str(dataset.SOPInstanceUID) not in stored:
            raise PacsError("the archive did not say that it stored it")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What goes wrong on the way, as PacsError."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an archive's oddities; what came is checked
                yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            hint = "set UCADI_PACS_USER and UCADI_PACS_PASSWORD, or --credentials" if status in (401, 403) else None
            raise PacsError(f"{self._name}: status {status}", hint=hint) from None
        except (requests.RequestException, OSError) as error:
            raise PacsError(f"{self._name}: {type(error).__name__}", hint="run again to go on where it broke") from None
        except (InvalidDicomError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            raise PacsError(f"{self._name}: an answer that is no DICOMweb ({type(error).__name__})") from None

    def close(self) -> None:
        """Ends the connections."""
        self._session.close()


class _LimitedAdapter(HTTPAdapter):
    """Ends an answer that becomes larger than `most` bytes; requests by itself reads whatever comes."""

    most = MAX_ANSWER_BYTES

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().send(request, *args, **kwargs)
        response.raw = _Limited(response.raw, self.most)
        return response


class _Limited:
    """An answer's body that is counted as it is read, after it is decompressed."""

    def __init__(self, raw: Any, most: int) -> None:
        self._raw = raw
        self._left = most

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        for piece in self._raw.stream(*args, **kwargs):
            self._left -= len(piece)
            if self._left < 0:
                raise CapacityError("the archive's answer is larger than allowed", hint="raise --max-size")
            yield piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _uid(row: dict[str, Any], tag: str) -> str:
    (value,) = row[tag]["Value"]
    return str(value)


def _read(path: Path) -> pydicom.FileDataset:
    try:
        return pydicom.dcmread(path)
    except Exception as error:
        raise FormatError(f"no DICOM file ({type(error).__name__})") from None
