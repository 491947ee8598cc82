"""The exchange directory: its names, receipts, and closing rounds, killed at any moment, lied to and late."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from attack import signed_anew
from exchanges import Rounds
from federation import make_federation

from ucadi.commands.keygen import keygen
from ucadi.commands.roster import roster_create, roster_remove
from ucadi.commands.round_close import round_close
from ucadi.commands.round_open import round_open
from ucadi.commands.round_status import round_status
from ucadi.errors import FormatError, MismatchError, OutputError, SignatureError
from ucadi.formats import container
from ucadi.formats import receipt as receipt_format
from ucadi.formats import roster as roster_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.signed import write_document
from ucadi.kinds import Kind, Maker, Place
from ucadi.rounds.standing import Standing


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    """Round 1 is open, quorum 2, and all three sites have uploaded. Not to be changed."""
    folder = tmp_path_factory.mktemp("federation")
    rounds = Rounds.begin(make_federation(folder), folder / "exchange")
    rounds.open(1, quorum=2)
    for site in rounds.federation.sites:
        rounds.upload(1, site)
    return rounds


@pytest.fixture
def own(made: Rounds, tmp_path: Path) -> Rounds:
    """A copy of it that a test may change."""
    return made.copy(tmp_path / "exchange")


def status(rounds: Rounds, number: int = 1) -> Standing:
    return round_status(rounds.exchange.root, number=number)


def upload(rounds: Rounds, site: str, number: int = 1) -> Path:
    return rounds.exchange.path(Kind.UPLOAD, number, site)


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
def test_every_name_leads_back_to_its_place(kind: Kind) -> None:
    place = Place(kind, 12, "site-a" if kind.maker is Maker.SITE else "")
    assert Place.parse(place.name) == place


def test_the_first_roster_has_no_number() -> None:
    assert Place.parse("federation.json") == Place(Kind.ROSTER, 0)
    assert Place(Kind.ROSTER, 0).name == "federation.json"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../federation.json",
        "/federation.json",
        "federation.json\n",
        "federation-0000.json",
        "rounds/0000/plan.json",
        "rounds/1/plan.json",
        "rounds/00001/plan.json",
        "rounds/0001/plan.jsonx",
        "rounds/0001/uploads/../plan.json",
        "rounds/0001/uploads/.enc",
        "rounds/0001/uploads/-a.enc",
        "rounds/0001/uploads/Site.enc",
        "rounds/0001/uploads/site-a.enc/x",
        "rounds/\u0660\u0660\u0660\u0661/plan.json",
        "models/0001.pt",
    ],
)
def test_other_names_have_no_place(name: str) -> None:
    assert Place.parse(name) is None


def test_the_roster_of_a_round_is_the_one_that_its_plan_names(own: Rounds) -> None:
    later = own.exchange.root / "federation-0002.json"
    key = own.federation.key("coordinator")
    roster_remove(["site-c"], roster=own.exchange.roster(1), key=key, output=later)
    shutil.copy(own.exchange.model(1), own.exchange.model(7))
    own.open(7)
    assert [own.exchange.roster(number).name for number in (1, 7)] == ["federation.json", "federation-0002.json"]
    later.unlink()
    with pytest.raises(MismatchError, match="which is not here"):
        status(own, 7)


def test_nobody_takes_a_federation_over_by_a_roster_of_his_own(own: Rounds, tmp_path: Path) -> None:
    keygen("coordinator", output=tmp_path)
    cards = [own.federation.folder / f"{site}.card" for site in own.federation.sites]
    theirs, key = own.exchange.root / "federation-0002.json", tmp_path / "coordinator.key"
    roster_create(cards, federation="test", key=key, output=theirs)
    round_open(number=2, base=own.exchange.model(1), roster=theirs, key=key, output=own.file(Kind.PLAN, 2))
    with pytest.raises(MismatchError, match="the trusted roster is of test, coordinator"):
        round_close(own.exchange.root, number=2, key=key)


# --- closing ----------------------------------------------------------------------------------------


def test_a_round_is_closed_once_and_its_receipt_names_what_was_in(own: Rounds) -> None:
    assert status(own).state == "open"
    result = own.close(1)
    assert result.sites == own.federation.sites
    members = roster_format.read(own.exchange.roster(1))
    receipt, digest = receipt_format.read(own.exchange.receipt(1), members)
    assert receipt.contributions == {site: container.file_digest(upload(own, site)) for site in result.sites}
    assert receipt.sum == container.file_digest(own.exchange.sum(1))
    assert (receipt.previous, receipt.missing, receipt.refused) == (None, (), {})
    assert own.exchange.receipt(1).stat().st_mode & 0o777 == own.exchange.sum(1).stat().st_mode & 0o777 == 0o644
    assert own.close(1) == result
    assert container.file_digest(own.exchange.receipt(1)) == digest
    assert status(own).state == "closed"


def test_bad_uploads_are_refused_by_name_and_stop_nobody(own: Rounds) -> None:
    folder = own.exchange.uploads(1)
    upload(own, "site-b").write_bytes(b"no ciphertext")
    (folder / "notes.txt").write_text("hello")
    (folder / "stranger.enc").write_bytes(b"\0" * 64)
    (folder / "link.enc").symlink_to(upload(own, "site-a"))
    os.mkfifo(folder / "pipe.enc")
    (folder / ".site-d.enc.x.part").write_bytes(b"on its way")
    seen = status(own)
    assert seen.contributed == ("site-a", "site-c")
    assert seen.missing == ("site-b",)
    assert list(seen.refused) == ["site-b.enc"]
    assert seen.strays == ("link.enc", "notes.txt", "pipe.enc", "stranger.enc")
    assert own.close(1).sites == ("site-a", "site-c")
    receipt = json.loads(own.exchange.receipt(1).read_text())
    assert list(receipt["refused"]) == ["site-b.enc"]
    assert receipt["missing"] == ["site-b"]
    assert json.dumps(asdict(status(own)))
    assert "refused:     site-b.enc is text, not an encrypted update" in str(status(own))


def test_the_upload_of_another_site_or_round_under_ones_name_is_refused(own: Rounds) -> None:
    shutil.copy(upload(own, "site-a"), upload(own, "site-b"))
    assert "the upload of site-a" in status(own).refused["site-b.enc"]
    own.exchange.model(2).write_bytes(own.exchange.model(1).read_bytes())
    own.open(2)
    other = own.file(Kind.UPLOAD, 2, "site-a")
    shutil.copy(upload(own, "site-a"), other)
    assert "another round" in status(own, 2).refused["site-a.enc"]


def test_changed_bytes_anywhere_in_an_upload_are_refused(own: Rounds) -> None:
    sound = upload(own, "site-b").read_bytes()
    for place in (0, 9, 200, len(sound) // 2, len(sound) - 1):
        upload(own, "site-b").write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        assert list(status(own).refused) == ["site-b.enc"]
    upload(own, "site-b").write_bytes(sound[:-1])
    assert list(status(own).refused) == ["site-b.enc"]


def test_below_the_quorum_a_round_is_void_for_good(own: Rounds) -> None:
    for site in ("site-b", "site-c"):
        upload(own, site).rename(own.federation.folder / f"{site}.later")
    with pytest.raises(MismatchError, match=r"void: 1 of at least 2 contributions; missing: site-b, site-c") as caught:
        own.close(1)
    assert caught.value.exit_code == 4
    receipt = own.exchange.receipt(1).read_bytes()
    assert json.loads(receipt)["aggregate"] is None
    for site in ("site-b", "site-c"):
        (own.federation.folder / f"{site}.later").rename(upload(own, site))
    with pytest.raises(MismatchError, match="void"):
        own.close(1)
    assert own.exchange.receipt(1).read_bytes() == receipt
    assert not own.exchange.sum(1).exists()
    assert (status(own).state, status(own).late) == ("void", ("site-b", "site-c"))


def test_a_late_upload_changes_nothing(own: Rounds) -> None:
    upload(own, "site-c").rename(own.federation.folder / "site-c.later")
    own.close(1)
    before = {path: path.read_bytes() for path in (own.exchange.receipt(1), own.exchange.sum(1))}
    (own.federation.folder / "site-c.later").rename(upload(own, "site-c"))
    assert own.close(1).sites == ("site-a", "site-b")
    assert {path: path.read_bytes() for path in before} == before
    seen = status(own)
    assert (seen.contributed, seen.late, seen.missing) == (("site-a", "site-b"), ("site-c",), ())


def test_receipts_are_a_chain_in_order(own: Rounds) -> None:
    own.exchange.model(2).write_bytes(own.exchange.model(1).read_bytes())
    own.open(2, quorum=2)
    for site in own.federation.sites:
        own.upload(2, site)
    with pytest.raises(MismatchError, match="round 1 is not closed yet"):
        own.close(2)
    own.close(1)
    own.close(2)
    assert json.loads(own.exchange.receipt(2).read_text())["previous"] == container.file_digest(own.exchange.receipt(1))
    own.exchange.receipt(1).unlink()
    with pytest.raises(MismatchError, match="round 2 is closed already"):
        own.close(1)


def test_only_the_coordinator_closes_and_only_its_receipt_counts(own: Rounds, tmp_path: Path) -> None:
    keygen("coordinator", output=tmp_path)
    for key in (own.federation.key("site-a"), tmp_path / "coordinator.key"):
        with pytest.raises(MismatchError, match="not the coordinator"):
            round_close(own.exchange.root, number=1, key=key)
    own.close(1)
    path = own.exchange.receipt(1)
    document = json.loads(path.read_text())
    write_document(path, {**document, "missing": ["site-z"]}, force=True)
    with pytest.raises(SignatureError, match="signature is not that of coordinator"):
        own.close(1)
    forged = signed_anew({**document, "aggregate": None}, own.federation.key("coordinator"))
    write_document(path, forged, force=True)
    with pytest.raises(FormatError, match="a void one none"):
        status(own)


def test_two_closers_at_once_are_one(own: Rounds) -> None:
    with (own.exchange.plan(1).parent / ".closing").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another process is closing"):
            own.close(1)
    own.close(1)


def test_the_folder_that_is_no_exchange(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="nowhere: no such folder"):
        Exchange(tmp_path / "nowhere")


# --- interrupted ------------------------------------------------------------------------------------

CLOSE = """
import sys
from pathlib import Path
from ucadi.commands.roster import roster_create, roster_remove
from ucadi.commands.round_close import round_close
print("ready", flush=True)
sys.stdin.readline()
round_close(Path(sys.argv[1]), number=1, key=Path(sys.argv[2]))
print("closed", flush=True)
"""


def test_on_a_full_disk_nothing_is_left_and_nobody_is_refused(own: Rounds) -> None:
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n{CLOSE}"
    command = [sys.executable, "-c", code, str(own.exchange.root), str(own.federation.key("coordinator"))]
    run = subprocess.run(command, input="\n", capture_output=True, text=True)
    assert "not written: File too large" in run.stderr
    assert not own.exchange.sum(1).exists()
    assert not own.exchange.receipt(1).exists()
    assert own.close(1).sites == own.federation.sites


def test_an_upload_that_this_machine_cannot_read_is_not_refused(own: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as context:
        context.setattr("ucadi.rounds.closing.mmap.mmap", fail)
        with pytest.raises(OutputError, match=r"site-a.enc: cannot be read"):
            own.close(1)
    assert not own.exchange.receipt(1).exists()
    assert own.close(1).sites == own.federation.sites


def start_closing(rounds: Rounds) -> subprocess.Popen[str]:
    """A process that closes round 1 as soon as it reads a line."""
    command = [sys.executable, "-c", CLOSE, str(rounds.exchange.root), str(rounds.federation.key("coordinator"))]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_killed_at_any_moment_closing_continues_to_the_same_receipt(own: Rounds, tmp_path: Path) -> None:
    reference = own.copy(tmp_path / "reference")
    with start_closing(reference) as process:
        began = time.monotonic()
        go(process)
        assert process.wait() == 0
        whole = time.monotonic() - began
    expected = (reference.exchange.sum(1).read_bytes(), reference.exchange.receipt(1).read_bytes())
    chance = random.Random(7)
    for attempt in range(8):
        rounds = own.copy(tmp_path / str(attempt))
        with start_closing(rounds) as process:
            go(process)
            time.sleep(chance.uniform(0, whole))
            process.send_signal(signal.SIGKILL)
        for path, content in zip((rounds.exchange.sum(1), rounds.exchange.receipt(1)), expected, strict=True):
            assert not path.exists() or path.read_bytes() == content
        rounds.close(1)
        assert (rounds.exchange.sum(1).read_bytes(), rounds.exchange.receipt(1).read_bytes()) == expected
        assert [path.name for path in rounds.exchange.root.rglob(".*")] == [".closing"]


def test_a_sum_without_a_receipt_stands_though_more_uploads_have_come(own: Rounds) -> None:
    upload(own, "site-c").rename(own.federation.folder / "site-c.kept")
    own.close(1)
    receipt = own.exchange.receipt(1).read_bytes()
    own.exchange.receipt(1).unlink()  # as if killed after the sum
    (own.exchange.receipt(1).parent / ".sum.enc.1.part").write_bytes(b"half")
    (own.federation.folder / "site-c.kept").rename(upload(own, "site-c"))
    assert status(own).state == "summed"
    assert own.close(1).sites == ("site-a", "site-b")
    assert own.exchange.receipt(1).read_bytes() == receipt
    assert status(own).late == ("site-c",)
    assert not list(own.exchange.root.rglob(".*.part"))


def test_closers_that_race_make_one_sum_and_one_receipt(own: Rounds) -> None:
    processes = [start_closing(own) for _ in range(3)]
    for process in processes:
        go(process)
    # who comes while another closes is told so; who comes after finds it closed
    said = [process.communicate()[0] for process in processes]
    assert "closed\n" in said
    receipt = own.exchange.receipt(1).read_bytes()
    own.close(1)
    assert own.exchange.receipt(1).read_bytes() == receipt
    assert json.loads(receipt)["aggregate"] == container.file_digest(own.exchange.sum(1))


def test_a_sum_without_a_receipt_must_be_that_of_the_uploads(own: Rounds) -> None:
    own.close(1)
    own.exchange.receipt(1).unlink()
    upload(own, "site-a").unlink()
    with pytest.raises(MismatchError, match="lists uploads that are not here"):
        own.close(1)


# --- answers ----------------------------------------------------------------------------------------


def test_status_names_the_holders_that_have_answered(tmp_path: Path) -> None:
    sites = ("site-a", "site-b", "site-c")
    federation = make_federation(tmp_path, sites, minimum_sites=3, threshold=2)
    rounds = Rounds.begin(federation, tmp_path / "exchange")
    rounds.open(1)
    for site in sites:
        rounds.upload(1, site)
    rounds.close(1)
    first = rounds.answer(1, "site-a")
    assert status(rounds).partials_of == ("site-a",)
    shutil.copy(first, rounds.file(Kind.PARTIAL, 1, "site-b"))
    rounds.file(Kind.PARTIAL, 1, "site-c").write_bytes(b"x")
    seen = status(rounds)
    assert (seen.partials_of, sorted(seen.refused)) == (("site-a",), ["site-b.partial", "site-c.partial"])
    assert seen.partials_needed == 2
