"""Measures the relay on this machine: many sites at once, then one stream beside plain TCP and bare ZeroMQ.

    python examples/benchmark_relay.py [--sites 200] [--megabytes 250] [--folder DIR]

Everything runs on the loopback, senders and receivers in processes of their own. TCP and bare ZeroMQ move
bytes from memory to nowhere; the relay reads a file, encrypts, checks its SHA-256, flushes it to the disk
and publishes it, so the disk under --folder is part of what is measured. Medians of several runs, each of which
measures everything in turn, since the load of a machine changes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from ucadi.commands.keygen import keygen
from ucadi.commands.roster import roster_create
from ucadi.formats import keys as key_format
from ucadi.relay.client import Client
from ucadi.relay.protocol import CHUNK, CREDIT
from ucadi.relay.store import Store

RUNS = 5
SITE_BYTES = 3_000_000
ADDRESS = "127.0.0.1"
BARE = f"bare ZeroMQ with CURVE, {CHUNK // 1000} KB, credit {CREDIT}, memory to memory"

SERVE = """
import sys
from pathlib import Path
from ucadi.commands.relay_serve import relay_serve
relay_serve(Path(sys.argv[1]), key=Path(sys.argv[2]), bind="tcp://127.0.0.1:0", as_json=True)
"""


def main() -> None:
    """Prints a table in Markdown."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sites", type=int, default=200)
    options.add_argument("--megabytes", type=int, default=250)
    options.add_argument("--folder", type=Path, default=None)
    chosen = options.parse_args()
    size = chosen.megabytes * 1_000_000
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}; Python {platform.python_version()}, libzmq {zmq.zmq_version()}")
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        many_sites(Path(name), chosen.sites)
        one_stream(Path(name), size)


