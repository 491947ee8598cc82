"""What goes wrong on purpose: processes are killed, lines cut, peers lie, crowd in, or fill the disk."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from relays import Proxy, Relayed, incoming_bytes, make_relayed, random_file, wait_until

from ucadi.errors import RelayError
from ucadi.kinds import Kind, Maker, Place
from ucadi.relay import protocol
from ucadi.relay.broker import Broker
from ucadi.relay.desk import RelayLimits
from ucadi.relay.protocol import CHUNK, Chunk, Done, Entries, File, Get, Hello, List, Peer, Put, Refuse, Want
from ucadi.relay.sockets import client_socket, server_socket
from ucadi.relay.store import Store

LARGE = 60_000_000


@pytest.fixture
def relayed(tmp_path: Path) -> Iterator[Relayed]:
    relayed = make_relayed(tmp_path)
    relayed.start()
    yield relayed
    if relayed.process.is_running:
        relayed.process.kill()


def upload(site: str) -> str:
    return f"rounds/0001/uploads/{site}.enc"


def announce(file: Path, name: str, request: int = 1) -> Put:
    return Put(request, name, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


# kill -9


def test_an_upload_outlives_its_relay(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", LARGE)
    pusher = relayed.push_process("site-a", file, upload("site-a"))
    wait_until(lambda: incoming_bytes(relayed.exchange) > 3_000_000)
    relayed.process.kill()
    arrived = incoming_bytes(relayed.exchange)
    assert 3_000_000 < arrived < LARGE
    relayed.start(relayed.process.port)
    assert "sent" in pusher.communicate(timeout=60)[0]
    assert relayed.process.wait_for("receiving")["from"] == arrived
    assert (relayed.exchange / upload("site-a")).read_bytes() == file.read_bytes()


def test_a_download_outlives_the_relay(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(relayed.exchange / "rounds" / "0001" / "sum.enc", LARGE)
    here = tmp_path / "here"
    here.mkdir()
    puller = relayed.pull_process("site-a", here)
    wait_until(lambda: incoming_bytes(here) > 3_000_000)
    relayed.restart()
    assert "3 fetched" in puller.communicate(timeout=60)[0]
    assert (here / "rounds" / "0001" / "sum.enc").read_bytes() == file.read_bytes()


def test_an_upload_outlives_its_client(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", LARGE)
    pusher = relayed.push_process("site-a", file, upload("site-a"))
    wait_until(lambda: incoming_bytes(relayed.exchange) > 3_000_000)
    pusher.kill()
    pusher.communicate(timeout=10)
    assert not (relayed.exchange / upload("site-a")).exists()
    arrived = incoming_bytes(relayed.exchange)
    with relayed.client("site-a") as client:  # the relay may still believe in the connection of the dead
        assert client.put({upload("site-a"): file}) == (upload("site-a"),)
    assert [event["from"] for event in relayed.process.events if event["event"] == "receiving"][-1] >= arrived
    assert (relayed.exchange / upload("site-a")).read_bytes() == file.read_bytes()


def test_a_download_outlives_its_client(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(relayed.exchange / "rounds" / "0001" / "sum.enc", LARGE)
    here = tmp_path / "here"
    here.mkdir()
    puller = relayed.pull_process("site-a", here)
    wait_until(lambda: incoming_bytes(here) > 3_000_000)
    puller.kill()
    puller.communicate(timeout=10)
    arrived = incoming_bytes(here)
    assert arrived < LARGE
    assert "here already" in relayed.pull_process("site-a", here).communicate(timeout=60)[0]
    assert (here / "rounds" / "0001" / "sum.enc").read_bytes() == file.read_bytes()


# the line


@pytest.mark.parametrize("seed", range(3))
def test_a_line_that_is_cut_again_and_again(relayed: Relayed, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    cuts = [rng.randrange(1, 2_500_000) for _ in range(6)]
    left = cuts[:1]
    lock = threading.Lock()

    def cut(size: int) -> bool:
        with lock:
            if not cuts:
                return True
            left[0] -= size
            if left[0] > 0:
                return True
            cuts.pop(0)
            left[:] = cuts[:1]
            return False

    file = random_file(tmp_path / "file", 5_000_000, seed)
    here = tmp_path / "here"
    here.mkdir()
    with Proxy(relayed.process.port, cut) as proxy:
        with relayed.client("site-a", proxy.address) as client:
            client.put({upload("site-a"): file})
        with relayed.client("coordinator", proxy.address) as client:
            client.get(client.entries(), Store(here))
    assert proxy.connections >= 8 - len(cuts)
    assert not cuts
    assert (here / upload("site-a")).read_bytes() == file.read_bytes()


def test_a_slow_line_takes_its_time_and_no_more(relayed: Relayed, tmp_path: Path) -> None:
    def slow(size: int) -> bool:
        time.sleep(size / 500_000)
        return True

    file = random_file(tmp_path / "file", 1_000_000)
    begun = time.monotonic()
    with Proxy(relayed.process.port, slow) as proxy, relayed.client("site-a", proxy.address, patience=1.5) as client:
        client.put({upload("site-a"): file})
    assert 1.9 < time.monotonic() - begun < 10
    assert (relayed.exchange / upload("site-a")).read_bytes() == file.read_bytes()


def test_a_dead_line_is_given_up_after_no_progress(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", 4_000_000)
    passed = [0]

    def die(size: int) -> bool:
        passed[0] += size
        return passed[0] < 1_000_000

    with (
        Proxy(relayed.process.port, die) as proxy,
        relayed.client("site-a", proxy.address, patience=2) as client,
        pytest.raises(RelayError, match="no progress"),
    ):
        client.put({upload("site-a"): file})
    assert not (relayed.exchange / upload("site-a")).exists()
    with relayed.client("site-a") as client:
        client.put({upload("site-a"): file})


# peers that do not keep to the protocol


def test_chunks_twice_and_in_another_order(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", 4 * CHUNK)
    data = file.read_bytes()
    rng = random.Random(0)
    with relayed.raw("site-a") as peer:
        put = announce(file, upload("site-a"))
        peer.say(put)
        for _ in range(100):
            wants: list[Want] = []
            while not wants or not peer.is_silent(0.1):
                message = peer.hear()
                if isinstance(message, Done):
                    assert (relayed.exchange / upload("site-a")).read_bytes() == data
                    return
                assert isinstance(message, Want)
                wants.append(message)
            twice = wants * 2
            rng.shuffle(twice)
            for want in twice:
                peer.say(Chunk(1, want.offset, data[want.offset : want.offset + want.length]))
    raise AssertionError("it never ended")


def test_chunks_nobody_asked_for_change_nothing(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", 3 * CHUNK)
    data = file.read_bytes()
    with relayed.raw("site-a") as peer:
        peer.say(Chunk(7, 0, data[:CHUNK]))
        assert peer.hear() == Refuse(7, "gone", "no such transfer is under way: begin it again")
        peer.say(announce(file, upload("site-a")))
        wants = [peer.hear() for _ in range(3)]
        for offset, size in [(1, CHUNK), (0, 10), (0, 10), (3 * CHUNK, 5), (CHUNK, CHUNK), (1 << 52, 1)]:
            peer.say(Chunk(1, offset, data[offset : offset + size] or b"x" * size))
        assert not (relayed.exchange / upload("site-a")).exists()
        while not isinstance(message := wants.pop(0) if wants else peer.hear(), Done):
            assert isinstance(message, Want)
            peer.say(Chunk(1, message.offset, data[message.offset : message.offset + message.length]))
    assert (relayed.exchange / upload("site-a")).read_bytes() == data


def test_wrong_bytes_are_refused_and_not_kept(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", 1000)
    with relayed.raw("site-a") as peer:
        peer.say(announce(file, upload("site-a")))
        assert peer.hear() == Want(1, 0, 1000)
        peer.say(Chunk(1, 0, bytes(1000)))
        refusal = peer.hear()
        assert isinstance(refusal, Refuse)
        assert refusal.code == "digest"
    assert incoming_bytes(relayed.exchange) == 0
    assert not (relayed.exchange / upload("site-a")).exists()


def header(**fields: object) -> bytes:
    return json.dumps(fields).encode()


TAG = f"{protocol.VERSION} ".encode()
PUT = {"request": 1, "name": upload("site-a"), "size": 10, "digest": "0" * 64}
MALFORMED = {
    "nothing": [b""],
    "one part": [TAG + b"hello"],
    "another protocol": [b"ucadi-relay/2 hello", header(request=1)],
    "an unknown kind": [TAG + b"delete", header(request=1)],
    "no JSON": [TAG + b"hello", b"\xff\xfe"],
    "deep JSON": [TAG + b"hello", b"[" * 900],
    "a list": [TAG + b"hello", b"[1]"],
    "a field too few": [TAG + b"hello", b"{}"],
    "a field too many": [TAG + b"hello", header(request=1, more=2)],
    "another type": [TAG + b"hello", header(request="1")],
    "true for a number": [TAG + b"hello", header(request=True)],
    "a real number": [TAG + b"hello", header(request=1.5)],
    "not a number": [TAG + b"hello", b'{"request":NaN}'],
    "a negative size": [TAG + b"put", header(**PUT | {"size": -1})],
    "a huge number": [TAG + b"put", b'{"request":1,"size":' + b"9" * 800 + b"}"],
    "no digest": [TAG + b"put", header(**PUT | {"digest": "g" * 64})],
    "a name that climbs": [TAG + b"put", header(**PUT | {"name": "rounds/0001/uploads/../../../x.json"})],
    "an absolute name": [TAG + b"get", header(request=1, name="/etc/passwd")],
    "a hidden name": [TAG + b"get", header(request=1, name=".incoming/x.part")],
    "a prefix that climbs": [TAG + b"list", header(request=1, prefix="rounds/..", after="")],
    "a long header": [TAG + b"hello", header(request=1) + b" " * 2000],
    "data where none belongs": [TAG + b"hello", header(request=1), b"data"],
    "no data where some belongs": [TAG + b"chunk", header(request=1, offset=0)],
    "what only a relay says": [TAG + b"done", header(request=1), b""],
    "four parts": [TAG + b"hello", header(request=1), b"", b""],
    "ten thousand parts": [b"x"] * 10_000,
}


def test_what_cannot_be_understood_is_refused_and_harms_nobody(relayed: Relayed) -> None:
    with relayed.raw("site-a") as peer:
        for what, frames in MALFORMED.items():
            peer.say_frames(frames)
            refusal = peer.hear()
            assert isinstance(refusal, Refuse), what
            assert (refusal.request, refusal.code) == (0, "malformed"), what
            time.sleep(0.01)
    with relayed.client("site-b") as client:
        assert len(client.entries()) == 2
    assert relayed.process.is_running


def test_a_frame_that_is_too_large_ends_the_connection_only_of_its_sender(relayed: Relayed) -> None:
    with relayed.client("site-b") as good:
        good.entries()
        before = relayed.process.peak_memory
        for _ in range(3):
            with relayed.raw("site-a") as peer:
                peer.say(Hello(1))
                peer.hear()
                peer.say_frames([bytes(50_000_000)])
                peer.say(Hello(2))
                assert peer.is_silent(0.5)
        assert relayed.process.peak_memory - before < 5_000_000
        assert len(good.entries()) == 2


def test_a_message_without_end_does_not_fill_the_memory(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", 3_000_000)
    with relayed.raw("site-a") as peer:
        peer.say(Hello(1))
        peer.hear()
        part = bytes(CHUNK)
        for _ in range(6000):  # 1.5 GB
            peer.socket.send(part, zmq.SNDMORE)
        peer.socket.send(b"")
        relayed.process.wait_for("connections ended", why="memory")
        with relayed.client("site-b") as client:
            client.put({upload("site-b"): file})
    assert relayed.process.peak_memory < 1_200_000_000
    assert relayed.process.is_running


def test_a_name_on_a_connection_is_no_identity(relayed: Relayed, tmp_path: Path) -> None:
    """Another member cannot continue, end or hear a transfer by taking its connection's routing id."""
    file = random_file(tmp_path / "file", 3 * CHUNK)
    data = file.read_bytes()
    with relayed.raw("site-a", b"victim") as victim:
        victim.say(announce(file, upload("site-a")))
        wants = [victim.hear() for _ in range(3)]
        with relayed.raw("site-b", b"victim") as thief:
            thief.say(Chunk(1, 0, bytes(CHUNK)))
            thief.say(announce(file, upload("site-a")))
            assert thief.is_silent(0.5)  # the id is taken, so the relay does not hear this connection at all
        for want in wants:
            assert isinstance(want, Want)
            victim.say(Chunk(1, want.offset, data[want.offset : want.offset + want.length]))
        assert victim.hear() == Done(1)
    with relayed.raw("site-b", b"victim") as thief:  # and now that it is free again, it brings no rights
        thief.say(announce(file, upload("site-a")))
        refusal = thief.hear()
        assert isinstance(refusal, Refuse)
        assert refusal.code == "forbidden"


