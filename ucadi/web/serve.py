"""ucadi serve."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ucadi import filetypes, units
from ucadi._version import __version__
from ucadi.errors import OutputError, UsageError
from ucadi.events import Events
from ucadi.files import read_secret
from ucadi.parts import Feature, require

if TYPE_CHECKING:
    from ucadi.web.gate import Access
    from ucadi.web.settings import Settings

LEAST_TOKEN = 32
"""Fewest characters of a token: 128 random bits in hex."""

_NEEDED = (
    Feature.PAGE,
    Feature.NETWORKS,
    Feature.DATASETS,
    Feature.SCANS,
    Feature.PICTURES,
    Feature.PLOTS,
    Feature.HEATMAP_OBJECTS,
)
"""By the server and its workers."""

_LOCK = "ucadi-serve.lock"
"""The file that marks a work folder as one."""

_LOCK_SECONDS = 20.0


@dataclass(frozen=True)
class ServeResult:
    """What a server did until it was stopped: jobs done, failed, removed."""

    address: str
    done: int
    failed: int
    removed: int

    def __str__(self) -> str:
        return f"{self.address} stopped: {self.done} jobs done, {self.failed} failed, {self.removed} removed"


def serve(
    *,
    model: Annotated[Path, typer.Option(help="Model weights to serve.")],
    calibration: Annotated[
        Path | None, typer.Option(help="report.json of ucadi evaluate: operating point and temperature.")
    ] = None,
    bind: Annotated[str, typer.Option(help="ADDRESS:PORT to listen at; port 0 for any.")] = "127.0.0.1:8300",
    work: Annotated[
        Path | None, typer.Option(help="Private folder for queue, uploads and results [default: MODEL with .serve].")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the secret that users must show; needed beyond loopback.")
    ] = None,
    proxy_user_header: Annotated[
        str | None, typer.Option(help="Header in which an authenticating proxy names the user: each sees own jobs.")
    ] = None,
    host_name: Annotated[
        list[str] | None, typer.Option(help="Another name that the page is known by, NAME or NAME:PORT (repeatable).")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file, for HTTPS; with --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    keep: Annotated[float, units.time("24h", "1s", "Remove results after this time.", bare="h")] = 86400.0,
    max_size: Annotated[float, units.size("2GB", "1kB", "Largest upload.")] = 2e9,
    memory: Annotated[float, units.size("8GB", "100MB", "Memory that a job may take.")] = 8e9,
    max_time: Annotated[float, units.time("30m", "0.05s", "Time that a job may take.")] = 1800.0,
    min_slices: Annotated[int, typer.Option(help="Refuse shorter series.", min=2, max=10_000)] = 40,
    dicom: Annotated[
        bool, typer.Option(help="Also make the heatmap's DICOM objects, which take most of a job's time and room.")
    ] = True,
    as_json: bool = False,
) -> ServeResult:
    """Serve the diagnosis page: upload a chest CT, get probabilities and a heatmap.

    Research only, not for clinical use. One job at a time, from a queue that outlives the server. Uploads are read in a
    process of their own, within limits of memory and time. Ends on SIGTERM or SIGINT; a job that was under way is done
    again by the next server. What happens is told in lines on stderr; with --json, in lines of JSON on stdout.

    Example:
        ucadi serve --model base.weights --bind 127.0.0.1:8300
    """
    require(*_NEEDED)
    import uvicorn

    from ucadi.labels import NOTICE
    from ucadi.web.application import Page, limits
    from ucadi.web.jobs import Queue
    from ucadi.web.runner import Runner
    from ucadi.web.settings import Settings

    _check_tls(tls_certificate, tls_key)
    token = None if token_file is None else read_token(token_file)
    address, port = _parsed(bind)
    if not ipaddress.ip_address(address).is_loopback and token is None:
        raise UsageError(
            f"--bind {bind}: not without a token",
            hint="openssl rand -hex 32 > page.token; chmod 600 page.token; then --token-file page.token",
        )
    folder = (model.with_suffix(".serve") if work is None else work).absolute()
    settings = Settings(
        model=model.absolute(),
        calibration=None if calibration is None else calibration.absolute(),
        work=folder,
        upload_bytes=int(max_size),
        memory_bytes=int(memory),
        seconds=max_time,
        keep_seconds=keep,
        min_slices=min_slices,
        dicom=dicom,
    )
    service = {
        "version": __version__,
        "notice": NOTICE,
        "token_needed": token is not None,
        **_described(settings),
        "limits": limits(settings),
    }
    events = Events(as_json=as_json)
    with (
        _private_files(),
        _claimed(folder) as lock,
        closing(Queue(folder / "queue.sqlite")) as queue,
        _listening(address, port) as listener,
    ):
        for part in (folder / "jobs").glob("*/upload/*.part"):
            part.unlink()
        access = _access(listener, address, host_name or [], token, proxy_user_header)
        runner = Runner(queue, settings, events, lock)
        page = Page(settings, queue, runner, access, service, events)
        url = f"{'https' if tls_certificate else 'http'}://{_shown(address, listener.getsockname()[1])}"
        events("listening", {"address": url, "model": service["model"]["sha256"][:8]})
        config = uvicorn.Config(
            page.application(),
            ssl_certfile=tls_certificate,
            ssl_keyfile=tls_key,
            http="h11",
            ws="none",
            log_config=None,
            log_level="critical",  # its lines name addresses and paths
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=64,
            h11_max_incomplete_event_size=1 << 14,  # of a request's head
            timeout_graceful_shutdown=3,
        )
        with _ended_by_signals():
            uvicorn.Server(config).run(sockets=[listener])
    return ServeResult(url, events.counts["done"], events.counts["failed"], events.counts["removed"])


def read_token(path: Path) -> str:
    """The secret in a file. Raises UsageError for a short one, SignatureError where others can read it, FormatError for
    what is no token."""
    if not path.exists():
        raise UsageError(f"{path}: no token can be read from it", hint="openssl rand -hex 32 makes one")
    token = read_secret(path, "token", "a token (a line of 32 letters and digits or more)")
    if len(token) < LEAST_TOKEN or not token.isascii():
        raise UsageError(f"{path}: a token has {LEAST_TOKEN} characters or more", hint="openssl rand -hex 32")
    return token


def _check_tls(certificate: Path | None, key: Path | None) -> None:
    if (certificate is None) != (key is None):
        raise UsageError("--tls-certificate and --tls-key belong together")
    if certificate is None:
        return
    for path in (certificate, key):
        if path is not None and path.exists() and not path.is_file():  # the library would wait for a pipe
            raise UsageError(
                f"--tls-certificate and --tls-key: {path} is {filetypes.describe(path)}, not a PEM file",
                hint="name the file",
            )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:  # SSLError is one
        raise UsageError(
            f"--tls-certificate {certificate}, --tls-key {key}: {error.strerror}",
            hint="two PEM files: the certificate with those that sign it, and its key",
        ) from None


def _described(settings: Settings) -> dict[str, Any]:
    """The model, and what is known of it. Raises FormatError or MismatchError now rather than in every job."""
    from ucadi.formats import operating_point, weights

    held = weights.read(settings.model)
    point = None if settings.calibration is None else operating_point.read(settings.calibration, held.digest)
    return {
        "model": {"sha256": held.digest, "architecture": held.architecture, "trained": "seed" not in held.origin},
        "operating_point": None if point is None else asdict(point),
    }


def _parsed(bind: str) -> tuple[str, int]:
    address, _, port = bind.rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(address)
        if 0 <= int(port) < 1 << 16:
            return address, int(port)
        raise ValueError
    except ValueError:
        raise UsageError(f"--bind {bind}: not ADDRESS:PORT", hint="for instance 127.0.0.1:8300 or [::1]:8300") from None


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@contextmanager
def _private_files() -> Iterator[None]:
    """What is written meanwhile is for this user alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _listening(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=128)
    except OSError as error:
        raise UsageError(f"--bind {_shown(address, port)}: {error.strerror}", hint="choose another port") from None


