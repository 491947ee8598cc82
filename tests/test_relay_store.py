"""The store: which names there are, and that a file appears whole, once, on the disk, or not at all."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

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


def refused(code: Code) -> pytest.RaisesExc[RefusalError]:
    return pytest.RaisesExc(RefusalError, check=lambda error: error.code == code)


GOOD_NAMES = {
    "federation.json": None,
    "federation-0002.json": None,
    "rounds/0001/plan.json": None,
    "rounds/0001/aggregate.enc": None,
    "models/covid-2.1.weights": None,
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
    "C:/x.json",
]


@pytest.mark.parametrize(("name", "owner"), GOOD_NAMES.items())
def test_names_of_the_layout_have_an_owner(name: str, owner: str | None) -> None:
    assert protocol.is_name(name)
    assert protocol.owner_of(name) == owner
    assert Peer("coordinator", coordinator=True).may_put(name) == (owner is None)
    assert Peer("site-a", coordinator=False).may_put(name) == (owner == "site-a")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_other_names_are_refused_everywhere(name: str, store: Store) -> None:
    assert not protocol.is_name(name)
    assert store.find(name) is None
    with refused(Code.MISSING):
        store.open(name)
    with refused(Code.MALFORMED):
        store.receive(name, 1, sha256(b"x"))
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "site-a", "0", "a" * 32])
def test_every_site_has_a_place(name: str) -> None:
    check_name(name)
    assert protocol.owner_of(f"rounds/0001/uploads/{name}.enc") == name


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
    with refused(Code.DIGEST):
        incoming.publish()
    incoming = receive(store)
    with refused(Code.MALFORMED):
        incoming.append(DATA + b"!")
    assert store.names() == []


def test_the_same_file_twice_is_no_work_and_another_is_refused(store: Store) -> None:
    incoming = receive(store)
    incoming.append(DATA)
    incoming.publish()
    assert store.receive(NAME, len(DATA), sha256(DATA)) is None
    with refused(Code.EXISTS):
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
    with refused(Code.BUSY):
        receive(Store(store.root))
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