def test_credit_cannot_be_exceeded(relayed: Relayed) -> None:
    random_file(relayed.exchange / "rounds" / "0001" / "sum.enc", 40 * CHUNK)
    with relayed.raw("site-a") as peer:
        peer.say(Get(1, "rounds/0001/sum.enc"))
        assert isinstance(peer.hear(), File)
        peer.say(Want(1, 40 * CHUNK, 1))
        assert isinstance(peer.hear(), Refuse)
        peer.say(Want(1, 0, 1))
        refusal = peer.hear()
        assert isinstance(refusal, Refuse)
        assert refusal.code == "gone"


def test_too_many_requests_are_slowed_down(relayed: Relayed) -> None:
    with relayed.raw("site-a") as peer:
        for number in range(1, 901):
            peer.say(Hello(number))
        answers = [peer.hear() for _ in range(900)]
        slowed = [answer for answer in answers if isinstance(answer, Refuse)]
        assert {refusal.code for refusal in slowed} == {"slow-down"}
        assert 100 < len(slowed) < 501
    with relayed.client("site-b") as client:
        client.entries()


def test_a_round_cannot_be_filled(relayed: Relayed, tmp_path: Path) -> None:
    """A site has one file of each kind in a round; no name beside them is taken, nor one of the coordinator."""
    file = random_file(tmp_path / "file", 10)
    own = sorted(Place(kind, 1, "site-a").name for kind in Kind if kind.maker is Maker.SITE)
    for name in own:
        other = f"{name.rpartition('.')[0]}.exe"
        with relayed.client("site-a") as client, pytest.raises(RelayError, match="a Put with a wrong name"):
            client.put({other: file})
    for name in ("rounds/0001/notes.txt", "rounds/0000/plan.json", "models/old.weights"):
        with relayed.client("coordinator") as client, pytest.raises(RelayError, match="a Put with a wrong name"):
            client.put({name: file})
    assert Store(relayed.exchange).names("rounds") == ["rounds/0001/plan.json"]
    with relayed.client("site-a") as client:
        assert client.put(dict.fromkeys(own, file)) == tuple(own)
    folders = (relayed.exchange / "rounds", relayed.exchange / "consents")
    assert sum(path.is_file() for folder in folders for path in folder.rglob("*")) == 1 + len(own)
    for name in ("consents/site-a-0002.json", "rounds/0002/uploads/site-a.enc"):
        with relayed.client("site-a") as client, pytest.raises(RelayError, match="which is not here"):
            client.put({name: file})