def _access(
    listener: socket.socket, address: str, names: list[str], token: str | None, user_header: str | None
) -> Access:
    from ucadi.web.gate import Access

    port = listener.getsockname()[1]
    own = {address, "localhost", "127.0.0.1", "::1"}
    hosts = {name.lower() for name in names} | {_shown(name, port) for name in own}
    return Access(frozenset(hosts), token, user_header.lower() if user_header else None)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """uvicorn ends on SIGTERM and SIGINT, and then raises them again for whoever was to hear them before: nobody."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _claimed(folder: Path) -> Iterator[int]:
    """Makes the work folder, and marks it as used by this server: a descriptor that holds its lock.

    A folder with other things in it is refused, as a server makes its folder private and removes jobs it does not know.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / _LOCK).is_file():
            raise OutputError(f"{folder}: holds other things", hint="give --work a folder of its own, new or empty")
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}", hint="give --work a folder that can be written to") from None
    try:
        _wait_for(handle, folder)
        folder.chmod(0o700)
        (folder / "jobs").mkdir(mode=0o700, exist_ok=True)
        yield handle
    finally:
        os.close(handle)


def _wait_for(lock: int, folder: Path) -> None:
    """Takes the lock. The worker of a server that was killed holds it until it has noticed, for less than a second."""
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise OutputError(f"{folder}: another server uses it", hint="give each its own --work") from None
            time.sleep(0.1)
