"""Two histories of one round: whoever sees both marks has proof, and only the coordinator can make one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from exchanges import Rounds
from federation import forget, make_federation

from ucadi.commands.audit import audit
from ucadi.errors import FormatError, MismatchError
from ucadi.formats import keys as key_format
from ucadi.formats import receipt as receipt_format
from ucadi.formats import roster as roster_format
from ucadi.formats import statement as statement_format
from ucadi.formats.receipt import Receipt
from ucadi.formats.signed import sign, write_document
from ucadi.formats.statement import Statement
from ucadi.kinds import Kind
from ucadi.rounds.closing import read_receipt, read_round
from ucadi.rounds.histories import check_one_history


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    """Round 1 is closed, of three sites. Not to be changed."""
    rounds = Rounds.begin(make_federation(tmp_path_factory.mktemp("keys")), tmp_path_factory.mktemp("exchange"))
    rounds.open(1, quorum=2)
    for site in rounds.federation.sites:
        rounds.upload(1, site)
    rounds.close(1)
    return rounds


@pytest.fixture
def own(made: Rounds, tmp_path: Path) -> Rounds:
    return made.copy(tmp_path / "own")


def receipt_of(rounds: Rounds) -> Receipt:
    found = read_receipt(rounds.exchange, 1, read_round(rounds.exchange, 1))
    assert found is not None
    return found[0]


def forked(made: Rounds, folder: Path) -> Rounds:
    """The same round, which the coordinator closed for others without site-c."""
    other = made.copy(folder)
    other.exchange.receipt(1).unlink()
    other.exchange.sum(1).unlink()
    other.exchange.path(Kind.UPLOAD, 1, "site-c").unlink()
    forget(made.federation.key("coordinator"))
    other.close(1)
    return other


def state(rounds: Rounds, site: str, mark: object) -> Path:
    path = rounds.file(Kind.METRICS, 1, site)
    statement = Statement(site, read_round(rounds.exchange, 1).plan_digest, mark=mark)  # type: ignore[arg-type]
    statement_format.write(path, statement, key_format.read_key(rounds.federation.key(site)), force=True)
    return path


def roster(rounds: Rounds) -> roster_format.Roster:
    return roster_format.read(rounds.federation.roster)


def test_a_statement_from_the_other_history_is_proof(made: Rounds, own: Rounds, tmp_path: Path) -> None:
    other = receipt_of(forked(made, tmp_path / "fork"))
    assert other.mark != receipt_of(own).mark
    state(own, "site-a", receipt_of(own).mark)
    check_one_history(own.exchange, receipt_of(own), roster(own))
    told = state(own, "site-b", other.mark)
    with pytest.raises(MismatchError, match=r"signed two ends of it; rounds/0001/metrics/site-b\.json"):
        check_one_history(own.exchange, receipt_of(own), roster(own), tmp_path / "evidence")
    kept = {path.name: path.read_bytes() for path in (tmp_path / "evidence").iterdir()}
    assert kept == {
        "round-0001-receipt.json": own.exchange.receipt(1).read_bytes(),
        "round-0001-site-b.json": told.read_bytes(),
    }
    with pytest.raises(MismatchError, match="two ends"):
        audit(own.exchange.root)


def test_a_member_cannot_make_one_up(own: Rounds) -> None:
    """A member that lies stops nobody: its mark bears its own signature, or none that is good."""
    mark = {key: value for key, value in receipt_of(own).mark.items() if key != "signature"}
    lies = [
        sign({**mark, "aggregate": "0" * 64}, key_format.read_key(own.federation.key("site-b"))),
        {**receipt_of(own).mark, "aggregate": "0" * 64},
        {**mark, "signature": "00"},
        {},
        {**receipt_of(own).mark, "note": "x"},
    ]
    for lie in lies:
        state(own, "site-b", lie)
        check_one_history(own.exchange, receipt_of(own), roster(own))
    own.file(Kind.METRICS, 1, "site-b").write_bytes(b"nonsense")
    check_one_history(own.exchange, receipt_of(own), roster(own))


def test_a_mark_of_another_round_proves_nothing(own: Rounds) -> None:
    receipt = replace(receipt_of(own), round=2)
    path = own.exchange.root / "other.json"
    receipt_format.write(path, receipt, key_format.read_key(own.federation.key("coordinator")))
    second, _ = receipt_format.read(path, roster(own))
    state(own, "site-b", second.mark)
    check_one_history(own.exchange, receipt_of(own), roster(own))


def test_a_receipt_has_the_mark_of_itself(own: Rounds, tmp_path: Path) -> None:
    document = json.loads(own.exchange.receipt(1).read_text())
    del document["signature"]
    other = json.loads(forked(own, tmp_path / "fork").exchange.receipt(1).read_text())["mark"]
    coordinator = key_format.read_key(own.federation.key("coordinator"))
    write_document(own.exchange.receipt(1), sign({**document, "mark": other}, coordinator), force=True)
    with pytest.raises(FormatError, match="its mark is of another receipt"):
        receipt_of(own)


def test_a_coordinator_with_an_old_copy_signs_nothing_that_sites_have_seen(own: Rounds, tmp_path: Path) -> None:
    """Folder and ledger came back from a backup of before the round was closed; one site has stated its end since."""
    state(own, "site-a", receipt_of(own).mark)
    own.exchange.receipt(1).unlink()
    own.exchange.sum(1).unlink()
    shutil.copy(own.exchange.path(Kind.UPLOAD, 1, "site-c"), tmp_path)
    own.exchange.path(Kind.UPLOAD, 1, "site-c").unlink()
    with pytest.raises(MismatchError, match="round 1 was closed before") as caught:
        own.close(1)
    assert "old copy" in str(caught.value.hint)
    assert not own.exchange.has(Kind.SUM, 1)
