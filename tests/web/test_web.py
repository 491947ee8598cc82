"""The diagnosis page's server and API: a real `ucadi serve`, real jobs, a queue that outlives kill -9."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from datasets import LABELS, write_dataset
from openapi_spec_validator import validate
from pages import NAME, SCRIPT, Page, chest, named, nifti, small_model, zipped
from places import ROOT

from ucadi.commands.evaluate import evaluate
from ucadi.commands.phantom import phantom
from ucadi.commands.predict import predict
from ucadi.errors import FormatError, MismatchError
from ucadi.formats import operating_point
from ucadi.web.jobs import Queue
from ucadi.web.serve import serve
from ucadi.web.settings import MAX_ATTEMPTS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def page(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(model, "--work", tmp_path_factory.mktemp("work")) as running:
        yield running


@pytest.fixture(scope="module")
def phantom_case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a phantom's DICOM files."""
    made = tmp_path_factory.mktemp("phantom") / "made"
    phantom(made, patients=1, slices=44, matrix=64, workers=1)
    (folder,) = (path for path in made.iterdir() if path.is_dir())
    return folder


@pytest.fixture(scope="module")
def done(page: Page, phantom_case: Path) -> str:
    """The phantom's job, over."""
    job = page.send(phantom_case)
    assert page.wait(job)["state"] == "done"
    return job


def test_a_folder_a_zip_file_and_a_nifti_become_results(page: Page, done: str, tmp_path: Path) -> None:
    jobs = [
        page.send(zipped(chest(tmp_path / "chest"), tmp_path / "chest.zip")),
        page.send(nifti(tmp_path / "a.nii.gz")),
    ]
    assert page.show(jobs[1])["state"] == "queued"
    for job in (done, *jobs):
        shown = page.wait(job)
        assert shown["state"] == "done", shown
        result = json.loads(page.result(job, "result.json"))
        assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        for label, p in result["probabilities"].items():
            assert result["lowest"][label] <= p + 1e-9
            assert p - 1e-9 <= result["highest"][label]
        assert result["explained"] == max(result["probabilities"], key=result["probabilities"].get)
        assert result["operating_point"] is result["calibrated"] is result["called"] is None
        assert page.result(job, "montage.png").startswith(b"\x89PNG")
        for name in ("report.html", "quality.html"):
            assert page.result(job, name).startswith(b"<!doctype html>")
    assert json.loads(page.result(jobs[0], "result.json"))["quality"]["slices"] == 48
    assert "heatmap-dicom.zip" not in page.show(jobs[1])["results"]
    assert "NIfTI" in json.loads(page.result(jobs[1], "result.json"))["no_dicom"]


def test_ct_and_heatmap_lie_on_each_other(page: Page, done: str, tmp_path: Path) -> None:
    images = []
    for name in ("ct", "heatmap", "overlay"):
        path = tmp_path / f"{name}.nii.gz"
        path.write_bytes(page.result(done, f"{name}.nii.gz"))
        images.append(nibabel.load(path))
    ct, heatmap, overlay = images
    assert ct.shape == overlay.shape == (256, 256, 44)
    assert heatmap.shape == (16, 16, 44)
    # the corners of the field of view are the same places in all of them
    for corner in ((0, 0, 0), (1, 0, 0), (0, 1, 1)):
        places = [image.affine @ [*(np.array(corner) * (*image.shape[:2], 44) - (0.5, 0.5, 0)), 1] for image in images]
        np.testing.assert_allclose(places, [places[0]] * 3, atol=1e-3)
    # the overlay is the heatmap: about the centre of a pixel, which is 16 x 16 finer ones, it has its value
    coarse, fine = np.asarray(heatmap.dataobj), np.asarray(overlay.dataobj) / 255
    means = fine.reshape(16, 16, 16, 16, 44)[:, 7:9, :, 7:9].mean(axis=(1, 3))
    np.testing.assert_allclose(means, coarse, atol=0.05)


