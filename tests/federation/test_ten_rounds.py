"""Ten rounds of a federation's ordinary and hard weeks, by the loops: what each is told, and one model at the end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from federation import accept_all, forget
from looping import Hub, make_hub, make_party
from malice import add_to_value, deal_falsely, write_false_upload

from ucadi.commands.audit import audit
from ucadi.commands.keygen import keygen
from ucadi.commands.ledger import ledger_accept_loss
from ucadi.commands.roster import roster_add, roster_remove, roster_rotate
from ucadi.commands.roster_accept import roster_accept
from ucadi.errors import MismatchError
from ucadi.files import file_digest
from ucadi.formats import keys as key_format
from ucadi.formats import update as update_format
from ucadi.formats.exchange import Exchange
from ucadi.kinds import Kind
from ucadi.rounds.closing import read_round

FIVE = ("site-a", "site-b", "site-c", "site-d", "site-e")


class Weeks:
    """The federation with who is in it now, and what its parties were told."""

    def __init__(self, hub: Hub) -> None:
        self.hub, self.sites, self.rosters = hub, list(FIVE), 1
        self.keys = {site: hub.key(site) for site in FIVE}

    @property
    def exchange(self) -> Exchange:
        return Exchange(self.hub.exchange)

    def run(self, site: str) -> str:
        done = self.hub.site(site, key=self.keys[site], work=self.hub.work(site))
        return str(done.waiting_for)

    def turn(self, number: int) -> None:
        for site in self.sites:
            self.run(site)
        self.hub.coordinate(until_round=number)

    def play(self, number: int) -> None:
        """Until all have followed the round to its end and the next is open."""
        for _ in range(6):
            self.turn(number + 1)
            if self.exchange.has(Kind.PLAN, number + 1):
                return
        raise AssertionError(f"round {number} does not end: {self.hub.coordinate(until_round=number + 1).waiting_for}")

    def newest(self) -> Path:
        return self.exchange.newest_roster()

    def next_roster(self) -> Path:
        self.rosters += 1
        return self.hub.exchange / f"federation-{self.rosters:04}.json"

    def accept(self) -> None:
        accept_all(self.newest(), [self.keys[site] for site in self.sites])

    def spoil(self, site: str, number: int, words: object, parts: object = None) -> None:
        """The site sends something else than its update, and tags that."""
        round_, keys = read_round(self.exchange, number), key_format.read_key(self.keys[site])
        (update,) = self.hub.work(site).glob(f"round-{number:04}-*.update")
        path = self.exchange.path(Kind.UPLOAD, number, site)
        write_false_upload(path, update_format.read_update(update), round_, keys, words, parts)  # type: ignore[arg-type]
        shutil.copy(path, update.with_suffix(".enc"))


@pytest.mark.slow
def test_ten_rounds_end_in_one_model_whatever_happened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weeks = Weeks(make_hub(tmp_path / "hub", FIVE, rounds=10, threshold=4, minimum_sites=3, quorum=4))
    hub, coordinator = weeks.hub, weeks.hub.key("coordinator")
    weeks.play(1)

    # round 2: one joins, once everybody has accepted it
    make_party(hub.folder, "site-f", 6)
    weeks.keys["site-f"] = hub.key("site-f")
    card = hub.folder / "site-f/site-f.card"
    roster_add([card], roster=weeks.newest(), key=coordinator, output=weeks.next_roster(), threshold=4)
    weeks.turn(3)
    assert "people here to accept" in weeks.run("site-a")
    weeks.sites.append("site-f")
    weeks.accept()
    weeks.play(2)
    weeks.play(3)

    # round 4: one leaves
    roster_remove(["site-e"], roster=weeks.newest(), key=coordinator, output=weeks.next_roster(), threshold=4)
    for _ in range(6):  # what is open is finished with it
        weeks.turn(5)
    weeks.sites.remove("site-e")
    weeks.accept()
    weeks.play(4)
    assert "a round whose roster lists this site" in weeks.run("site-e")

    # round 5: one has new keys
    new = hub.folder / "site-b/new"
    new.mkdir()
    keygen("site-b", output=new, replaces=weeks.keys["site-b"])
    roster_rotate([new / "site-b.card"], roster=weeks.newest(), key=coordinator, output=weeks.next_roster())
    for _ in range(6):  # what is open is finished with the old ones
        weeks.turn(6)
    weeks.keys["site-b"] = new / "site-b.key"
    weeks.accept()
    weeks.play(5)

    # round 6: one has lost its ledger, and goes on once people have said so
    forget(weeks.keys["site-c"])
    with pytest.raises(MismatchError, match="knows nothing of it"):
        weeks.run("site-c")
    ledger_accept_loss(key=weeks.keys["site-c"], exchange=hub.exchange, yes=True)
    for roster in weeks.exchange.rosters()[1:]:
        roster_accept(roster, key=weeks.keys["site-c"], yes=file_digest(roster))
    weeks.play(6)

    # round 7: the coordinator's folder comes back from a backup, before a sum that sites have seen
    number = weeks.exchange.rounds()[-1]
    for site in weeks.sites:
        weeks.run(site)
    backup = tmp_path / "backup"
    shutil.copytree(hub.exchange, backup)
    hub.coordinate(until_round=number)
    receipt = weeks.exchange.receipt(number).read_bytes()
    shutil.rmtree(hub.exchange)
    shutil.copytree(backup, hub.exchange)
    (hub.exchange / f"rounds/{number:04}/uploads/site-d.enc").unlink()
    with pytest.raises(MismatchError, match="contributions"):  # its ledger knows the set
        hub.coordinate(until_round=number, deadline=0.0)
    shutil.copy(backup / f"rounds/{number:04}/uploads/site-d.enc", hub.exchange / f"rounds/{number:04}/uploads")
    hub.coordinate(until_round=number)
    assert weeks.exchange.receipt(number).read_bytes() == receipt
    weeks.play(number)

    # round 8: one sends a weight that no site may have: void, and all begin again
    number = weeks.exchange.rounds()[-1]
    for site in weeks.sites:
        weeks.run(site)
    weeks.spoil("site-d", number, add_to_value(read_round(weeks.exchange, number), 0, 60_000_000))
    weeks.play(number)
    plans = [read_round(weeks.exchange, one).plan.base for one in (number, number + 1)]
    assert plans[0] == plans[1]

    # round 9: one deals false shares; it is found out, and the sum is opened
    number = weeks.exchange.rounds()[-1]
    for site in weeks.sites:
        weeks.run(site)
    weeks.spoil("site-d", number, lambda _: None, deal_falsely([0]))
    capsys.readouterr()
    weeks.play(number)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"false shares"' in line]
    assert {tuple(event["of"]) for event in told} == {("site-a",)}

    for _ in range(8):
        for site in weeks.sites:
            weeks.run(site)
        result = hub.coordinate(until_round=10)
    assert sorted(result.rounds) == list(range(1, 11))
    assert [number for number, status in result.rounds.items() if status != "closed"] == [8]
    assert result.model is not None
    for site in weeks.sites:
        assert (hub.work(site) / f"{result.model}.weights").exists(), site
    assert len(audit(hub.exchange).rounds) == 10
