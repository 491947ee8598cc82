"""Auditing an exchange directory: a sound history passes, and each kind of break is found and named."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from attack import signed_anew
from exchanges import Rounds
from federation import accept_all, make_federation

from ucadi.commands.audit import audit
from ucadi.commands.courier import courier_pack, courier_unpack
from ucadi.commands.roster import roster_remove
from ucadi.errors import MismatchError, SignatureError
from ucadi.formats import container
from ucadi.formats.signed import write_document
from ucadi.kinds import Kind


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    """Rounds 1 and 3 are closed, 2 is void, the model after 3 is there. Not to be changed."""
    folder = tmp_path_factory.mktemp("federation")
    rounds = Rounds.begin(make_federation(folder), folder / "exchange")
    rounds.play(1)
    rounds.open(2, quorum=3)
    rounds.upload(2, "site-a")
    with pytest.raises(MismatchError, match="void"):
        rounds.close(2)
    shutil.copy(rounds.exchange.model(2), rounds.exchange.model(3))
    rounds.play(3, ("site-b", "site-c"))
    return rounds


@pytest.fixture
def own(made: Rounds, tmp_path: Path) -> Rounds:
    """A copy of it that a test may change."""
    return made.copy(tmp_path / "exchange")


def resign(rounds: Rounds, path: Path, **changed: Any) -> None:
    """What a coordinator that lies can do: change a document of its own, and sign it again."""
    document = {**json.loads(path.read_text()), **changed}
    write_document(path, signed_anew(document, rounds.federation.key("coordinator")), force=True)


def test_a_sound_history(made: Rounds) -> None:
    result = audit(made.exchange.root)
    found = [(one.number, one.status, one.base, one.sum) for one in result.rounds]
    assert found == [
        (1, "closed", "the first", "adding again gives the same"),
        (2, "void", "recomputed", "none"),
        (3, "closed", "that of the round before, which is void", "adding again gives the same"),
    ]
    assert result.rounds[2].sites == ("site-b", "site-c")
    assert "round 2: void, of site-a\n  base: verified: recomputed\n" in str(result)
    assert json.dumps(asdict(result))
    assert audit(made.exchange.root, coordinator=result.fingerprint) == result
    with pytest.raises(SignatureError, match="fingerprint"):
        audit(made.exchange.root, coordinator="0000 0000 0000 0000 0000")


def test_what_is_not_at_hand_is_said(made: Rounds, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    courier_pack(made.exchange.root, receiver="site-a", output=tmp_path / "x.tar")
    courier_unpack(tmp_path / "x.tar", tmp_path / "site", roster=made.federation.roster)
    found = audit(tmp_path / "site").rounds
    assert found[0].sum == "signed; not checked: 0 of 3 uploads and 0 tags at hand"
    assert found[1].base == "not recomputed: the opened sum is not at hand"
    for name in ("models", "rounds/0001"):
        shutil.rmtree(tmp_path / "site" / name)
    assert audit(tmp_path / "site").rounds[0].base == "not recomputed: the round before is not at hand"


def test_a_round_that_is_open(own: Rounds) -> None:
    own.open(4, quorum=2)
    assert audit(own.exchange.root).rounds[3].status == "open"
    own.exchange.receipt(3).unlink()
    with pytest.raises(MismatchError, match=r"^round 4: opened though round 3 has no receipt"):
        audit(own.exchange.root)


def test_a_base_that_does_not_follow(own: Rounds) -> None:
    shutil.copy(own.exchange.model(1), own.exchange.model(4))
    with pytest.raises(MismatchError, match=r"^round 4: its base is not the model that round 3 leads to"):
        audit(own.exchange.root)
    own.open(4)
    with pytest.raises(MismatchError, match=r"^round 4: its base is not the model"):
        audit(own.exchange.root)


def test_other_weights_after_a_void_round(own: Rounds) -> None:
    shutil.copy(own.exchange.model(1), own.exchange.model(3))
    resign(own, own.exchange.plan(3), base=container.file_digest(own.exchange.model(1)))
    with pytest.raises(MismatchError, match=r"^round 3: begins with other weights than round 2"):
        audit(own.exchange.root)


def test_a_site_that_lies_about_the_opened_sum_is_named_and_breaks_nothing(own: Rounds) -> None:
    shutil.copy(own.exchange.path(Kind.OPENED, 3, "site-a"), own.file(Kind.OPENED, 1, "site-b"))
    assert audit(own.exchange.root).rounds[1].base == "recomputed; but what site-b opened leads elsewhere"
    own.exchange.path(Kind.OPENED, 1, "site-a").unlink()
    with pytest.raises(MismatchError, match=r"^round 2: .*that site-b opened"):
        audit(own.exchange.root)


@pytest.mark.parametrize(
    ("kind", "site", "message"),
    [
        (Kind.UPLOAD, "site-b", "the upload of site-b is not the one that the receipt names"),
        (Kind.SUM, "", "the sum is not the one that the receipt names"),
        (Kind.MODEL, "", "not the weights that the plan names"),
        (Kind.PLAN, "", "plan.json"),
        (Kind.RECEIPT, "", "receipt.json"),
    ],
)
def test_a_changed_byte_breaks_its_round(own: Rounds, kind: Kind, site: str, message: str) -> None:
    path = own.exchange.path(kind, 3, site)
    data = path.read_bytes()
    path.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    with pytest.raises(MismatchError, match=rf"^round 3: .*{message}"):
        audit(own.exchange.root)


def test_a_coordinator_that_lies_in_a_receipt(own: Rounds) -> None:
    sound = {number: own.exchange.receipt(number).read_bytes() for number in (1, 2, 3)}
    resign(own, own.exchange.receipt(1), refused={"site-x.enc": "no reason"})
    with pytest.raises(MismatchError, match=r"^round 2: its receipt does not follow"):
        audit(own.exchange.root)
    own.exchange.receipt(1).write_bytes(sound[1])
    resign(own, own.exchange.receipt(1), previous="0" * 64)
    with pytest.raises(MismatchError, match=r"^round 1: its receipt does not follow"):
        audit(own.exchange.root)
    own.exchange.receipt(1).write_bytes(sound[1])
    resign(own, own.exchange.receipt(3), contributions={}, missing=["site-a", "site-b"])
    with pytest.raises(MismatchError, match=r"^round 3: .*does not say of each site"):
        audit(own.exchange.root)
    resign(own, own.exchange.receipt(3), contributions={}, missing=["site-a", "site-b", "site-c"])
    with pytest.raises(MismatchError, match=r"^round 3: the sum is of other sites"):
        audit(own.exchange.root)
    own.exchange.receipt(3).write_bytes(sound[3])
    shutil.copy(own.exchange.sum(1), own.exchange.sum(2))
    with pytest.raises(MismatchError, match=r"^round 2: the receipt says void, and yet there is a sum"):
        audit(own.exchange.root)


def test_a_round_taken_out_of_the_middle(own: Rounds) -> None:
    own.exchange.plan(2).unlink()
    with pytest.raises(MismatchError, match=r"^round 2: .*but no plan"):
        audit(own.exchange.root)
    shutil.rmtree(own.exchange.plan(2).parent)
    with pytest.raises(MismatchError, match=r"^round 3: its receipt does not follow"):
        audit(own.exchange.root)


def test_a_later_roster(own: Rounds) -> None:
    roster = own.exchange.root / "federation-0002.json"
    key = own.federation.key("coordinator")
    roster_remove(["site-a"], roster=own.exchange.roster(3), key=key, output=roster)
    accept_all(roster, [own.federation.key(site) for site in ("site-b", "site-c")])
    own.open(4)
    for site in ("site-b", "site-c"):
        own.upload(4, site)
    own.close(4)
    assert audit(own.exchange.root).rounds[3].sites == ("site-b", "site-c")
