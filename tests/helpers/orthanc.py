"""A real archive for tests: Orthanc of Debian on free ports of this machine, in a folder of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path("/usr/sbin/Orthanc")
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

IS_INSTALLED = PROGRAM.exists() and DICOMWEB.exists()
WHY_NOT = "no Orthanc: apt-get install orthanc orthanc-dicomweb"


@dataclass(frozen=True)
class Orthanc:
    """A running archive. `web` and `node` are its addresses as ucadi takes them."""

    web: str
    node: str

    def ask(self, path: str) -> Any:
        """An answer of its own interface, which is neither DICOMweb nor the DICOM protocol."""
        request = urllib.request.Request(self.web.replace("/dicom-web", path))
        request.add_header("Authorization", "Basic dWNhZGk6c2VjcmV0")  # ucadi:secret
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)


@contextmanager
def running(folder: Path) -> Iterator[Orthanc]:
    """Starts an archive that lets in ucadi with the password secret, and ends it by its own process."""
    folder.mkdir(parents=True)
    web_port, dicom_port = _free_ports()
    config = {
        "Name": "TEST",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [str(DICOMWEB)],
        "HttpPort": web_port,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {"ucadi": "secret"},
        "DicomPort": dicom_port,
        "DicomAet": "TEST",
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen([PROGRAM, folder / "orthanc.json"], stdout=log, stderr=subprocess.STDOUT)
    archive = Orthanc(f"http://127.0.0.1:{web_port}/dicom-web", f"dicom://TEST@127.0.0.1:{dicom_port}")
    try:
        _wait(archive, process, folder / "log.txt")
        yield archive
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _wait(archive: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            archive.ask("/system")
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"Orthanc does not start: {log.read_text()[-2000:]}")
