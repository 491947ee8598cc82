"""`ucadi pacs` against a real Orthanc, and against archives that lie."""

from __future__ import annotations

import gc
import http.server
import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pydicom
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from heatmaps import objects_of
from orthanc import IS_INSTALLED, WHY_NOT, Orthanc, running
from pydicom.uid import CTImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)
from series import save
from traps import stack

from ucadi.commands.pacs import PacsPullResult, pacs_pull, pacs_push
from ucadi.commands.preprocess import preprocess
from ucadi.errors import CapacityError, FormatError, PacsError, SignatureError, UsageError
from ucadi.pacs.address import Credentials, Node, Web, check_secrecy, parse, read_credentials
from ucadi.pacs.inbox import Address, Inbox, TransferLimits, check_uid
from ucadi.pacs.query import Query

needs_orthanc = pytest.mark.skipif(not IS_INSTALLED, reason=WHY_NOT)

STUDY, SERIES, OTHER = "1.2.3.8", "1.2.3.4", "1.2.3.5"
WAYS = ("web", "node")


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series of one study, and one of another patient's."""
    folder = tmp_path_factory.mktemp("ct")
    common = {"FrameOfReferenceUID": "1.2.3.7", "PatientName": "A^B", "StudyDate": "20200102", "StudyTime": "0304"}
    of_study = {"StudyInstanceUID": STUDY, "PatientID": "17", **common}
    save(folder / "one", stack(range(15), **of_study))
    save(folder / "two", stack(range(5), SeriesInstanceUID=OTHER, **of_study))
    save(
        folder / "three",
        stack(range(3), SeriesInstanceUID="1.2.4.4", StudyInstanceUID="1.2.4.8", PatientID="18", **common),
    )
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, ct: Path) -> Iterator[Orthanc]:
    """An archive that holds `ct`, sent by C-STORE and STOW-RS."""
    with running(tmp_path_factory.mktemp("orthanc") / "a") as archive, pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCADI_PACS_USER", "ucadi")
        patch.setenv("UCADI_PACS_PASSWORD", "secret")
        assert len(pacs_push(archive.node, [ct / "one"]).stored) == 15
        assert len(pacs_push(archive.web, [ct / "two", *sorted((ct / "three").iterdir())]).stored) == 8
        assert archive.ask("/statistics")["CountInstances"] == 23
        yield archive


def pull(archive: Orthanc, way: str, output: Path, **wanted: object) -> PacsPullResult:
    return pacs_pull(getattr(archive, way), output=output, **wanted)  # type: ignore[arg-type]


def own(way: str) -> str:
    """A study of a test's own, as all share the archive."""
    return f"{generate_uid(prefix='1.2.6.')[:50]}{WAYS.index(way) + 1}"


def uids(folder: Path) -> set[str]:
    return {str(pydicom.dcmread(path).SOPInstanceUID) for path in folder.rglob("*.dcm")}


@needs_orthanc
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"series": SERIES}, (1, 1, 15)),
        ({"study": STUDY}, (1, 2, 20)),
        ({"study": STUDY, "series": OTHER}, (1, 1, 5)),
        ({"patient": "18"}, (1, 1, 3)),
        ({"since": "20200102", "until": "20200102"}, (2, 3, 23)),
        ({"since": "20191231"}, (2, 3, 23)),
    ],
)
def test_pulled_is_what_was_pushed(
    archive: Orthanc, ct: Path, way: str, wanted: dict[str, str], found: tuple[int, int, int], tmp_path: Path
) -> None:
    result = pull(archive, way, tmp_path / "in", **wanted)
    assert (result.studies, result.series, result.fetched) == found
    here = {str(pydicom.dcmread(path).SOPInstanceUID): pydicom.dcmread(path) for path in ct.rglob("*.dcm")}
    paths = list((tmp_path / "in").rglob("*"))
    received = [pydicom.dcmread(path) for path in paths if path.is_file()]
    assert len(received) == found[2]
    for dataset in received:
        assert dataset == here[str(dataset.SOPInstanceUID)]