def test_lists_are_whole_however_long(relayed: Relayed) -> None:
    models = relayed.exchange / "models"
    models.mkdir()
    for number in range(1, 2 * protocol.MAX_PAGE + 2):
        (models / f"{number:04}.weights").write_text(str(number))
    with relayed.client("site-a") as client:
        entries = client.entries("models")
    assert [entry.name for entry in entries] == [f"models/{number:04}.weights" for number in range(1, 1002)]
    with relayed.raw("site-a") as peer:
        peer.say(List(1, "", ""))
        page = peer.hear()
        assert isinstance(page, Entries)
        assert page.more


# who gets in


def test_without_a_handler_nobody_is_served(relayed: Relayed) -> None:
    relay, site = relayed.keys("relay"), relayed.keys("site-a")
    with zmq.Context() as context:
        router = server_socket(context, relay.transport)
        router.bind("tcp://127.0.0.1:0")
        dealer = client_socket(context, site.transport, site.public.transport, relay.public.transport)
        dealer.connect(router.getsockopt(zmq.LAST_ENDPOINT))
        dealer.send_multipart(protocol.encode(Hello(1)))
        try:
            assert not router.poll(1000)
        finally:
            dealer.close(linger=0)
            router.close(linger=0)


def test_without_encryption_nobody_is_served(relayed: Relayed) -> None:
    with zmq.Context() as context:
        dealer = context.socket(zmq.DEALER)
        dealer.connect(relayed.address)
        dealer.send_multipart(protocol.encode(Hello(1)))
        try:
            assert not dealer.poll(1000)
        finally:
            dealer.close(linger=0)


