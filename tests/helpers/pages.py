"""The diagnosis page for tests: a real `ucadi serve` in a process of its own, asked over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from series import save, series

from ucadi.commands.init import init

SERVE = "from ucadi.cli import main; main()"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Page:
    """A server; `events` are what it has told so far, `told` all that it has written."""

    def __init__(self, model: Path, *options: str | Path, port: int = 0, **environment: str) -> None:
        arguments = ["serve", "--model", model, "--bind", f"127.0.0.1:{port}", "--json", *options]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        )
        self.told: list[str] = []
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url: str = self.wait_for("listening")["address"]
        self.port = int(self.url.rpartition(":")[2])

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(line)
            with contextlib.suppress(json.JSONDecodeError):
                self.events.append(json.loads(line))

    def wait_for(self, event: str, seconds: float = 60.0) -> dict[str, Any]:
        """The first event of that name."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for told in list(self.events):
                if told.get("event") == event:
                    return told
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no {event}: {''.join(self.told)}")

    def ask(self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str) -> Answer:
        """One request; `sec_fetch_site="none"` is the header Sec-Fetch-Site."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
                connection.request(method, path, body, named)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def send(self, scan: Path, diagnosis: str = "", **headers: str) -> str:
        """Sends a scan, a file by itself or a folder's files one by one; the job's id."""
        jobs = f"/api/jobs?diagnosis={diagnosis}" if diagnosis else "/api/jobs"
        if scan.is_file():
            answer = self.ask("POST", jobs, scan.read_bytes(), **headers)
            assert answer.status == 201, answer
            return str(answer.json["id"])
        job = str(self.ask("POST", jobs, **headers).json["id"])
        for number, file in enumerate(sorted(scan.iterdir())):
            assert self.ask("PUT", f"/api/jobs/{job}/files/{number}", file.read_bytes(), **headers).status == 204
        assert self.ask("POST", f"/api/jobs/{job}/start", **headers).status == 202
        return job

    def show(self, job: str, **headers: str) -> dict[str, Any]:
        answer = self.ask("GET", f"/api/jobs/{job}", **headers)
        assert answer.status == 200, answer
        return dict(answer.json)

    def wait(self, job: str, *states: str, seconds: float = 120.0, **headers: str) -> dict[str, Any]:
        """The job once it is in one of these states, by default once it is over and its upload is removed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            shown = self.show(job, **headers)
            over = shown["state"] in ("done", "failed") and self._has_told_all(job)
            if shown["state"] in states or (over and not states):
                return shown
            time.sleep(0.05)
        raise AssertionError(f"{shown} after {seconds} s: {''.join(self.told)}")

    def _has_told_all(self, job: str) -> bool:
        """Whether a job that this server began is told to be over, which comes last."""
        last = [event["event"] for event in list(self.events) if event.get("job") == job[:8]][-1:]
        return last != ["running"]

    def result(self, job: str, name: str, **headers: str) -> bytes:
        answer = self.ask("GET", f"/api/jobs/{job}/results/{name}", **headers)
        assert answer.status == 200, answer
        return answer.body

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self._end()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._end()

    def _end(self) -> int:
        code = self.process.wait(timeout=30)
        self._reader.join(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.terminate()


def small_model(folder: Path) -> Path:
    """The initial weights of a network that answers at once."""
    path = folder / "small.weights"
    init(seed=1, width=2, size=16, output=path)
    return path


def chest(folder: Path, slices: int = 48, **elements: Any) -> Path:
    """A folder of DICOM files that is as good as a chest to a network that is not trained."""
    return save(folder, series(slices, **elements))


def zipped(folder: Path, path: Path) -> Path:
    """A zip file of a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{folder.name}/{file.name}")
    return path


def nifti(path: Path, slices: int = 44) -> Path:
    """A NIfTI file with air and tissue."""
    import nibabel

    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 300, (20, 24, slices)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([2.0, 2.0, 2.5, 1.0])), path)  # type: ignore[no-untyped-call]
    return path


def named(folder: Path, slices: int = 48) -> Path:
    """A scan whose every text names somebody."""
    datasets = series(slices)
    for dataset in datasets:
        dataset.PatientName, dataset.PatientID = NAME, "4711-SECRET"
        dataset.InstitutionName = dataset.Manufacturer = SCRIPT
        dataset.ManufacturerModelName, dataset.ConvolutionKernel = SCRIPT, SCRIPT[:16]
    return save(folder, datasets)


NAME = "Mustermann^Erika"
SCRIPT = '<script>document.title="owned"</script>'


def sequence_of(items: int, path: Path) -> Path:
    """A DICOM file whose private sequence has that many items, each with an element."""
    dataset = series(1)[0]
    dataset.add_new((0x0009, 0x1010), "SQ", [])
    dataset.save_as(path, enforce_file_format=True)
    item = b"\xfe\xff\x00\xe0" + (10).to_bytes(4, "little") + b"\x09\x00\x10\x00LO\x02\x00AB"
    body = item * items
    head = b"\x09\x00\x10\x10SQ\x00\x00"
    before, after = path.read_bytes().split(head + bytes(4))
    path.write_bytes(before + head + len(body).to_bytes(4, "little") + body + after)
    return path