def test_the_heatmap_is_of_the_diagnosis_that_was_asked_for(page: Page, phantom_case: Path, done: str) -> None:
    heatmap, result = page.result(done, "heatmap.nii.gz"), json.loads(page.result(done, "result.json"))
    least = min(result["probabilities"], key=result["probabilities"].get)
    job = page.send(phantom_case, least)
    assert page.wait(job)["state"] == "done"
    other = json.loads(page.result(job, "result.json"))
    assert other["explained"] == least != result["explained"]
    assert other["probabilities"] == result["probabilities"]
    assert page.result(job, "heatmap.nii.gz") != heatmap
    assert f"probability {result['probabilities'][least]:.3f}" in page.result(job, "report.html").decode()
    with zipfile.ZipFile(io.BytesIO(page.result(job, "heatmap-dicom.zip"))) as archive:
        objects = [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in archive.namelist()]
    assert all(least in held.SeriesDescription for held in objects)


def test_a_diagnosis_that_is_none_is_refused(page: Page) -> None:
    before = len(page.events)
    for unknown in ("pneumonia", "../covid", "COVID", "%00", "covid'--"):
        answer = page.ask("POST", f"/api/jobs?diagnosis={unknown}", b"x")
        assert answer.status == 400
        assert "healthy, covid, other_viral, bacterial" in answer.json["error"]
    assert len(page.events) == before


def test_the_heatmap_as_dicom_belongs_to_the_study(page: Page, done: str, phantom_case: Path) -> None:
    source = [pydicom.dcmread(file) for file in phantom_case.iterdir()]
    assert json.loads(page.result(done, "result.json"))["no_dicom"] == ""
    with zipfile.ZipFile(io.BytesIO(page.result(done, "heatmap-dicom.zip"))) as archive:
        objects = [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in archive.namelist()]
    pictures, parametric_map, segmentation = (f"1.2.840.10008.5.1.4.1.1.{part}" for part in ("7", "30", "66.4"))
    assert {held.SOPClassUID for held in objects} == {pictures, parametric_map, segmentation}
    of_whom = {(image.StudyInstanceUID, image.PatientID) for image in source}
    assert {(held.StudyInstanceUID, held.PatientID) for held in objects} == of_whom


def test_what_is_no_ct_fails_with_a_reason(page: Page, tmp_path: Path) -> None:
    short = page.send(chest(tmp_path / "short", slices=12))
    text = tmp_path / "text"
    text.write_bytes(b"no image at all")
    other = page.send(text)
    shown = page.wait(short)
    assert (shown["state"], shown["error"]) == ("failed", "too few slices (12 of 40)")
    assert shown["results"] == ["quality.html"]
    assert b"too-few-slices" in page.result(short, "quality.html")
    assert page.ask("GET", f"/api/jobs/{short}/results/result.json").status == 404
    assert page.wait(other)["error"].startswith("no DICOM image in it")


def test_removed_on_demand_in_every_state(page: Page, tmp_path: Path) -> None:
    scan = chest(tmp_path / "chest")
    work = Path(next(iter((page.process.args[page.process.args.index("--work") + 1],))))  # type: ignore[index]
    receiving = str(page.ask("POST", "/api/jobs").json["id"])
    page.ask("PUT", f"/api/jobs/{receiving}/files/0", b"x" * 1000)
    running, queued = page.send(scan), page.send(scan)
    page.wait(running, "running")
    for job in (receiving, queued, running):
        assert (work / "jobs" / job).is_dir()
        assert page.ask("DELETE", f"/api/jobs/{job}").status == 204
        assert page.ask("GET", f"/api/jobs/{job}").status == 404
    done = page.send(scan)
    page.wait(done)
    assert not (work / "jobs" / done / "upload").exists()
    assert not (work / "jobs" / done / "scratch").exists()
    assert page.ask("DELETE", f"/api/jobs/{done}").status == 204
    for job in (receiving, queued, running, done):
        assert not (work / "jobs" / job).exists()


def test_removed_at_any_moment_the_next_one_is_done(page: Page, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"no image at all")
    for pause in (0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2):
        job = page.send(text)
        time.sleep(pause)
        assert page.ask("DELETE", f"/api/jobs/{job}").status == 204
    assert page.wait(page.send(text))["state"] == "failed"
    assert page.wait(page.send(nifti(tmp_path / "a.nii")))["state"] == "done"