def test_a_crowd_at_the_door_does_not_keep_members_out(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", 5_000_000)
    crowd = []
    for number in range(200):
        idler = socket.create_connection(("127.0.0.1", relayed.process.port))
        if number % 2:
            idler.sendall(random.Random(number).randbytes(100))
        crowd.append(idler)
    try:
        with relayed.client("site-a") as client:
            begun = time.monotonic()
            client.put({upload("site-a"): file})
            assert time.monotonic() - begun < 10
    finally:
        for idler in crowd:
            idler.close()
    assert relayed.process.peak_memory < 150_000_000


def test_beyond_so_many_connections_members_wait(tmp_path: Path) -> None:
    relayed = make_relayed(tmp_path)
    peers = {relayed.keys(site).public.transport: Peer(site, coordinator=False) for site in relayed.sites}
    secret = relayed.keys("relay").transport
    with Broker(Store(relayed.exchange), secret, lambda: peers, limits=RelayLimits(connections=2)) as broker:
        address = broker.bind("tcp://127.0.0.1:0")
        serving = in_thread(broker.run)
        try:
            with relayed.client("site-a", address) as one, relayed.client("site-b", address) as two:
                one.entries()
                two.entries()
                with (
                    relayed.client("site-c", address, patience=1) as three,
                    pytest.raises(RelayError, match="too many"),
                ):
                    three.entries()
            with relayed.client("site-c", address) as three:
                assert len(three.entries()) == 2
        finally:
            broker.stop()
            serving.join()


def test_a_relay_within_a_large_process_counts_only_its_own_memory(tmp_path: Path) -> None:
    relayed = make_relayed(tmp_path)
    peers = {relayed.keys("site-a").public.transport: Peer("site-a", coordinator=False)}
    secret, events = relayed.keys("relay").transport, list[str]()
    others = b"\1" * (RelayLimits().memory_bytes + 50_000_000)
    with Broker(
        Store(relayed.exchange), secret, lambda: peers, log=lambda event, _fields: events.append(event)
    ) as broker:
        address = broker.bind("tcp://127.0.0.1:0")
        serving = in_thread(broker.run)
        try:
            with relayed.client("site-a", address) as client:
                client.put({upload("site-a"): random_file(tmp_path / "file", 3 * CHUNK)})
        finally:
            broker.stop()
            serving.join()
    assert len(others) > RelayLimits().memory_bytes
    assert events == ["receiving", "received"]


def test_idle_transfers_are_dropped_and_can_be_continued(tmp_path: Path) -> None:
    relayed = make_relayed(tmp_path)
    peers = {relayed.keys("site-a").public.transport: Peer("site-a", coordinator=False)}
    file = random_file(tmp_path / "file", 3 * CHUNK)
    data = file.read_bytes()
    secret, limits = relayed.keys("relay").transport, RelayLimits(idle_seconds=3.0)
    with Broker(Store(relayed.exchange), secret, lambda: peers, limits=limits) as broker:
        address = broker.bind("tcp://127.0.0.1:0")
        serving = in_thread(broker.run)
        try:
            with relayed.raw("site-a", address=address) as peer:
                peer.say(announce(file, upload("site-a")))
                assert [peer.hear() for _ in range(3)] == [Want(1, offset, CHUNK) for offset in (0, CHUNK, 2 * CHUNK)]
                peer.say(Chunk(1, 0, data[:CHUNK]))
                assert peer.hear() == Refuse(1, "idle", "nothing came for too long; it can be continued")
                peer.say(announce(file, upload("site-a"), request=2))
                assert peer.hear() == Want(2, CHUNK, CHUNK)
        finally:
            broker.stop()
            serving.join()
    assert incoming_bytes(relayed.exchange) == CHUNK


# the disk


def test_a_full_disk_is_a_clear_refusal_and_the_relay_lives_on(tmp_path: Path) -> None:
    relayed = make_relayed(tmp_path)
    relayed.start(file_bytes=2_000_000)  # beyond this size of a file, its disk is full
    large, small = random_file(tmp_path / "large", 5_000_000), random_file(tmp_path / "small", 1_000_000)
    with relayed.client("site-a") as client:
        with pytest.raises(RelayError, match="File too large") as refusal:
            client.put({upload("site-a"): large})
        assert refusal.value.hint is not None
        assert "make room" in refusal.value.hint
        assert incoming_bytes(relayed.exchange) == 0
        client.put({upload("site-a"): small})
    assert (relayed.exchange / upload("site-a")).read_bytes() == small.read_bytes()
    relayed.process.kill()


def test_a_file_beyond_the_disk_is_refused_before_it_is_sent(relayed: Relayed) -> None:
    with relayed.raw("site-a") as peer:
        peer.say(Put(1, upload("site-a"), protocol.MAX_FILE + 1, "0" * 64))
        refusal = peer.hear()
        assert isinstance(refusal, Refuse)
        assert refusal.code == "too-large"


def test_a_file_that_changes_while_it_is_sent_is_not_taken(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", 20_000_000)

    def slow(size: int) -> bool:
        time.sleep(size / 20_000_000)
        return True

    with Proxy(relayed.process.port, slow) as proxy, relayed.client("site-a", proxy.address) as client:

        def change() -> None:
            wait_until(lambda: incoming_bytes(relayed.exchange) > 2_000_000)
            with file.open("r+b") as handle:
                handle.seek(19_000_000)
                handle.write(b"changed")

        changing = in_thread(change)
        with pytest.raises(RelayError, match="another SHA-256 than announced") as refusal:
            client.put({upload("site-a"): file})
        changing.join()
    assert refusal.value.hint is not None
    assert "changed while it was sent" in refusal.value.hint
    assert not (relayed.exchange / upload("site-a")).exists()
