"""The store: which names there are, and that a file appears whole, once, on the disk, or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ucadi.identity import check_name
from ucadi.relay import protocol
from ucadi.relay.protocol import Code, Peer, RefusalError
from ucadi.relay.store import INCOMING, Entry, Incoming, Store

NAME = "rounds/0001/uploads/site-a.enc"
DATA = bytes(range(256)) * 100


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def receive(store: Store, name: str = NAME, data: bytes = DATA) -> Incoming:
    incoming = store.receive(name, len(data), sha256(data))
    assert incoming is not None
    return incoming


def refused(code: Code, text: str | None = None) -> pytest.RaisesExc[RefusalError]:
    return pytest.RaisesExc(RefusalError, match=text, check=lambda error: error.code == code)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


GOOD_NAMES = {
    "federation.json": None,
    "federation-0002.json": None,
    "rounds/0001/plan.json": None,
    "rounds/0001/sum.enc": None,
    "models/0012.weights": None,
    "rounds/0012/uploads/site-a.enc": "site-a",
    "rounds/0012/partials/a.partial": "a",
    "rounds/0012/metrics/site-b.json": "site-b",
}

BAD_NAMES = [
    "",
    ".",
    "..",
    "/etc/passwd",
    "../federation.json",
    "rounds/../federation.json",
    "rounds/0001/../../x.json",
    "rounds/0001/uploads/../plan.json",
    "rounds/0001//plan.json",
    "rounds/0001/plan.json/",
    "rounds/0001/plan.json\n",
    "rounds/0001/plan.json\0",
    "rounds/0001/.plan.json",
    "rounds/1/plan.json",
    "rounds/\u0660\u0660\u0660\u0661/plan.json",
    "rounds/0001/uploads/Site.enc",
    "rounds/0001/uploads/-a.enc",
    "rounds/0001/uploads/site-a",
    "rounds/0001/uploads/site-a.enc.enc",
    "rounds/0001/uploads/deeper/site-a.enc",
    "rounds/0001/elsewhere/site-a.enc",
    "rounds/0001/uploads\\site-a.enc",
    ".incoming/x.part",
    "models/" + "a" * 200 + ".weights",
    "models/abc.weights",
    "models/covid-2.1.weights",
    "models/0000.weights",
    "models/0001.enc",
    "rounds/0000/plan.json",
    "rounds/0000/uploads/site-a.enc",
    "rounds/0001/notes.txt",
    "rounds/0001/site-a.json",
    "rounds/0001/metrics/site-a.weights",
    "rounds/0001/opened/site-a.json",
    "rounds/0001/partials/site-a.enc",
    "rounds/0001/uploads/site-a.exe",
    "federation-0000.json",
    "federation-0001.weights",
    "C:/x.json",
]


@pytest.mark.parametrize(("name", "owner"), GOOD_NAMES.items())
def test_names_of_the_layout_have_an_owner(name: str, owner: str | None) -> None:
    assert protocol.is_name(name)
    assert Peer("coordinator", coordinator=True).may_put(name) == (owner is None)
    assert Peer("site-a", coordinator=False).may_put(name) == (owner == "site-a")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_other_names_are_refused_everywhere(name: str, store: Store) -> None:
    assert not protocol.is_name(name)
    assert not any(
        Peer("site-a", leads).may_put(name) or Peer("site-a", leads).may_get(name) for leads in (True, False)
    )
    assert store.find(name) is None
    with refused(Code.MISSING, "^there is no "):
        store.open(name)
    with refused(Code.MALFORMED, "not a name of the exchange directory's layout"):
        store.receive(name, 1, sha256(b"x"))
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "site-a", "0", "a" * 32])
def test_every_site_has_a_place(name: str) -> None:
    check_name(name)
    assert Peer(name, coordinator=False).may_put(f"rounds/0001/uploads/{name}.enc")


def test_a_file_appears_only_when_it_is_complete(store: Store) -> None:
    incoming = receive(store)
    incoming.append(DATA[:1000])
    assert store.names() == []
    incoming.append(DATA[1000:])
    assert store.names() == []
    incoming.publish()
    assert store.names() == [NAME]
    assert store.find(NAME) == Entry(NAME, len(DATA), sha256(DATA))
    assert (store.root / NAME).read_bytes() == DATA
    store.sweep()
    assert not (store.root / INCOMING).exists()


def test_an_empty_file_is_a_file(store: Store) -> None:
    receive(store, data=b"").publish()
    assert store.find(NAME) == Entry(NAME, 0, sha256(b""))


def test_everything_is_flushed_before_the_name_is_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[str, bool]] = []
    fsync = os.fsync

    def spy(handle: int) -> None:
        flushed.append((str(Path(f"/proc/self/fd/{handle}").readlink()), (store.root / NAME).exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    incoming = receive(store)
    incoming.append(DATA)
    incoming.publish()
    assert flushed[0][0].endswith(".part")
    assert not any(there for _, there in flushed[:-1])
    assert flushed[-1] == (str((store.root / NAME).parent), True)
    assert (str(store.root), False) in flushed  # the entry of the new folder `rounds`


def test_what_arrived_is_continued(store: Store) -> None:
    first = receive(store)
    first.append(DATA[:7777])
    first.suspend()
    second = receive(Store(store.root))
    assert second.received == 7777
    second.append(DATA[7777:])
    second.publish()
    assert (store.root / NAME).read_bytes() == DATA


def test_only_the_same_file_is_continued(store: Store) -> None:
    first = receive(store)
    first.append(DATA[:7777])
    first.suspend()
    assert receive(store, data=DATA[:-1]).received == 0
    assert receive(store, name="rounds/0001/uploads/site-b.enc").received == 0


def test_damage_in_what_was_kept_is_found(store: Store) -> None:
    first = receive(store)
    first.append(DATA[:1000])
    first.suspend()
    (part,) = (store.root / INCOMING).iterdir()
    part.write_bytes(b"?" * 1000)
    second = receive(store)
    second.append(DATA[1000:])
    with refused(Code.DIGEST):
        second.publish()
    assert store.names() == []
    assert receive(store).received == 0


def test_wrong_bytes_never_appear(store: Store) -> None:
    incoming = receive(store)
    incoming.append(DATA[::-1])
    with refused(Code.DIGEST, f"^{NAME}: the bytes that arrived have another SHA-256 than announced"):
        incoming.publish()
    incoming = receive(store)
    incoming.append(DATA[:-1])
    with refused(Code.MALFORMED, f"^{NAME}: more bytes than announced"):
        incoming.append(DATA[-1:] + b"!")
    assert store.names() == []


def test_fewer_bytes_than_announced_never_appear(store: Store) -> None:
    incoming = store.receive(NAME, len(DATA) + 1, sha256(DATA))
    assert incoming is not None
    incoming.append(DATA)
    with refused(Code.DIGEST):
        incoming.publish()
    assert list((store.root / INCOMING).iterdir()) == []
    assert store.names() == []


def test_the_same_file_twice_is_no_work_and_another_is_refused(store: Store) -> None:
    incoming = receive(store)
    incoming.append(DATA)
    incoming.publish()
    assert store.receive(NAME, len(DATA), sha256(DATA)) is None
    with refused(Code.EXISTS, f"^{NAME} is here already, with other content"):
        store.receive(NAME, 3, sha256(b"abc"))


def test_of_many_at_once_exactly_one_gets_the_name(store: Store) -> None:
    contents = [bytes([number]) * 5000 for number in range(8)]
    incoming = [receive(store, data=content) for content in contents]
    outcomes: list[str] = []
    barrier = threading.Barrier(len(contents))

    def publish(one: Incoming, content: bytes) -> None:
        one.append(content)
        barrier.wait()
        try:
            one.publish()
            outcomes.append("published")
        except RefusalError as refusal:
            outcomes.append(refusal.code)

    threads = [threading.Thread(target=publish, args=pair) for pair in zip(incoming, contents, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == sorted(["published", *[Code.EXISTS] * 7])
    assert (store.root / NAME).read_bytes() in contents


def test_two_senders_of_one_file_do_not_mix(store: Store) -> None:
    first = receive(store)
    before = open_files()
    with refused(Code.BUSY, "somebody else is sending this file"):
        receive(Store(store.root))
    assert open_files() == before
    first.suspend()
    receive(store).suspend()


def test_a_file_changed_in_place_has_a_new_digest(store: Store) -> None:
    (store.root / "federation.json").write_text("one")
    assert store.find("federation.json") == Entry("federation.json", 3, sha256(b"one"))
    (store.root / "federation.json").write_text("two!")
    assert store.find("federation.json") == Entry("federation.json", 4, sha256(b"two!"))


def test_only_the_layout_is_listed_and_links_are_not_followed(store: Store, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    (outside / "0001").mkdir(parents=True)
    (outside / "secret.json").write_text("secret")
    (outside / "0001" / "plan.json").write_text("secret")
    (store.root / "rounds" / "0002" / "private").mkdir(parents=True)
    (store.root / "rounds" / "0002" / "plan.json").write_text("plan")
    (store.root / "rounds" / "0002" / "private" / "site-a.enc").write_text("x")
    (store.root / "notes.txt").write_text("x")
    (store.root / "rounds" / "0001").symlink_to(outside / "0001")
    (store.root / "federation.json").symlink_to(outside / "secret.json")
    os.mkfifo(store.root / "rounds" / "0002" / "pipe.json")
    assert store.names() == ["rounds/0002/plan.json"]
    assert store.find("federation.json") is None
    assert store.find("rounds/0002/pipe.json") is None
    assert store.names("rounds/0002/plan.json") == ["rounds/0002/plan.json"]
    assert store.names("rounds/0003") == []


def test_what_nobody_continues_is_removed_in_time(store: Store) -> None:
    first = receive(store)
    first.append(DATA[:10])
    first.suspend()
    store.sweep()
    (part,) = (store.root / INCOMING).iterdir()
    os.utime(part, (0, 0))
    store.sweep()
    assert not part.exists()


def test_an_unfinished_file_has_a_week(store: Store) -> None:
    receive(store).suspend()
    (part,) = (store.root / INCOMING).iterdir()
    day = 24 * 3600
    for options, age, kept in (((), 6.9 * day, True), ((500,), 400, True), ((500,), 600, False)):
        os.utime(part, (time.time() - age,) * 2)
        store.sweep(*options)
        assert part.exists() is kept
    assert not part.parent.exists()
    receive(store).suspend()
    os.utime(part, (time.time() - 7.1 * day,) * 2)
    (part.parent / "notes").write_text("no part")
    store.sweep()
    assert [path.name for path in part.parent.iterdir()] == ["notes"]


def test_what_is_no_file_is_missing_and_nothing_stays_open(store: Store) -> None:
    (store.root / NAME).mkdir(parents=True)
    os.mkfifo(store.root / "federation.json")
    (store.root / "models").write_text("a file where a folder should be")
    (store.root / "federation-0002.json").symlink_to("federation-0003.json")
    (store.root / "federation-0003.json").write_text("{}")
    before = open_files()
    for name in (NAME, "federation.json", "models/a.weights", "federation-0002.json", "rounds/0009/plan.json"):
        with refused(Code.MISSING, f"^there is no {name}$"):
            store.open(name)
        assert store.find(name) is None
    assert store.find("federation-0003.json") == Entry("federation-0003.json", 2, sha256(b"{}"))
    assert open_files() == before
    assert store.names() == ["federation-0003.json"]
    assert store.names("federation-0002.json") == store.names("federation-0009.json") == store.names("models") == []


def test_a_digest_that_is_known_is_not_computed_again(store: Store) -> None:
    path = store.root / "federation.json"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        store.remember("federation.json", file.fileno(), "f" * 64)
    assert store.find("federation.json") == Entry("federation.json", len(DATA), "f" * 64)
    os.utime(path, (1, 1))
    assert store.find("federation.json") == Entry("federation.json", len(DATA), sha256(DATA))
    published = receive(store)
    published.append(DATA)
    published.publish()
    with (store.root / NAME).open("r+b") as file:
        file.write(b"!")
    assert store.find(NAME) == Entry(NAME, len(DATA), sha256(b"!" + DATA[1:]))


def test_a_prefix_is_whole_steps(store: Store) -> None:
    for name in ("rounds/0002/plan.json", "rounds/0001/plan.json", NAME, "federation.json"):
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (store.root / name).write_text("x")
    first = ["rounds/0001/plan.json", NAME]
    assert store.names() == ["federation.json", *first, "rounds/0002/plan.json"]
    assert store.names("rounds/0001") == first
    assert store.names("rounds/0001/uploads") == [NAME]
    assert store.names("rounds/00") == []


def test_a_file_of_many_blocks_has_its_digest(store: Store) -> None:
    data = os.urandom((1 << 20) * 2 + 12345)
    (store.root / "federation.json").write_bytes(data)
    assert store.find("federation.json") == Entry("federation.json", len(data), sha256(data))


def test_room_is_needed_for_what_is_still_to_come(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with 1000 bytes left."""
    first = store.receive(NAME, 1500, sha256(DATA))
    assert first is not None
    first.append(DATA[:500])
    first.suspend()
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=10, f_frsize=100))
    before = open_files()
    again = store.receive(NAME, 1500, sha256(DATA))
    assert again is not None
    assert again.received == 500
    again.discard()
    with refused(Code.DISK_FULL, "^no room for 1,001 bytes$"):
        store.receive(NAME, 1001, sha256(DATA))
    assert open_files() == before
    assert list((store.root / INCOMING).iterdir()) == []