def test_results_are_removed_after_their_time(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"no image at all")
    work = tmp_path / "work"
    with Page(model, "--work", work, "--keep", "3.6s") as page:
        job = page.send(text)
        page.wait(job)
    queue = Queue(work / "queue.sqlite")
    changed = queue.find(job).changed  # type: ignore[union-attr]
    queue.close()
    time.sleep(max(0, changed + 3.7 - time.time()))
    with Page(model, "--work", work, "--keep", "3.6s") as page:  # looks when it begins, and every half minute
        page.wait_for("removed")
        assert page.ask("GET", f"/api/jobs/{job}").status == 404
    assert list((work / "jobs").iterdir()) == []


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_killed_in_the_middle_the_job_is_done_again(model: Path, tmp_path: Path, step: int) -> None:
    scan = zipped(chest(tmp_path / "chest"), tmp_path / "chest.zip")
    with Page(model, "--work", tmp_path / "work") as page:
        job, waiting = page.send(scan), page.send(scan)
        end = time.monotonic() + 60
        while page.show(job).get("step", 0) < step and time.monotonic() < end:
            time.sleep(0.005)
        page.kill()
    with Page(model, "--work", tmp_path / "work") as page:
        assert page.wait_for("again")["job"] == job[:8]
        assert page.wait(job)["state"] == "done"
        assert page.wait(waiting)["state"] == "done"
        for name in page.show(job)["results"]:  # the same CT gives the same results, done twice or once
            assert page.result(job, name) == page.result(waiting, name), name
        assert [told["attempt"] for told in page.events if told["event"] == "running"] == [2, 1]


def test_a_worker_ends_with_its_server(model: Path, tmp_path: Path) -> None:
    with Page(model, "--work", tmp_path / "work") as page:
        page.send(chest(tmp_path / "chest"))
        children = _workers(page)
        page.kill()
    end = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() and _state(child) != "Z" for child in children):
        assert time.monotonic() < end, "the worker goes on without its server"
        time.sleep(0.05)


def _workers(page: Page) -> list[int]:
    """The server's children, once there are any."""
    pid, end = page.process.pid, time.monotonic() + 60
    while time.monotonic() < end:
        if children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return [int(child) for child in children]
        time.sleep(0.01)
    raise AssertionError("no worker begins")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_worker_that_dies_takes_nothing_with_it(page: Page, tmp_path: Path) -> None:
    job, after = page.send(chest(tmp_path / "chest")), page.send(nifti(tmp_path / "a.nii"))
    (worker,) = _workers(page)
    os.kill(worker, signal.SIGSEGV)
    assert page.wait(job)["error"].startswith("the analysis died")
    assert page.wait(after)["state"] == "done"


