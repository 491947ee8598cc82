"""The relay as its users meet it: push, pull, wait and relay serve, in real processes over real sockets."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from relays import Relayed, make_relayed, random_file
from zmq.utils import z85

from ucadi.commands.keygen import keygen
from ucadi.commands.pull import pull
from ucadi.commands.push import push
from ucadi.commands.relay_serve import relay_serve
from ucadi.commands.roster import roster_add, roster_create, roster_remove
from ucadi.commands.wait import wait
from ucadi.errors import FormatError, MismatchError, OutputError, RelayError, UsageError
from ucadi.identity import SecretKeys
from ucadi.relay.client import Client
from ucadi.relay.store import Store


@pytest.fixture
def relayed(tmp_path: Path) -> Iterator[Relayed]:
    relayed = make_relayed(tmp_path)
    relayed.start()
    yield relayed
    if relayed.process.is_running:
        relayed.process.kill()


def line(relayed: Relayed, name: str) -> dict[str, Path | str]:
    return {"relay": relayed.address, "relay_card": relayed.card, "key": relayed.key(name)}


def upload(site: str) -> str:
    return f"rounds/0001/uploads/{site}.enc"


def test_the_transport_key_is_the_one_that_curve_derives() -> None:
    keys = SecretKeys.generate("site-a")
    assert z85.decode(zmq.curve_public(z85.encode(keys.transport))) == keys.public.transport


def test_a_site_s_upload_reaches_the_coordinator(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(tmp_path / "a.enc", 2_600_001)
    sent = push([file], names=[upload("site-a")], **line(relayed, "site-a"))
    assert sent.sent == (upload("site-a"),)
    assert (relayed.exchange / upload("site-a")).read_bytes() == file.read_bytes()
    here = tmp_path / "here"
    here.mkdir()
    result = pull(exchange=here, **line(relayed, "coordinator"))
    assert result.fetched == ("federation.json", "rounds/0001/plan.json", upload("site-a"))
    assert (here / upload("site-a")).read_bytes() == file.read_bytes()
    assert sorted(path.name for path in here.iterdir()) == ["federation.json", "rounds"]
    assert pull(exchange=here, **line(relayed, "coordinator")).present == 3


def test_a_site_s_upload_is_not_for_other_sites(relayed: Relayed, tmp_path: Path) -> None:
    """In members mode a member could open it."""
    push([random_file(tmp_path / "a.enc", 1000)], names=[upload("site-a")], **line(relayed, "site-a"))
    (tmp_path / "b").mkdir()
    assert upload("site-a") not in pull(exchange=tmp_path / "b", **line(relayed, "site-b")).fetched
    with relayed.client("site-a") as client:
        (entry,) = client.entries("rounds/0001/uploads")  # its own it may have back
    with relayed.client("site-b") as client:
        assert client.entries("rounds/0001/uploads") == []
        with pytest.raises(RelayError, match="is not for site-b"):
            client.get([entry], Store(tmp_path / "b"))
    assert not (tmp_path / "b" / upload("site-a")).exists()


def test_a_directory_is_pushed_and_parts_of_it_pulled(relayed: Relayed, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(relayed.exchange, mine)
    for name in (
        "uploads/site-a.enc",
        "uploads/site-b.enc",
        "metrics/site-a.json",
        "sum.enc",
        "times.json",
        "notes.txt",
    ):
        path = mine / "rounds" / "0001" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    own = ("rounds/0001/metrics/site-a.json", upload("site-a"))
    assert push(exchange=mine, **line(relayed, "site-a")).sent == own
    assert push(exchange=mine, **line(relayed, "site-a")).sent == ()
    assert push(exchange=mine, **line(relayed, "coordinator")).sent == (
        "rounds/0001/sum.enc",
        "rounds/0001/times.json",
    )
    other = tmp_path / "other"
    other.mkdir()
    assert pull(["rounds/0001/metrics"], exchange=other, **line(relayed, "site-c")).fetched == own[:1]
    assert pull(["rounds/*/plan.json"], exchange=other, **line(relayed, "site-c")).fetched == ("rounds/0001/plan.json",)
    named = push([mine / upload("site-b")], exchange=mine, **line(relayed, "site-b"))
    assert named.sent == (upload("site-b"),)


def test_the_same_file_twice_is_a_success_and_another_is_refused(relayed: Relayed, tmp_path: Path) -> None:
    one, other = random_file(tmp_path / "one", 300_000), random_file(tmp_path / "other", 300_000, seed=1)
    push([one], names=[upload("site-a")], **line(relayed, "site-a"))
    again = push([one], names=[upload("site-a")], **line(relayed, "site-a"))
    assert (again.sent, again.present) == ((), (upload("site-a"),))
    with pytest.raises(RelayError, match="is here already, with other content"):
        push([other], names=[upload("site-a")], **line(relayed, "site-a"))
    assert (relayed.exchange / upload("site-a")).read_bytes() == one.read_bytes()


@pytest.mark.parametrize(
    ("peer", "name", "why"),
    [
        ("site-a", upload("site-b"), "is not a file of site-a"),
        ("site-a", "rounds/0001/receipt.json", "is not a file of site-a"),
        ("site-a", "federation-0002.json", "is not a file of site-a"),
        ("site-a", "rounds/0002/uploads/site-a.enc", "belongs to rounds/0002/plan.json, which is not here"),
        ("coordinator", upload("site-a"), "is not a file of coordinator"),
    ],
)
def test_what_is_not_ones_own_is_refused(relayed: Relayed, tmp_path: Path, peer: str, name: str, why: str) -> None:
    file = random_file(tmp_path / "file", 1000)
    before = Store(relayed.exchange).names()
    with pytest.raises(RelayError, match=why) as refusal:
        push([file], names=[name], **line(relayed, peer))
    assert refusal.value.exit_code == 8
    assert Store(relayed.exchange).names() == before


@pytest.mark.parametrize(
    "name", ["../../site-a.enc", "rounds/0001/uploads/../plan.json", "rounds/0001/metrics/site-a.weights"]
)
def test_what_is_no_name_is_neither_sent_nor_taken(relayed: Relayed, tmp_path: Path, name: str) -> None:
    file = random_file(tmp_path / "file", 1000)
    with pytest.raises(UsageError, match="is no name in an exchange directory"):
        push([file], names=[name], **line(relayed, "site-a"))
    with relayed.client("site-a") as client, pytest.raises(RelayError, match="a Put with a wrong name"):
        client.put({name: file})
    assert Store(relayed.exchange).names() == ["federation.json", "rounds/0001/plan.json"]


def test_one_refused_file_does_not_keep_the_others(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", 1000)
    with pytest.raises(RelayError, match="site-b"):
        push([file, file], names=[upload("site-b"), upload("site-a")], **line(relayed, "site-a"))
    assert (relayed.exchange / upload("site-a")).exists()


def test_pull_never_replaces_what_is_here(relayed: Relayed, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "rounds" / "0001").mkdir(parents=True)
    (here / "rounds" / "0001" / "plan.json").write_text("another plan")
    with pytest.raises(MismatchError, match=r"rounds/0001/plan\.json"):
        pull(exchange=here, **line(relayed, "site-a"))
    assert (here / "rounds" / "0001" / "plan.json").read_text() == "another plan"
    assert (here / "federation.json").exists()
    with pytest.raises(OutputError, match="no such folder"):
        pull(exchange=tmp_path / "nowhere", **line(relayed, "site-a"))


def test_wait_returns_when_all_files_are_there(relayed: Relayed, tmp_path: Path) -> None:
    pusher = relayed.push_process("site-a", random_file(tmp_path / "file", 1000), upload("site-a"))
    result = wait([upload("site-a"), "federation.json"], timeout=30, **line(relayed, "coordinator"))
    assert result.digests[upload("site-a")] == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()
    assert str(result) == f"{upload('site-a')}\nfederation.json"
    assert pusher.communicate(timeout=30)[0].startswith(upload("site-a"))


def test_wait_names_what_is_missing(relayed: Relayed) -> None:
    begun = time.monotonic()
    with pytest.raises(RelayError, match=f"not at the relay after 1 s: {upload('site-b')}$"):
        wait(["federation.json", upload("site-b")], timeout=1, **line(relayed, "site-a"))
    assert time.monotonic() - begun < 5
    with pytest.raises(UsageError, match="no name"):
        wait(["../x"], timeout=1, **line(relayed, "site-a"))


def test_an_unknown_key_is_told_so(relayed: Relayed, tmp_path: Path) -> None:
    (tmp_path / "strangers").mkdir()
    stranger = keygen("site-a", output=tmp_path / "strangers")
    begun = time.monotonic()
    with pytest.raises(RelayError, match="does not know this key of site-a") as refusal:
        wait(["federation.json"], relay=relayed.address, relay_card=relayed.card, key=stranger.key)
    assert refusal.value.exit_code == 8
    assert time.monotonic() - begun < 5
    relayed.process.wait_for("denied")


def test_another_relay_is_not_mistaken_for_ones_own(relayed: Relayed) -> None:
    not_the_relay = relayed.keys("site-b").public
    with (
        Client(relayed.address, not_the_relay, relayed.keys("site-a"), patience=1) as client,
        pytest.raises(RelayError, match="is this the relay whose card was given"),
    ):
        client.entries()


def test_an_unreachable_relay_is_told_so(relayed: Relayed) -> None:
    relayed.process.kill()
    begun = time.monotonic()
    with (
        relayed.client("site-a", patience=2) as client,
        pytest.raises(RelayError, match=r"127\.0\.0\.1:\d+ cannot be reached") as error,
    ):
        client.entries()
    assert error.value.exit_code == 8
    assert time.monotonic() - begun < 10
    with relayed.client("site-a", "not an address") as client, pytest.raises(UsageError, match="not an address"):
        client.entries()


def test_a_new_roster_is_taken_while_the_relay_runs(relayed: Relayed, tmp_path: Path) -> None:
    keygen("site-d", output=tmp_path)
    with relayed.client("site-d") as client, pytest.raises(RelayError, match="does not know this key"):
        client.entries()
    second, third = tmp_path / "second.json", tmp_path / "third.json"
    roster, key = relayed.exchange / "federation.json", relayed.key("coordinator")
    roster_add([tmp_path / "site-d.card"], roster=roster, key=key, output=second)
    with relayed.client("site-a") as leaving, relayed.client("site-d") as coming:
        leaving.entries()
        push([second], names=["federation-0002.json"], **line(relayed, "coordinator"))
        relayed.process.wait_for("roster", name="federation-0002.json")
        assert "federation-0002.json" in [entry.name for entry in coming.entries()]
        roster_remove(["site-a"], roster=second, key=key, output=third)
        push([third], names=["federation-0003.json"], **line(relayed, "coordinator"))
        relayed.process.wait_for("roster", name="federation-0003.json")
        with pytest.raises(RelayError, match="not in the roster any more"):  # although its connection stands
            leaving.entries()


def test_a_roster_of_another_coordinator_is_ignored(relayed: Relayed, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    keygen("coordinator", output=tmp_path / "other")
    roster_create(
        [tmp_path / "site-a.card", tmp_path / "site-b.card"],
        federation="test",
        key=tmp_path / "other" / "coordinator.key",
        output=relayed.exchange / "federation-0002.json",
        minimum_sites=2,
        mode="members",
    )
    relayed.process.wait_for("roster ignored", name="federation-0002.json")
    (relayed.exchange / "federation-0003.json").write_text("nonsense")
    relayed.process.wait_for("roster ignored", name="federation-0003.json")
    with relayed.client("site-c") as client:
        assert len(client.entries()) == 4


def test_it_stops_when_asked_and_says_what_it_did(relayed: Relayed, tmp_path: Path) -> None:
    push([random_file(tmp_path / "file", 400_000)], names=[upload("site-a")], **line(relayed, "site-a"))
    code, said = relayed.process.terminate()
    assert code == 0
    assert said == "relay stopped: 1 files received, 0 sent, 0 refused\n"
    listening = relayed.process.wait_for("listening", address=relayed.address)
    assert listening["fingerprint"] == relayed.relay_keys.fingerprint
    received = {"event": "received", "peer": "site-a", "name": upload("site-a"), "size": 400_000}
    assert any(received.items() <= told.items() for told in relayed.process.events)
    secrets = [relayed.key(name).read_text() for name in ("relay", "site-a")]
    for secret in (line for text in secrets for line in text.split('"') if len(line) >= 64):
        assert secret not in str(relayed.process.events)


def test_an_address_in_use_is_told_so(relayed: Relayed) -> None:
    with pytest.raises(RelayError, match="in use"):
        relay_serve(relayed.exchange, key=relayed.key("relay"), bind=relayed.address)


def test_usage_of_push(relayed: Relayed, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", 10)
    for options, message in [
        ({"files": [file]}, "under which names"),
        ({"files": [file], "names": ["a", "b"]}, "1 files, 2 names"),
        ({"files": [file], "exchange": relayed.exchange}, "not all files are in"),
        ({}, "nothing to send"),
        ({"files": [tmp_path / "absent"], "names": [upload("site-a")]}, "no such file"),
    ]:
        with pytest.raises((UsageError, FormatError), match=message):
            push(**options, **line(relayed, "site-a"))


def test_thirty_sites_at_once_within_bounded_memory(tmp_path: Path) -> None:
    sites = [f"site-{number:02}" for number in range(30)]
    relayed = make_relayed(tmp_path, sites)
    relayed.start()
    before = relayed.process.peak_memory
    files = {site: random_file(tmp_path / f"{site}.enc", 3_000_000, seed) for seed, site in enumerate(sites)}
    processes = [relayed.push_process(site, files[site], upload(site)) for site in sites[:3]]

    def push_one(site: str) -> None:
        with relayed.client(site) as client:
            client.put({upload(site): files[site]})

    threads = [threading.Thread(target=push_one, args=(site,)) for site in sites[3:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        assert process.communicate(timeout=60)[0].endswith("sent\n")
    for site in sites:
        assert (relayed.exchange / upload(site)).read_bytes() == files[site].read_bytes()
    assert relayed.process.peak_memory - before < 100_000_000
    relayed.process.kill()


def test_an_empty_file_goes_both_ways(relayed: Relayed, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert push([tmp_path / "empty"], names=[upload("site-a")], **line(relayed, "site-a")).sent == (upload("site-a"),)
    here = tmp_path / "here"
    here.mkdir()
    assert upload("site-a") in pull(exchange=here, **line(relayed, "coordinator")).fetched
    assert (here / upload("site-a")).read_bytes() == b""
