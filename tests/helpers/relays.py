"""A relay and its sites for tests: real processes, real sockets on 127.0.0.1, and a line that can be cut or slowed."""

from __future__ import annotations

import json
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from ucadi.commands.keygen import keygen
from ucadi.commands.roster import roster_create
from ucadi.formats import keys as key_format
from ucadi.identity import PublicKeys, SecretKeys
from ucadi.relay import protocol
from ucadi.relay.client import Client
from ucadi.relay.protocol import Message
from ucadi.relay.sockets import client_socket

SERVE = """
import resource, sys
from pathlib import Path
from ucadi.commands.relay_serve import relay_serve
exchange, key, bind, file_bytes = sys.argv[1:]
if int(file_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes), int(file_bytes)))
print(relay_serve(Path(exchange), key=Path(key), bind=bind, as_json=True), file=sys.stderr)
"""

PUSH = """
import sys
from pathlib import Path
from ucadi.commands.push import push
file, name, relay, card, key = sys.argv[1:]
print(push([Path(file)], names=[name], relay=relay, relay_card=Path(card), key=Path(key)))
"""

PULL = """
import sys
from pathlib import Path
from ucadi.commands.pull import pull
exchange, relay, card, key = sys.argv[1:]
print(pull(exchange=Path(exchange), relay=relay, relay_card=Path(card), key=Path(key)))
"""