@pytest.mark.slow
def test_a_queue_that_cannot_be_written_for_a_while_stops_nothing(model: Path, tmp_path: Path) -> None:
    """Another program locks it while a job ends; the job is then done again, and the next ones are done."""
    work = tmp_path / "work"
    with Page(model, "--work", work) as page:
        job = page.send(nifti(tmp_path / "a.nii"))
        (worker,) = _workers(page)
        with closing(sqlite3.connect(work / "queue.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            os.kill(worker, signal.SIGKILL)
            assert page.wait_for("bug")["kind"] == "OperationalError"
            assert page.ask("POST", "/api/jobs").status == 503
            other.execute("ROLLBACK")
        assert page.wait(job)["state"] == "done"
        assert page.wait(page.send(nifti(tmp_path / "b.nii")))["state"] == "done"


def test_what_a_kill_left_of_a_job_that_is_over_is_removed(model: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    queue = Queue(work / "queue.sqlite")
    (work / "ucadi-serve.lock").touch()
    job = queue.add("").id
    queue.enqueue(job)
    for _ in range(MAX_ATTEMPTS):
        assert queue.take() is not None
        if queue.find(job).attempts < MAX_ATTEMPTS:  # type: ignore[union-attr]
            queue.recover()
    queue.close()
    for name in ("upload", "scratch"):
        (work / "jobs" / job / name).mkdir(parents=True)
        (work / "jobs" / job / name / "00000").write_bytes(b"pixels")
    with Page(model, "--work", work) as page:
        assert "given up" in page.wait(job)["error"]
        end = time.monotonic() + 40  # it looks twice a minute
        while any((work / "jobs" / job).iterdir()):
            assert time.monotonic() < end, "the upload is still there"
            time.sleep(0.1)


def test_two_servers_never_share_a_folder(page: Page, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ucadi.web.serve._LOCK_SECONDS", 0.3)
    work = page.process.args[page.process.args.index("--work") + 1]  # type: ignore[index]
    with pytest.raises(Exception, match="another server uses it"):
        serve(model=model, work=Path(str(work)), bind="127.0.0.1:0")


def test_the_server_ends_in_peace(model: Path, tmp_path: Path) -> None:
    with Page(model, "--work", tmp_path / "work") as page:
        job = page.send(chest(tmp_path / "chest"))
        page.wait(job, "running")
        assert page.terminate() == 0
        assert "Traceback" not in "".join(page.told)
    queue = Queue(tmp_path / "work" / "queue.sqlite")
    assert queue.recover() == []
    taken = queue.take()
    assert taken is not None
    assert (taken.id, taken.attempts) == (job, 1)
    queue.close()


def test_no_identifiers_in_what_the_server_tells(model: Path, tmp_path: Path) -> None:
    scan = named(tmp_path / "Erika-Mustermann")
    with Page(model, "--work", tmp_path / "work", "--proxy-user-header", "X-User") as page:
        user = {"x-user": "dr.house@example.org"}
        job = page.send(zipped(scan, tmp_path / "Mustermann.zip"), **user)
        assert page.wait(job, **user)["state"] == "done"
        # DICOM objects are for the patient's own study, and so name the patient
        names = set(page.show(job, **user)["results"]) - {"heatmap-dicom.zip"}
        kept = [page.result(job, name, **user) for name in names]
        page.ask("GET", "/api/jobs/Mustermann", **user)
        page.ask("GET", "/?patient=Mustermann", **user)
        told = "".join(page.told)
        events = {event["event"] for event in page.events}
    assert events == {"listening", "new", "queued", "running", "done"}
    for secret in ("Mustermann", "4711", "dr.house", job):
        assert secret not in told
    for held in kept:
        plain = gzip.decompress(held) if held[:2] == b"\x1f\x8b" else held
        for secret in (NAME, "Mustermann", "4711-SECRET", SCRIPT, "<script"):
            assert secret.encode() not in plain


def test_each_user_of_the_proxy_has_jobs_of_their_own(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"no image at all")
    with Page(model, "--work", tmp_path / "work", "--proxy-user-header", "X-User") as page:
        assert page.ask("GET", "/api/service").status == 401
        assert page.ask("POST", "/api/jobs").status == 401
        assert page.ask("GET", "/api/service", x_user="").status == 401
        assert _twice(page, "X-User: bob\r\nX-User: ann") == 401
        job = page.send(text, x_user="ann")
        assert page.wait(job, x_user="ann")["state"] == "failed"
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/start"), ("GET", "/results/quality.html")):
            assert page.ask(method, f"/api/jobs/{job}{path}", x_user="bob").status == 404
        assert page.ask("PUT", f"/api/jobs/{job}/files/0", b"x", x_user="bob").status == 404
        assert page.show(job, x_user="ann")["state"] == "failed"


def _twice(page: Page, headers: str) -> int:
    with socket.create_connection(("127.0.0.1", page.port)) as line:
        line.sendall(f"GET /api/service HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n{headers}\r\n\r\n".encode())
        return int(line.recv(100).split()[1])


def test_a_token_is_shown_as_bearer_or_by_signing_in(model: Path, tmp_path: Path) -> None:
    token = tmp_path / "page.token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    token.chmod(0o600)
    with Page(model, "--work", tmp_path / "work", "--token-file", token) as page:
        assert page.ask("GET", "/api/service").status == 401
        assert page.ask("GET", "/api/service", authorization="Bearer wrong").status == 401
        assert page.ask("GET", "/api/service", authorization="Basic 0123456789abcdef0123456789abcdef").status == 401
        assert page.ask("GET", "/api/service", cookie="ucadi=0123456789abcdef0123456789abcdef").status == 401
        assert page.ask("GET", "/api/service", cookie="ucadi=é").status == 401
        bearer = "bearer 0123456789abcdef0123456789abcdef"
        assert page.ask("GET", "/api/service", authorization=bearer).status == 200
        sent_away = page.ask("GET", "/")
        assert (sent_away.status, sent_away.headers["location"]) == (303, "/sign-in")
        assert page.ask("GET", "/sign-in").status == 200
        refused = page.ask("POST", "/sign-in", b"token=wrong")
        assert refused.headers["location"] == "/sign-in?refused"
        assert "set-cookie" not in refused.headers
        signed = page.ask("POST", "/sign-in", b"token=0123456789abcdef0123456789abcdef")
        cookie = signed.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "0123456789abcdef" not in cookie
        held = cookie.partition(";")[0]
        assert page.ask("GET", "/", cookie=held).status == 200
        assert page.ask("GET", "/api/service", cookie=held).status == 200
        assert page.ask("GET", "/api/service", cookie=held[:-1]).status == 401


# the evaluation


def evaluated(folder: Path, *, temperature: bool) -> tuple[Path, Path]:
    """A model and the report of its evaluation."""
    weights = small_model(folder)
    test = write_dataset(folder / "test.h5", LABELS * 4)
    validation = write_dataset(folder / "validation.h5", LABELS * 3, first=50)
    predict(test, model=[weights], output=folder / "test.predictions")
    options: dict[str, Any] = {}
    if temperature:
        predict(validation, model=[weights], output=folder / "validation.predictions")
        options = {"validation": [folder / "validation.predictions"], "operating_point": "youden"}
    evaluate([folder / "test.predictions"], report=folder / "report", **options)
    return weights, folder / "report" / "report.json"


def test_a_model_with_an_evaluation_shows_its_operating_point(tmp_path: Path) -> None:
    weights, report = evaluated(tmp_path, temperature=True)
    document = json.loads(report.read_text())
    with Page(weights, "--calibration", report, "--work", tmp_path / "work", "--no-dicom") as page:
        assert page.ask("GET", "/api/service").json["operating_point"]["cases"] == 16
        job = page.send(chest(tmp_path / "chest"))
        page.wait(job)
        result = json.loads(page.result(job, "result.json"))
        page_text = page.result(job, "report.html").decode()
    assert result["no_dicom"] == "this server makes none"
    (figures,) = document["reports"].values()
    (details,) = document["details"].values()
    point = result["operating_point"]
    assert point["threshold"] == figures["test"]["threshold"]
    assert point["temperature"] == details["test"]["temperature"]
    assert point["ece"] == details["test"]["tempered"]["ece"]
    assert point["chosen"] == "youden"
    assert result["called"] == (result["probabilities"]["covid"] >= point["threshold"])
    # Guo et al. 2017: logits over the temperature
    powers = {label: p ** (1 / point["temperature"]) for label, p in result["probabilities"].items()}
    for label, power in powers.items():
        assert result["calibrated"][label] == pytest.approx(power / sum(powers.values()), rel=1e-6)
    assert "Calibrated at temperature" in page_text


def test_without_validation_cases_a_model_is_not_calibrated(tmp_path: Path) -> None:
    weights, report = evaluated(tmp_path, temperature=False)
    digest = json.loads(report.read_text())["provenance"]["models"].popitem()[1]
    point = operating_point.read(report, digest)
    assert (point.temperature, point.threshold, point.chosen) == (None, 0.5, "given")
    with pytest.raises(MismatchError, match="evaluates other models"):
        operating_point.read(report, "0" * 64)
    for broken in (
        b"",
        b"[]",
        b"{}",
        b'{"provenance": {"models": 3}}',
        report.read_bytes().replace(b'"temperature"', b'"t"'),
    ):
        path = tmp_path / "broken.json"
        path.write_bytes(broken)
        with pytest.raises(FormatError, match="not a report"):
            operating_point.read(path, digest)
    with pytest.raises(FormatError):
        operating_point.read(tmp_path / "absent", digest)
    with pytest.raises(MismatchError):
        serve(model=weights, calibration=_other(report, tmp_path), bind="127.0.0.1:0")


def _other(report: Path, folder: Path) -> Path:
    document = json.loads(report.read_text())
    document["provenance"]["models"] = dict.fromkeys(document["provenance"]["models"], "0" * 64)
    path = folder / "other.json"
    path.write_text(json.dumps(document))
    return path


# the description, and the shape


def test_the_openapi_description_is_valid_and_complete(page: Page, tmp_path: Path) -> None:
    document = page.ask("GET", "/api/openapi.json").json
    validate(document)
    described = {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if method != "parameters"
    }
    assert described == _routes()
    text = page.ask("GET", "/api").body.decode()
    for method, path in described:
        assert f"{method} {path}" in text
    job = page.send(chest(tmp_path / "chest", slices=12))
    schema = document["components"]["schemas"]
    assert set(page.wait(job)) <= set(schema["Job"]["properties"])
    assert set(page.ask("GET", "/api/service").json) == set(schema["Service"]["properties"])
    assert set(page.ask("GET", "/api/jobs/none").json) == set(schema["Error"]["properties"])


def _routes() -> set[tuple[str, str]]:
    listing = """
import inspect, json
from starlette.routing import Route
from ucadi.web.application import Page
page = Page.__new__(Page)
page._access = page._tell = None
print(json.dumps([(m, r.path) for r in page.application().routes if isinstance(r, Route) for m in r.methods]))
"""
    printed = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout
    return {
        (method, path.replace(":int", ""))
        for method, path in map(tuple, json.loads(printed))
        if path.startswith("/api/") and method != "HEAD"
    }


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_the_examples_with_curl_do_what_they_say(page: Page, tmp_path: Path) -> None:
    text = (ROOT / "docs/serve.md").read_text().partition("## With curl")[2].partition("## ")[0]
    told = [block.replace("http://127.0.0.1:8300", page.url) for block in re.findall(r"```sh\n(.*?)```", text, re.S)]
    send, fetch, folder = told
    zipped(chest(tmp_path / "series"), tmp_path / "scan.zip")

    def run(script: str) -> str:
        command = ["bash", "-ec", script]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    result = run(send.replace("cat job.json", "") + fetch.partition("curl -sS -X DELETE")[0])
    assert "probabilities" in result
    assert (tmp_path / "heatmap.nii.gz").read_bytes()[:2] == b"\x1f\x8b"
    job = json.loads((tmp_path / "job.json").read_text())["id"]
    assert page.ask("GET", f"/api/jobs/{job}").json["state"] == "done"
    run(send.partition("curl")[0] + f"JOB={job}\n" + fetch.splitlines()[-1])
    assert page.ask("GET", f"/api/jobs/{job}").status == 404
    started = run(send.partition("curl")[0] + folder).strip().splitlines()[-1]
    assert json.loads(started[started.rindex("{") :])["state"] in ("queued", "running")


@pytest.mark.usefixtures("done")
def test_what_listens_has_loaded_no_reader(page: Page) -> None:
    """After a job, the server's process has mapped neither torch nor HDF5, nor a decoder of images."""
    maps = Path(f"/proc/{page.process.pid}/maps").read_text()
    for library in ("torch", "h5py", "gdcm", "openjpeg", "jpegls", "PIL"):
        assert f"/{library}" not in maps.replace("site-packages/", "/"), library
    code = "import sys, ucadi.web.application; print(*{name.partition('.')[0] for name in sys.modules})"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "h5py", "pydicom", "nibabel", "PIL", "scipy", "sklearn", "matplotlib", "numpy"} & set(modules)


def test_the_viewer_is_the_one_that_was_published() -> None:
    import hashlib

    folder = ROOT / "ucadi/web/static/niivue"
    stated = (folder / "VENDORED.txt").read_text()
    assert hashlib.sha256((folder / "niivue.umd.js").read_bytes()).hexdigest() in stated
    assert "BSD 2-Clause" in (folder / "LICENSES.txt").read_text()


@pytest.mark.slow
def test_the_wheel_has_the_page(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "ucadi", source / "ucadi", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    static = ROOT / "ucadi/web/static"
    assert {f"ucadi/web/static/{p.relative_to(static)}" for p in static.rglob("*") if p.is_file()} <= held