@needs_orthanc
@pytest.mark.parametrize("way", WAYS)
def test_a_broken_transfer_goes_on_where_it_ended(archive: Orthanc, way: str, tmp_path: Path) -> None:
    pull(archive, way, tmp_path, series=SERIES)
    paths = sorted(tmp_path.rglob("*.dcm"))
    kept = {path: path.stat().st_mtime_ns for path in paths[4:]}
    for path in paths[:4]:
        path.unlink()
    paths[0].with_name(f".{paths[0].name}.part").write_bytes(b"half of an image")
    again = pull(archive, way, tmp_path, series=SERIES)
    assert (again.fetched, again.present) == (4, 11)
    assert sorted(tmp_path.rglob("*.dcm")) == paths
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert not list(tmp_path.rglob("*.part"))


@needs_orthanc
@pytest.mark.parametrize("way", WAYS)
def test_limits(archive: Orthanc, way: str, tmp_path: Path) -> None:
    with pytest.raises(CapacityError, match="more than 19 instances"):
        pull(archive, way, tmp_path / "a", study=STUDY, most_instances=19)
    assert not (tmp_path / "a").exists()
    big = stack(range(3), SeriesInstanceUID="1.2.5.4", StudyInstanceUID=(uid := own(way)), ImageComments="x" * 9000)
    pacs_push(archive.node, [save(tmp_path / "big", big)])
    with pytest.raises(CapacityError):
        pull(archive, way, tmp_path / "b", study=uid, max_size=1.8e4)
    assert len(list((tmp_path / "b").rglob("*.dcm"))) == 1
    assert pull(archive, way, tmp_path / "b", study=uid).fetched == 2


@needs_orthanc
@pytest.mark.parametrize("way", WAYS)
def test_from_the_archive_to_a_heatmap_in_it(archive: Orthanc, way: str, tmp_path: Path) -> None:
    """Pulled, made a dataset of, and what explains it pushed and pulled again."""
    pull(archive, way, tmp_path / "in", series=SERIES)
    made = preprocess(
        tmp_path / "in", unlabelled=True, size=16, min_slices=10, workers=1, output=tmp_path / f"{way}.h5"
    )
    assert made.cases == 1
    folder, *_ = objects_of(tmp_path / "in" / STUDY, tmp_path / "objects")
    assert len(pacs_push(getattr(archive, way), [folder]).stored) == 17
    before = archive.ask("/statistics")["CountInstances"]
    assert len(pacs_push(getattr(archive, way), [folder]).stored) == 17
    assert archive.ask("/statistics")["CountInstances"] == before
    for modality in ("SEG", "OT"):
        pull(archive, way, tmp_path / "out", study=STUDY, modality=modality)
    assert uids(tmp_path / "out") == uids(folder)


@needs_orthanc
@pytest.mark.parametrize("way", WAYS)
def test_what_is_refused_is_named_and_stops_nothing(archive: Orthanc, way: str, tmp_path: Path) -> None:
    (good,) = stack([0.0], StudyInstanceUID=(study := own(way)), SeriesInstanceUID="1.2.6.4")
    folder = save(tmp_path / "a", [good], ["b.dcm"])
    (folder / "a.dcm").write_bytes(b"no DICOM")
    with pytest.raises(PacsError, match=r"1 of 2 not stored: .*a\.dcm: .*no DICOM file") as caught:
        pacs_push(getattr(archive, way), [folder])
    assert "b.dcm" not in caught.value.message
    assert pull(archive, way, tmp_path / "in", study=study).fetched == 1