def one_stream(folder: Path, size: int) -> None:
    """One large file, by all ways in turn, several times over."""
    relay = Relay(folder / "stream", ["site-a", "site-b"])
    source = folder / "source"
    source.write_bytes(os.urandom(size))

    def put(number: int) -> None:
        with relay.client("site-a") as client:
            client.put({f"rounds/0001/uploads/site-a.{'x' * number}": source})

    def get(number: int) -> None:
        here = folder / f"here{number}"
        here.mkdir()
        with relay.client("site-a") as client:
            client.get([entry for entry in client.entries() if entry.name.endswith(".x")], Store(here))

    ways: dict[str, Callable[[int], object]] = {
        "plain TCP, memory to memory": lambda _: stream(tcp_sink, tcp_source, size),
        BARE: lambda _: stream(curve_sink, curve_source, size),
        "this disk: write, fsync": lambda _: write_durably(folder / "disk", size),
        "relay, put: hash, read, send, write, hash, fsync": put,
        "relay, get: read, send, write, hash, fsync": get,
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    burden: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(1, RUNS + 1):
        for way, action in ways.items():
            begun, busy = time.perf_counter(), relay.processor_seconds()
            own = action(number)
            rates[way].append(size / 1e6 / (own if isinstance(own, float) else time.perf_counter() - begun))
            burden[way].append((relay.processor_seconds() - busy) / size * 1e9)
    relay.stop()
    print(
        f"\n| one stream of {size / 1e6:.0f} MB | MB/s | of bare ZeroMQ | relay's processor, s/GB |\n|---|---|---|---|"
    )
    for way in ways:
        share = statistics.median(rate / bare for rate, bare in zip(rates[way], rates[BARE], strict=True))
        seconds = f"{statistics.median(burden[way]):.1f}" if way.startswith("relay") else ""
        print(f"| {way} | {statistics.median(rates[way]):.0f} | {share:.2f} | {seconds} |")


def write_durably(path: Path, size: int) -> None:
    """Writes `size` bytes and waits for the disk."""
    block = os.urandom(CHUNK)
    with path.open("wb") as file:
        for _ in range(size // CHUNK):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def stream(sink: Callable[..., None], source: Callable[..., None], size: int) -> float:
    """Seconds that `source` takes to send `size` bytes to `sink`, each in a process of its own."""
    near, far = multiprocessing.Pipe()
    receiver = multiprocessing.Process(target=sink, args=(far, size))
    receiver.start()
    sender = multiprocessing.Process(target=source, args=(near.recv(), size))
    sender.start()
    seconds: float = near.recv()
    sender.join()
    receiver.join()
    return seconds


def tcp_sink(pipe: multiprocessing.connection.Connection, size: int) -> None:
    """Receives, and tells how long it took from the first byte."""
    with socket.create_server((ADDRESS, 0)) as listener:
        pipe.send(listener.getsockname()[1])
        connection, _ = listener.accept()
        buffer, begun = bytearray(CHUNK), time.perf_counter()
        while size > 0:
            size -= connection.recv_into(buffer)
        pipe.send(time.perf_counter() - begun)
        connection.close()


def tcp_source(port: int, size: int) -> None:
    """Sends."""
    block = os.urandom(CHUNK)
    with socket.create_connection((ADDRESS, port)) as connection:
        for _ in range(size // CHUNK):
            connection.sendall(block)


def curve_sink(pipe: multiprocessing.connection.Connection, size: int) -> None:
    """Asks for chunks, so many at a time, and tells how long it took from the first request."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        public, secret = zmq.curve_keypair()
        router.curve_server, router.curve_secretkey = True, secret
        port = router.bind_to_random_port(f"tcp://{ADDRESS}")
        pipe.send((port, public))
        peer, _ = router.recv_multipart()
        begun = time.perf_counter()
        for _ in range(CREDIT):
            router.send_multipart([peer, b"next"])
        while size > 0:
            size -= len(router.recv_multipart(copy=False)[1].buffer)
            router.send_multipart([peer, b"next" if size > 0 else b"end"])
        pipe.send(time.perf_counter() - begun)
        router.close(linger=1000)


def curve_source(where: tuple[int, bytes], size: int) -> None:
    """Answers every request with a chunk."""
    port, server = where
    block = os.urandom(CHUNK)
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.curve_publickey, dealer.curve_secretkey = zmq.curve_keypair()
        dealer.curve_serverkey = server
        dealer.connect(f"tcp://{ADDRESS}:{port}")
        dealer.send(b"begin")
        while dealer.recv() == b"next":
            if size > 0:
                dealer.send(block)
                size -= CHUNK
        dealer.close(linger=0)


class Relay:
    """A relay for a federation of `sites`, in a process of its own."""

    def __init__(self, folder: Path, sites: list[str]) -> None:
        self.folder, self.exchange = folder, folder / "exchange"
        (self.exchange / "rounds" / "0001").mkdir(parents=True)
        (self.exchange / "rounds" / "0001" / "plan.json").write_text("plan\n")
        for name in ("relay", "coordinator", *sites):
            keygen(name, output=folder)
        roster_create(
            [folder / f"{site}.card" for site in sites],
            federation="benchmark",
            key=folder / "coordinator.key",
            output=self.exchange / "federation.json",
            minimum_sites=2,
            mode="members",
        )
        command = [sys.executable, "-c", SERVE, str(self.exchange), str(folder / "relay.key")]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        told = (json.loads(line) for line in self._process.stdout)
        self.address = next(event["address"] for event in told if event["event"] == "listening")
        threading.Thread(target=lambda: list(told), daemon=True).start()

    def client(self, site: str) -> Client:
        """A site's access."""
        card = key_format.read_card(self.folder / "relay.card").keys
        return Client(self.address, card, key_format.read_key(self.folder / f"{site}.key"))

    def status(self, field: str) -> int:
        """`VmHWM` (peak memory) and the like, in bytes."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(field)))

    def processor_seconds(self) -> float:
        """Processor time that it has used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()


def many_sites(folder: Path, count: int) -> None:
    """Many sites put a file each at the same moment, from a few processes."""
    sites = [f"site-{number:03}" for number in range(count)]
    folder = folder / "crowd"
    relay = Relay(folder, sites)
    before, busy = relay.status("VmRSS"), relay.processor_seconds()
    ready, done = multiprocessing.Barrier(5), multiprocessing.Queue()
    crowd = [
        multiprocessing.Process(target=send_all, args=(folder, relay.address, sites[part::4], ready, done))
        for part in range(4)
    ]
    for process in crowd:
        process.start()
    ready.wait()
    begun = time.perf_counter()
    for _ in sites:
        done.get()
    seconds = time.perf_counter() - begun
    for process in crowd:
        process.join()
    store = Store(relay.exchange)
    lost = sum(store.find(f"rounds/0001/uploads/{site}.enc") is None for site in sites)
    print(f"\n| {count} sites put {SITE_BYTES / 1e6:.0f} MB each at once | |\n|---|---|")
    print(f"| lost | {lost} |")
    print(f"| seconds until the last is durable | {seconds:.2f} |")
    print(f"| relay's processor, s | {relay.processor_seconds() - busy:.2f} |")
    print(f"| MB/s, all together | {count * SITE_BYTES / 1e6 / seconds:.0f} |")
    print(f"| relay's memory, MB: at the start, at its peak | {before / 1e6:.0f}, {relay.status('VmHWM') / 1e6:.0f} |")
    relay.stop()


def send_all(folder: Path, address: str, sites: list[str], ready, done) -> None:  # type: ignore[no-untyped-def]
    """Puts the files of several sites, each over a connection of its own, all at once."""
    card = key_format.read_card(folder / "relay.card").keys
    files = {}
    for site in sites:
        files[site] = folder / f"{site}.enc"
        files[site].write_bytes(os.urandom(SITE_BYTES))

    def send(site: str) -> None:
        with Client(address, card, key_format.read_key(folder / f"{site}.key")) as client:
            client.put({f"rounds/0001/uploads/{site}.enc": files[site]})
        done.put(site)

    threads = [threading.Thread(target=send, args=(site,)) for site in sites]
    ready.wait()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