class RelayProcess:
    """A relay in a process of its own; `events` are what it has told so far."""

    def __init__(self, exchange: Path, key: Path, port: int = 0, *, file_bytes: int = 0) -> None:
        command = [sys.executable, "-c", SERVE, str(exchange), str(key), f"tcp://127.0.0.1:{port}", str(file_bytes)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = self.wait_for("listening")["address"]
        self.port = int(self.address.rpartition(":")[2])

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.events.extend(map(json.loads, self._process.stdout))

    def wait_for(self, event: str, seconds: float = 30.0, **fields: object) -> dict[str, Any]:
        """The first event of that name and fields; AssertionError if it does not happen in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for told in list(self.events):
                if told["event"] == event and fields.items() <= told.items():
                    return told
            if self._process.poll() is not None:
                break
            time.sleep(0.01)
        errors = self._process.stderr.read() if self._process.poll() is not None and self._process.stderr else ""
        raise AssertionError(f"no {event} {fields} in {self.events} {errors}")

    @property
    def peak_memory(self) -> int:
        """The most memory that it ever had resident, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._end()

    def terminate(self) -> tuple[int, str]:
        """SIGTERM; the exit code and what it said last."""
        self._process.send_signal(signal.SIGTERM)
        return self._end()

    def _end(self) -> tuple[int, str]:
        self._process.wait(timeout=20)
        self._reader.join(timeout=20)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        said = self._process.stderr.read()
        self._process.stdout.close()
        self._process.stderr.close()
        return self._process.returncode, said


@dataclass
class Relayed:
    """A federation whose relay keeps `exchange`; `start` and `restart` run it, at the same port."""

    folder: Path
    sites: tuple[str, ...]
    process: RelayProcess = field(init=False)

    @property
    def exchange(self) -> Path:
        return self.folder / "exchange"

    @property
    def card(self) -> Path:
        return self.folder / "relay.card"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def keys(self, name: str) -> SecretKeys:
        return key_format.read_key(self.key(name))

    @property
    def relay_keys(self) -> PublicKeys:
        return key_format.read_card(self.card).keys

    @property
    def address(self) -> str:
        return self.process.address

    def start(self, port: int = 0, **options: int) -> RelayProcess:
        self.process = RelayProcess(self.exchange, self.key("relay"), port, **options)
        return self.process

    def restart(self) -> RelayProcess:
        self.process.kill()
        return self.start(self.process.port)

    def client(self, name: str, address: str | None = None, *, patience: float = 30.0) -> Client:
        return Client(address or self.address, self.relay_keys, self.keys(name), patience=patience)

    def push_process(self, site: str, file: Path, name: str) -> subprocess.Popen[str]:
        paths = [str(file), name, self.address, str(self.card), str(self.key(site))]
        return subprocess.Popen(
            [sys.executable, "-c", PUSH, *paths], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def pull_process(self, site: str, exchange: Path) -> subprocess.Popen[str]:
        paths = [str(exchange), self.address, str(self.card), str(self.key(site))]
        return subprocess.Popen(
            [sys.executable, "-c", PULL, *paths], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    @contextmanager
    def raw(self, site: str, routing_id: bytes | None = None, address: str | None = None) -> Iterator[RawPeer]:
        """A peer with the site's key that says whatever the test wants."""
        keys = self.keys(site)
        with zmq.Context() as context:
            dealer = client_socket(context, keys.transport, keys.public.transport, self.relay_keys.transport)
            if routing_id is not None:
                dealer.setsockopt(zmq.ROUTING_ID, routing_id)
            events = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            dealer.connect(address or self.address)
            # A handshake that a busy machine cuts short is begun anew, and takes along what was sent before.
            events.poll(HANDSHAKE_MS)
            dealer.disable_monitor()
            events.close()
            try:
                yield RawPeer(dealer)
            finally:
                dealer.close(linger=0)


HANDSHAKE_MS = 10_000
"""How long a raw peer waits to be let in before it speaks all the same."""


@dataclass
class RawPeer:
    """A DEALER socket with a valid key and no manners."""

    socket: zmq.Socket[bytes]

    def say(self, message: Message) -> None:
        self.socket.send_multipart(protocol.encode(message))

    def say_frames(self, frames: Sequence[bytes]) -> None:
        self.socket.send_multipart(frames)

    def hear(self, seconds: float = 10.0) -> Message:
        """The next message; AssertionError if there is none in time."""
        assert self.socket.poll(int(1000 * seconds)), "the relay is silent"
        return protocol.parse([memoryview(frame) for frame in self.socket.recv_multipart()])

    def is_silent(self, seconds: float) -> bool:
        return not self.socket.poll(int(1000 * seconds))


def make_relayed(folder: Path, sites: Sequence[str] = ("site-a", "site-b", "site-c")) -> Relayed:
    """Keys, roster and an exchange directory with an open round 1 (the relay never looks into its plan)."""
    for name in ("relay", "coordinator", *sites):
        keygen(name, output=folder)
    relayed = Relayed(folder, tuple(sites))
    (relayed.exchange / "rounds" / "0001").mkdir(parents=True)
    (relayed.exchange / "rounds" / "0001" / "plan.json").write_text("a plan\n")
    roster_create(
        [folder / f"{site}.card" for site in sites],
        federation="test",
        key=folder / "coordinator.key",
        output=relayed.exchange / "federation.json",
        minimum_sites=2,
        mode="members",
    )
    return relayed


class Proxy:
    """A line to `port` on this machine that `shape` may cut or slow down.

    `shape` is called with the bytes about to pass on a connection; it returns whether they may, and may sleep.
    """

    def __init__(self, port: int, shape: Callable[[int], bool]) -> None:
        self._port = port
        self._shape = shape
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        self._stopping = threading.Event()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=10)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                if not select.select([self._listener], [], [], 0.1)[0]:
                    continue
                near, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._relay, args=(near,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _relay(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as far:
            other = {near: far, far: near}
            while not self._stopping.is_set():
                for ready in select.select([near, far], [], [], 0.1)[0]:
                    data = ready.recv(16384)
                    if not data or not self._shape(len(data)):
                        return
                    other[ready].sendall(data)


def random_file(path: Path, size: int, seed: int = 0) -> Path:
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns when the condition is true; AssertionError if it is not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(0.005)


def incoming_bytes(exchange: Path) -> int:
    """Bytes of unfinished files."""
    sizes = []
    for part in (exchange / ".incoming").glob("*.part"):
        with suppress(FileNotFoundError):
            sizes.append(part.stat().st_size)
    return sum(sizes)