@needs_orthanc
@pytest.mark.parametrize("way", WAYS)
def test_an_archive_that_may_not_be_used(
    archive: Orthanc, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UCADI_PACS_PASSWORD", "guess")
    url = archive.web if way == "web" else archive.node.replace("TEST@", "ANOTHER@")
    for act in (
        lambda: pacs_pull(url, output=tmp_path / "in", study=STUDY),
        lambda: pacs_push(url, [save(tmp_path / "a", stack([0.0]))]),
    ):
        with pytest.raises(PacsError) as caught:
            act()
        assert "guess" not in caught.value.message
    assert not (tmp_path / "in").exists()


@needs_orthanc
@pytest.mark.parametrize("way", WAYS)
def test_nothing_there(archive: Orthanc, way: str, tmp_path: Path) -> None:
    with pytest.raises(PacsError, match="nothing there"):
        pull(archive, way, tmp_path / "in", study="1.2.999")


@needs_orthanc
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pynetdicom leaves its socket open
def test_an_archive_that_dies(tmp_path: Path, ct: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCADI_PACS_USER", "ucadi")
    monkeypatch.setenv("UCADI_PACS_PASSWORD", "secret")
    with running(tmp_path / "a") as archive:
        pacs_push(archive.node, [ct / "three"])
    for url in (archive.web, archive.node):
        with pytest.raises(PacsError):
            pacs_pull(url, output=tmp_path / "in", patient="18")
    gc.collect()  # so that the socket is noticed here


def certificate() -> bytes:
    """A key and a certificate that it signed itself, for 127.0.0.1."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "archive")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(pem, *plain) + signed.public_bytes(pem)


# Archives that lie


def test_an_archive_that_sends_its_callers_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCADI_PACS_TOKEN", "hush")
    asked: list[str] = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Host"].partition(":")[0])
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    with serving(Elsewhere) as url, pytest.raises(PacsError, match="TooManyRedirects"):
        pacs_pull(url, output=tmp_path / "in", study=STUDY)
    assert set(asked) == {"127.0.0.1"}


@contextmanager
def lying(answers: dict[str, bytes], pem: Path | None = None) -> Iterator[str]:
    """An archive that gives these bytes for paths that end so, and nothing for others; over TLS with a certificate."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            body = next((body for end, body in answers.items() if path.endswith(end)), b"[]")
            multipart = body.startswith(b"--")
            self.send_response(200)
            kind = 'multipart/related; type="application/dicom"; boundary=x' if multipart else "application/dicom+json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    with serving(Handler, pem) as url:
        yield url


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler], pem: Path | None = None) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if pem is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{'https' if pem else 'http'}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def rows(**tags: str) -> bytes:
    values = ", ".join(f'"{tag[1:]}": {{"vr": "UI", "Value": ["{value}"]}}' for tag, value in tags.items())
    return f"[{{{values}}}]".encode()


def listing(instance: str) -> dict[str, bytes]:
    return {
        "/instances": rows(_00080018=instance),
        "/series": rows(_0020000D=STUDY, _0020000E=SERIES),
        "/studies": rows(_0020000D=STUDY),
    }


def part(path: Path) -> bytes:
    return b"--x\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n--x--"


@pytest.mark.parametrize("instance", ["../../escaped", "1.2/../../escaped", "1.2.3.", "", "1" * 70, "1.2\n3"])
def test_names_that_are_no_uids(instance: str, tmp_path: Path) -> None:
    with lying(listing(instance.replace("\n", "\\n"))) as url, pytest.raises((FormatError, PacsError)):
        pacs_pull(url, output=tmp_path / "in", study=STUDY)
    assert not list(tmp_path.rglob("*"))


def test_another_image_than_the_one_asked_for(tmp_path: Path, ct: Path) -> None:
    image = next((ct / "three").iterdir())
    with lying(listing("1.2.77") | {"1.2.77": part(image)}) as url, pytest.raises(PacsError, match="not asked for"):
        pacs_pull(url, output=tmp_path / "in", study=STUDY)
    assert not list((tmp_path / "in").rglob("*.dcm"))


@pytest.mark.parametrize(
    "body",
    [b"", b"--x\r\nContent-Type: application/dicom\r\n\r\nnothing of the kind\r\n--x--", b"--x--", b"{}", b"\xff"],
)
def test_no_image_at_all(body: bytes, tmp_path: Path) -> None:
    with lying(listing("1.2.77") | {"1.2.77": body}) as url, pytest.raises(PacsError):
        pacs_pull(url, output=tmp_path / "in", study=STUDY)
    assert not list(tmp_path.rglob("*.dcm"))