def test_a_disk_that_fills_up_keeps_nothing(store: Store) -> None:
    """Beyond the size of files that this process may write."""
    incoming = receive(store)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        incoming.append(DATA[:9000])
        with refused(Code.DISK_FULL, f"^{NAME}: File too large"):
            incoming.append(DATA[9000:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((store.root / INCOMING).iterdir()) == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        incoming.append(b"x")
    incoming.suspend()
    incoming.discard()


def test_more_than_there_may_be_is_begun_anew(store: Store) -> None:
    receive(store).suspend()
    (part,) = (store.root / INCOMING).iterdir()
    for size, received in ((len(DATA), len(DATA)), (len(DATA) + 1, 0)):
        part.write_bytes((DATA + b"!")[:size])
        incoming = receive(store)
        assert incoming.received == received
        incoming.append(DATA[received:])
        incoming.suspend()
        assert part.read_bytes() == DATA


def test_a_link_in_the_place_of_a_part_is_not_followed(store: Store, tmp_path: Path) -> None:
    receive(store).suspend()
    (part,) = (store.root / INCOMING).iterdir()
    part.unlink()
    (tmp_path / "outside").write_text("precious")
    part.symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"):
        receive(store)
    assert (tmp_path / "outside").read_text() == "precious"


def test_the_same_file_from_another_process_is_as_good(store: Store) -> None:
    incoming = receive(store)
    incoming.append(DATA)
    (store.root / NAME).parent.mkdir(parents=True)
    (store.root / NAME).write_bytes(DATA)
    before = open_files()
    incoming.publish()
    assert open_files() == before - 1
    assert store.find(NAME) == Entry(NAME, len(DATA), sha256(DATA))
    assert list((store.root / INCOMING).iterdir()) == []


def test_another_file_from_another_process_stays(store: Store) -> None:
    incoming = receive(store)
    incoming.append(DATA)
    (store.root / NAME).parent.mkdir(parents=True)
    (store.root / NAME).write_bytes(b"other")
    with refused(Code.EXISTS, f"^{NAME} is here already, with other content"):
        incoming.publish()
    assert store.find(NAME) == Entry(NAME, 5, sha256(b"other"))
    assert list((store.root / INCOMING).iterdir()) == []


def test_a_published_file_may_be_read_by_all_and_written_by_its_owner(store: Store) -> None:
    incoming = receive(store)
    incoming.append(memoryview(DATA))
    incoming.publish()
    mask = os.umask(0)
    os.umask(mask)
    assert (store.root / NAME).stat().st_mode & 0o777 == 0o644 & ~mask


def test_a_large_file_goes_to_the_disk_while_it_comes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 16 MiB, and never the same bytes twice."""
    asked: list[tuple[int, int, int]] = []
    advise = os.posix_fadvise

    def spy(handle: int, *arguments: int) -> None:
        asked.append(arguments)  # type: ignore[arg-type]
        advise(handle, *arguments)

    monkeypatch.setattr(os, "posix_fadvise", spy)
    incoming = receive(store, data=bytes(40 << 20))
    for _ in range(10):
        incoming.append(bytes(4 << 20))
    incoming.suspend()
    block, advice = 16 << 20, os.POSIX_FADV_DONTNEED
    assert asked == [(0, block, advice), (block, block, advice)]


def test_a_part_that_vanishes_does_not_end_the_sweep(store: Store) -> None:
    """A link to nothing is as a part that somebody publishes meanwhile."""
    for site in ("site-a", "site-b"):
        receive(store, name=f"rounds/0001/uploads/{site}.enc").suspend()
    first, last = sorted((store.root / INCOMING).iterdir())
    for gone, old in ((first, last), (last, first)):
        gone.unlink(missing_ok=True)
        gone.symlink_to("nothing")
        old.unlink(missing_ok=True)
        old.write_bytes(b"")
        os.utime(old, (0, 0))
        store.sweep()
        assert not old.exists()


def test_a_link_in_the_place_of_what_arrived_is_not_published(store: Store, tmp_path: Path) -> None:
    incoming = receive(store)
    incoming.append(DATA)
    (part,) = (store.root / INCOMING).iterdir()
    part.unlink()
    (tmp_path / "outside").write_bytes(b"secret")
    part.symlink_to(tmp_path / "outside")
    incoming.publish()
    assert store.names() == []
    assert store.find(NAME) is None
    assert (tmp_path / "outside").stat().st_nlink == 1


def test_what_cannot_be_published_is_closed(store: Store) -> None:
    (store.root / "rounds").write_text("a file where a folder should be")
    before = open_files()
    for wrong, error in (("folder", NotADirectoryError), ("part", FileNotFoundError)):
        incoming = receive(store)
        incoming.append(DATA)
        if wrong == "part":
            (store.root / "rounds").unlink()
            next((store.root / INCOMING).iterdir()).unlink()
        with pytest.raises(error):
            incoming.publish()
        assert list((store.root / INCOMING).iterdir()) == []
        assert open_files() == before


def test_what_was_published_is_not_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    incoming = receive(store)
    incoming.append(DATA)
    incoming.publish()
    read: list[int] = []
    monkeypatch.setattr(os, "pread", lambda *arguments: read.append(arguments[0]))
    assert store.find(NAME) == Entry(NAME, len(DATA), sha256(DATA))
    assert read == []


def test_a_part_that_goes_before_it_is_locked_is_begun_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever held it publishes it between our open and our lock."""
    receive(store).suspend()
    (part,) = (store.root / INCOMING).iterdir()
    lock, taken = fcntl.flock, []

    def slow_lock(handle: int, operation: int) -> None:
        if len(taken) < 2:
            part.unlink()
        if len(taken) == 1:
            part.write_bytes(b"of another")
        taken.append(handle)
        lock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", slow_lock)
    before = open_files()
    incoming = receive(store)
    assert len(taken) == 3
    assert incoming.received == len(b"of another")
    assert open_files() == before + 1
