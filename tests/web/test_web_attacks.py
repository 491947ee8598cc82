"""Attacks on the diagnosis page: what a hostile upload, a hostile site or a hostile client may try."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pages import NAME, SCRIPT, Answer, Page, chest, named, sequence_of, small_model, zipped
from places import ROOT
from series import series

ELSEWHERE = "http://evil.example"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def page(model: Path, work: Path) -> Iterator[Page]:
    with Page(model, "--work", work, "--max-size", "20MB") as running:
        yield running


@pytest.fixture(scope="module")
def hostile(page: Page, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CT with a script in every text, done."""
    job = page.send(named(tmp_path_factory.mktemp("hostile") / "named"))
    assert page.wait(job)["state"] == "done"
    return job


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


# paths


@pytest.mark.parametrize(
    "path",
    [
        "/static/../serve.py",
        "/static/%2e%2e/serve.py",
        "/static/..%2fserve.py",
        "/static//etc/passwd",
        "/static/niivue/../../serve.py",
        "/api/jobs/../../etc/passwd",
        "/api/jobs/%2e%2e",
        "/api/jobs/..%2f..%2fqueue.sqlite",
        "/api/jobs/JOB/results/..%2fupload%2f00000",
        "/api/jobs/JOB/results/%2e%2e%2f%2e%2e%2f%2e%2e%2fqueue.sqlite",
        "/api/jobs/JOB/results/result.json%00.html",
        "/api/jobs/JOB/results//etc/passwd",
    ],
)
def test_paths_lead_nowhere(page: Page, path: str) -> None:
    job = str(page.ask("POST", "/api/jobs").json["id"])
    try:
        answer = page.ask("GET", path.replace("JOB", job))
        assert answer.status == 404, answer
        for secret in (b"root:", b"SQLite", b"def serve"):
            assert secret not in answer.body
    finally:
        page.ask("DELETE", f"/api/jobs/{job}")


@pytest.mark.parametrize("number", ["20000", "-1", "x", "1e3", "0/../1", "00000.part"])
def test_files_are_numbered(page: Page, number: str, work: Path) -> None:
    job = str(page.ask("POST", "/api/jobs").json["id"])
    before = files_below(work)
    assert page.ask("PUT", f"/api/jobs/{job}/files/{number}", b"x").status in (400, 404)
    assert files_below(work) == before
    page.ask("DELETE", f"/api/jobs/{job}")


def test_members_of_a_zip_file_stay_in_the_scratch_folder(page: Page, tmp_path: Path, work: Path) -> None:
    """Climbing names, absolute names and a link, around a chest that is good."""
    path = zipped(chest(tmp_path / "chest"), tmp_path / "chest.zip")
    target = tmp_path / "planted"
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../../../planted", str(target), "..\\..\\planted", "scan/../../planted"):
            archive.writestr(name, "planted")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(tmp_path))
    job = page.send(path)
    assert page.wait(job)["state"] == "done"
    assert not list(tmp_path.rglob("planted"))
    assert not list(work.rglob("planted*"))
    page.ask("DELETE", f"/api/jobs/{job}")
    assert not (work / "jobs" / job).exists()


# sizes