@pytest.mark.parametrize("body", [b"no JSON", b'{"a": 1}', b"[1]", b'[{"0020000D": {"Value": []}}]', b"[[]]"])
def test_a_list_that_is_none(body: bytes, tmp_path: Path) -> None:
    with lying({"/studies": body}) as url, pytest.raises(PacsError):
        pacs_pull(url, output=tmp_path / "in", study=STUDY)


def test_an_answer_without_end(tmp_path: Path) -> None:
    """Larger than the transfer may be: it ends when that much has been read."""
    with (
        lying(listing("1.2.77") | {"1.2.77": b"--x\r\n" + bytes(30_000_000)}) as url,
        pytest.raises(CapacityError, match="larger than allowed"),
    ):
        pacs_pull(url, output=tmp_path / "in", study=STUDY, max_size=1e6)


def test_certificates_are_checked(tmp_path: Path, ct: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a server of Python's: Debian's Orthanc falls over when it is asked over TLS."""
    pem = tmp_path / "archive.pem"
    pem.write_bytes(certificate())
    monkeypatch.setenv("UCADI_PACS_TOKEN", "hush")
    image = next((ct / "three").iterdir())
    uid = str(pydicom.dcmread(image).SOPInstanceUID)
    answers = {
        "/instances": rows(_00080018=uid),
        "/series": rows(_0020000D="1.2.4.8", _0020000E="1.2.4.4"),
        "/studies": rows(_0020000D="1.2.4.8"),
        uid: part(image),
    }
    with lying(answers, pem=pem) as url:
        with pytest.raises(PacsError, match="SSLError"):
            pacs_pull(url, output=tmp_path / "in", study="1.2.4.8")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        assert pacs_pull(url, output=tmp_path / "in", study="1.2.4.8").fetched == 1
    (received,) = (tmp_path / "in").rglob("*.dcm")
    assert pydicom.dcmread(received) == pydicom.dcmread(image)


def row(**elements: str) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


@contextmanager
def lying_node(listed: str, sent: pydicom.Dataset, times: int) -> Iterator[str]:
    """An archive of the DICOM protocol that lists one instance, and sends another so many times."""
    rows_of = {
        "STUDY": row(StudyInstanceUID=STUDY),
        "SERIES": row(StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES),
        "IMAGE": row(SOPInstanceUID=listed),
    }

    def find(event: evt.Event) -> Iterator[tuple[int, pydicom.Dataset | None]]:
        yield 0xFF00, rows_of[event.identifier.QueryRetrieveLevel]
        yield 0x0000, None

    def get(_: evt.Event) -> Iterator[object]:
        yield times
        for _ in range(times):
            yield 0xFF00, sent

    ae = AE(ae_title="LIAR")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    ae.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_C_GET, get)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    try:
        yield f"dicom://LIAR@127.0.0.1:{server.server_address[1]}"  # type: ignore[union-attr]
    finally:
        server.shutdown()  # type: ignore[union-attr]


def test_another_image_by_c_get(tmp_path: Path, ct: Path) -> None:
    sent = pydicom.dcmread(next((ct / "three").iterdir()))
    with lying_node("1.2.77", sent, 50) as url, pytest.raises(PacsError, match="not asked for"):
        pacs_pull(url, output=tmp_path / "in", study=STUDY)
    assert not list(tmp_path.rglob("*.dcm"))


def test_nothing_by_c_get(tmp_path: Path, ct: Path) -> None:
    sent = pydicom.dcmread(next((ct / "three").iterdir()))
    with lying_node("1.2.77", sent, 0) as url, pytest.raises(PacsError, match="1 of 1 instances did not come"):
        pacs_pull(url, output=tmp_path / "in", study=STUDY)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # that the test itself makes
def test_a_name_that_is_no_uid_by_c_find(tmp_path: Path, ct: Path) -> None:
    sent = pydicom.dcmread(next((ct / "three").iterdir()))
    with lying_node("1.2.03", sent, 1) as url, pytest.raises(FormatError, match="is no UID"):
        pacs_pull(url, output=tmp_path / "in", study=STUDY)


# Addresses, credentials, queries


def test_addresses() -> None:
    assert parse("https://pacs.example.org/dicom-web/") == Web("https://pacs.example.org/dicom-web")
    assert parse("dicom://MAIN PACS@10.0.0.1:104") == Node("10.0.0.1", 104, "MAIN PACS")
    for wrong in ("pacs", "ftp://a/b", "dicom://a:104", "dicom://T@a", "dicom://T:p@a:104", "https://", "http://a:x/"):
        with pytest.raises(UsageError):
            parse(wrong)
    with pytest.raises(UsageError, match="credentials in the archive's address") as caught:
        parse("https://me:hush@pacs.example.org/")
    assert "hush" not in caught.value.message + (caught.value.hint or "")


def test_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    path.write_text("me:a:b\n")
    path.chmod(0o644)
    with pytest.raises(SignatureError, match="others than its owner have access to this file of credentials"):
        read_credentials(path)
    path.chmod(0o600)
    assert read_credentials(path) == Credentials("me", "a:b")
    path.write_text("Bearer abc.def\n")
    assert read_credentials(path) == Credentials(token="abc.def")
    for wrong in ("me", ":x", "me:", "a:b\nc:d", '{"user": "me", "password": "a"}', "[a:b]"):
        path.write_text(wrong)
        with pytest.raises(FormatError):
            read_credentials(path)
    monkeypatch.setenv("UCADI_PACS_USER", "me")
    monkeypatch.setenv("UCADI_PACS_PASSWORD", "hush")
    found = read_credentials(None)
    assert found == Credentials("me", "hush")
    assert "hush" not in repr(found)
    for url in ("http://127.0.0.1:8042", "http://localhost/", "https://pacs.example.org"):
        check_secrecy(Web(url), found)
    check_secrecy(Web("http://pacs.example.org"), Credentials())
    with pytest.raises(UsageError, match="in the clear"):
        check_secrecy(Web("http://pacs.example.org"), found)


def test_queries() -> None:
    assert Query(since="20200101").dates == "20200101-"
    assert Query(patient="1", until="20200101").dates == "-20200101"
    for wrong in ({}, {"until": "20200101"}, {"since": "2020-01-01"}, {"patient": "1*"}, {"patient": "a\\b"}):
        with pytest.raises(UsageError):
            Query(**wrong)
    with pytest.raises(FormatError):
        Query(study="1.2.*")


@pytest.mark.parametrize(
    "uid", ["", "1.2.", ".1", "1..2", "01.2", "1.02", "1.2/3", "1.2\n", "\uff11.2", "1.2 ", "1." * 40]
)
def test_uids_that_are_none(uid: str) -> None:
    with pytest.raises(FormatError):
        check_uid(uid)


def test_an_inbox_takes_what_was_asked_for_only(tmp_path: Path, ct: Path) -> None:
    paths = sorted((ct / "three").iterdir())
    headers = [pydicom.dcmread(path) for path in paths]
    wanted = frozenset(Address("1.2.4.8", "1.2.4.4", str(h.SOPInstanceUID)) for h in headers[:2])
    size = paths[0].stat().st_size
    inbox = Inbox(tmp_path / "in", wanted, TransferLimits(2, size + 10))
    inbox.add(paths[0].read_bytes())
    with pytest.raises(CapacityError):
        inbox.add(paths[1].read_bytes())
    for wrong in (paths[2].read_bytes()[:100], b""):
        with pytest.raises(PacsError):
            Inbox(tmp_path / "in", wanted, TransferLimits(2, 10**9)).add(wrong)
    with pytest.raises(PacsError, match="not asked for"):
        Inbox(tmp_path / "in", wanted, TransferLimits(2, 10**9)).add(paths[2].read_bytes())
    with pytest.raises(CapacityError):
        Inbox(tmp_path / "in", wanted, TransferLimits(1, 10**9))
    assert len(inbox.missing) == 1
    (kept,) = (tmp_path / "in").rglob("*.dcm")
    assert kept.read_bytes() == paths[0].read_bytes()
    shutil.rmtree(tmp_path / "in")
    assert len(inbox.missing) == 2