def test_a_zip_bomb_is_refused_and_leaves_nothing(page: Page, tmp_path: Path, work: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for number in range(4):
            archive.writestr(f"{number}.dcm", bytes(1 << 27))
    assert path.stat().st_size < 1 << 20
    job = page.send(path)
    shown = page.wait(job)
    assert "zip file that is broken, encrypted or too large" in shown["error"]
    assert sum(file.stat().st_size for file in files_below(work / "jobs" / job)) < 1 << 20


def test_a_bomb_in_nifti_ends_within_the_memory(model: Path, tmp_path: Path) -> None:
    """A header that claims 512 x 512 x 2000 float64 voxels, and 4 GB of zeros for them in 4 MB."""
    import gzip

    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((512, 512, 2000))
    header.set_sform(np.eye(4), 1)
    path = tmp_path / "bomb.nii.gz"
    zeros = gzip.compress(bytes(1 << 26))
    with path.open("wb") as file:
        file.write(gzip.compress(header.binaryblock + bytes(4)))
        for _ in range(62):
            file.write(zeros)
    with Page(model, "--work", tmp_path / "work", "--memory", "2GB") as page:
        assert page.wait(page.send(path))["state"] == "failed"
        assert page.ask("GET", "/api/service").status == 200


def test_a_sequence_of_400000_items(page: Page, tmp_path: Path) -> None:
    job = page.send(sequence_of(400_000, tmp_path / "items.dcm"))
    assert page.wait(job)["state"] == "failed"
    folder = chest(tmp_path / "chest")
    sequence_of(400_000, folder / "9999.dcm")
    job = page.send(zipped(folder, tmp_path / "chest.zip"))
    assert page.wait(job)["state"] in ("done", "failed")
    assert page.ask("GET", "/api/service").status == 200


def test_sequences_within_sequences(page: Page, tmp_path: Path) -> None:
    """5,000 deep, each of undefined length: what recursion does not survive."""
    dataset = series(1)[0]
    path = tmp_path / "deep.dcm"
    dataset.add_new((0x0009, 0x1010), "SQ", [])
    dataset.save_as(path, enforce_file_format=True)
    opening = b"\x09\x00\x10\x10SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    before, after = path.read_bytes().split(b"\x09\x00\x10\x10SQ\x00\x00" + bytes(4))
    path.write_bytes(before + opening * 5000 + closing * 5000 + after)
    assert page.wait(page.send(path))["state"] == "failed"


def test_too_much_is_refused_as_soon_as_it_is_known(page: Page, work: Path) -> None:
    limit = page.ask("GET", "/api/service").json["limits"]["upload_bytes"]
    before = files_below(work)
    announced = page.ask("POST", "/api/jobs", None, content_length=str(limit + 1))
    assert announced.status == 413

    def endless() -> Iterator[bytes]:  # without a length: chunked
        for _ in range(2 * limit >> 16):
            yield bytes(1 << 16)

    assert page.ask("POST", "/api/jobs", endless(), content_type="application/octet-stream").status == 413
    job = str(page.ask("POST", "/api/jobs").json["id"])
    half = bytes(limit // 2 + 1)
    assert page.ask("PUT", f"/api/jobs/{job}/files/0", half).status == 204
    assert page.ask("PUT", f"/api/jobs/{job}/files/1", half).status == 413
    assert page.ask("PUT", f"/api/jobs/{job}/files/0", half).status == 204  # again: replaced, not added
    assert page.ask("DELETE", f"/api/jobs/{job}").status == 204
    assert files_below(work / "jobs") == {path for path in before if "jobs" in path.parts}


def test_an_upload_that_breaks_off_leaves_nothing(page: Page, work: Path) -> None:
    job = str(page.ask("POST", "/api/jobs").json["id"])
    for path in (f"PUT /api/jobs/{job}/files/0", "POST /api/jobs"):
        with socket.create_connection(("127.0.0.1", page.port)) as line:
            line.sendall(
                f"{path} HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nContent-Length: 1000000\r\n\r\n".encode()
                + bytes(5000)
            )
            time.sleep(0.2)
    end = time.monotonic() + 10
    while any(file.parent.name == "upload" for file in files_below(work / "jobs")):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert page.ask("POST", f"/api/jobs/{job}/start").status == 409
    page.ask("DELETE", f"/api/jobs/{job}")


def test_a_job_removed_while_its_file_comes(page: Page, work: Path) -> None:
    job = str(page.ask("POST", "/api/jobs").json["id"])
    with socket.create_connection(("127.0.0.1", page.port)) as line:
        head = f"PUT /api/jobs/{job}/files/0 HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nContent-Length: 20000\r\n\r\n"
        line.sendall(head.encode() + bytes(10_000))
        time.sleep(0.2)
        assert page.ask("DELETE", f"/api/jobs/{job}").status == 204
        line.sendall(bytes(10_000))
        assert b" 404 " in line.recv(100)
    assert not (work / "jobs" / job).exists()
    assert not [event for event in page.events if event["event"] == "bug"]


def test_a_job_begins_once_and_takes_no_more(page: Page, tmp_path: Path) -> None:
    job = page.send(chest(tmp_path / "chest", slices=10))
    assert page.ask("PUT", f"/api/jobs/{job}/files/0", b"other").status == 409
    assert page.ask("POST", f"/api/jobs/{job}/start").status == 202
    page.wait(job)
    assert page.ask("POST", f"/api/jobs/{job}/start").json["state"] == "failed"


def test_a_job_has_so_much_time_and_memory(model: Path, tmp_path: Path) -> None:
    scan = zipped(chest(tmp_path / "chest"), tmp_path / "chest.zip")
    with Page(model, "--work", tmp_path / "hasty", "--max-time", "0.6s") as page:
        assert "not done within" in page.wait(page.send(scan))["error"]
    with Page(model, "--work", tmp_path / "narrow", "--memory", "100MB") as page:
        assert page.wait(page.send(scan))["state"] == "failed"


# other sites


def test_other_names_are_refused(page: Page) -> None:
    """DNS rebinding: a name of the attacker's that leads to this address."""
    for name in ("evil.example", f"evil.example:{page.port}", "127.0.0.1", "", f"127.0.0.1.evil.example:{page.port}"):
        assert page.ask("GET", "/api/service", host=name).status == 421, name
    for name in (f"localhost:{page.port}", f"LOCALHOST:{page.port}", f"[::1]:{page.port}"):
        assert page.ask("GET", "/api/service", host=name).status == 200, name
    assert raw(page, f"GET /api/service HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nHost: evil.example\r\n\r\n") in (
        400,
        421,
    )


def raw(page: Page, request: str) -> int:
    """The status that a request written by hand gets; 0 if the connection is ended without one."""
    with socket.create_connection(("127.0.0.1", page.port)) as line:
        try:
            line.sendall(request.encode())
            return int((line.recv(100) or b"- 0").split()[1])
        except (BrokenPipeError, ConnectionResetError):
            return 0


def test_other_sites_are_refused(page: Page) -> None:
    own = page.url
    for origin in (ELSEWHERE, "null", own + ".evil.example", own.replace("127.0.0.1", "localhost"), "file://"):
        for method, path in (("POST", "/api/jobs"), ("GET", "/api/service"), ("DELETE", "/api/jobs/x"), ("GET", "/")):
            answer = page.ask(method, path, origin=origin)
            assert answer.status == 403, (origin, method)
            assert "access-control-allow-origin" not in answer.headers
    for kind in ("cross-site", "same-site"):
        assert page.ask("POST", "/api/jobs", sec_fetch_site=kind).status == 403
        assert page.ask("GET", "/api/service", sec_fetch_site=kind).status == 403
        assert page.ask("GET", "/api/service", sec_fetch_site=kind, sec_fetch_mode="navigate").status == 403
        assert page.ask("GET", "/", sec_fetch_site=kind, sec_fetch_mode="no-cors").status == 403
        assert page.ask("GET", "/", sec_fetch_site=kind, sec_fetch_mode="navigate").status == 200  # a link to the page
    assert page.ask("OPTIONS", "/api/jobs", origin=ELSEWHERE, access_control_request_method="PUT").status == 403
    assert page.ask("GET", "/api/service", origin=own, sec_fetch_site="same-origin").status == 200


def test_what_a_form_could_send_is_refused(page: Page) -> None:
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "TEXT/PLAIN;charset=utf-8"):
        assert page.ask("POST", "/api/jobs", b"x", content_type=kind).status == 415


# scripts


def test_every_answer_forbids_foreign_code(page: Page, hostile: str) -> None:
    job, names = hostile, page.show(hostile)["results"]
    answers: dict[str, Answer] = {
        path: page.ask("GET", path)
        for path in ("/", "/sign-in", "/api", "/api/service", "/api/nothing", "/static/page.js", "/static/nothing")
    }
    answers |= {name: page.ask("GET", f"/api/jobs/{job}/results/{name}") for name in names}
    answers["421"] = page.ask("GET", "/", host="evil.example")
    answers["405"] = page.ask("PATCH", "/api/jobs")
    for name, answer in answers.items():
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy, name
        assert "frame-ancestors 'none'" in policy, name
        assert "unsafe-eval" not in policy, name
        if "script-src" in policy:
            assert "script-src 'self';" in policy, name
            assert "style-src 'self';" in policy, name
        else:
            assert policy.endswith("sandbox"), name
        assert answer.headers["x-content-type-options"] == "nosniff", name
        assert answer.headers["referrer-policy"] == "same-origin", name
        assert "server" not in answer.headers, name
        stored = "no-cache" if name.startswith("/static/") and answer.status == 200 else "no-"
        assert answer.headers["cache-control"].startswith(stored), name
    assert all(answers[name].headers["content-security-policy"].endswith("sandbox") for name in names)
    attached = page.ask("GET", f"/api/jobs/{job}/results/report.html?download")
    assert attached.headers["content-disposition"] == 'attachment; filename="report.html"'


def test_nothing_of_the_page_comes_from_outside() -> None:
    static = ROOT / "ucadi/web/static"
    for path in static.iterdir():
        if path.suffix in (".html", ".css", ".js"):
            text = path.read_text()
            assert "http:" not in text, path
            assert "https:" not in text, path
            assert "innerHTML" not in text, path
            assert "style=" not in text, path


def test_scripts_in_tags_become_nothing(page: Page, hostile: str) -> None:
    job = hostile
    for name in ("result.json", "report.html", "quality.html"):
        text = page.result(job, name).decode()
        for part in (SCRIPT, "owned", "<script", NAME, "Mustermann"):
            assert part not in text, name
    assert json.loads(page.result(job, "result.json"))["quality"]["tags"]["Manufacturer"] == "other"


def test_broken_requests_are_answered(page: Page) -> None:
    host = f"Host: 127.0.0.1:{page.port}\r\n"
    assert raw(page, f"GET /\x00 HTTP/1.1\r\n{host}\r\n") == 400
    assert raw(page, f"GET / HTTP/1.1\r\n{host}X: {'a' * 5_000_000}\r\n\r\n") in (0, 400, 431)
    both = f"{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert raw(page, f"POST /api/jobs HTTP/1.1\r\n{both}") in (201, 400)
    assert raw(page, f"POST /api/jobs HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n") == 400
    assert page.ask("GET", "/api/jobs/%ff%fe").status == 404
    assert page.ask("POST", "/sign-in", b"token=" + bytes(10_000)).status == 413
    assert not [event for event in page.events if event["event"] == "bug"]


def test_a_folder_of_thousands_of_empty_files_ends(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_001):
            archive.writestr(str(number), b"")
    assert "20001 members" in page.wait(page.send(path))["error"]


def test_links_planted_in_the_work_folder_are_not_followed(model: Path, tmp_path: Path) -> None:
    """Whoever can write there is the same user; still, an upload is never written through a link."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    with Page(model, "--work", tmp_path / "work") as page:
        job = str(page.ask("POST", "/api/jobs").json["id"])
        (tmp_path / "work" / "jobs" / job / "upload" / "00000.part").symlink_to(precious)
        assert page.ask("PUT", f"/api/jobs/{job}/files/0", b"overwritten").status == 409
    assert precious.read_bytes() == b"precious"
    shutil.rmtree(tmp_path / "work")


def test_a_truncated_zip_and_a_lying_header(page: Page, tmp_path: Path) -> None:
    whole = zipped(chest(tmp_path / "chest"), tmp_path / "chest.zip").read_bytes()
    broken = tmp_path / "broken.zip"
    broken.write_bytes(whole[: len(whole) // 2])
    assert "zip file that is broken" in page.wait(page.send(broken))["error"]
    liar = tmp_path / "liar.nii"
    header = bytearray(352)
    header[:4] = struct.pack("<i", 348)
    header[40:56] = struct.pack("<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1)
    header[344:348] = b"n+1\0"
    liar.write_bytes(header)
    assert page.wait(page.send(liar))["state"] == "failed"
