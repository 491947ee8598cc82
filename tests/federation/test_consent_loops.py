"""Consent in the loops: a site goes on with nothing that its people did not accept, and says what it waits for."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation import accept_all, forget
from looping import Hub, make_hub, make_party

from ucadi.commands.keygen import keygen
from ucadi.commands.ledger import ledger_accept_loss
from ucadi.commands.roster import roster_add, roster_remove, roster_rotate
from ucadi.commands.roster_accept import roster_accept
from ucadi.commands.round_status import round_status
from ucadi.errors import ConsentError, MismatchError
from ucadi.files import file_digest
from ucadi.formats import keys as key_format
from ucadi.formats import plan as plan_format
from ucadi.formats import policy as policy_format
from ucadi.formats import roster as roster_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.roster import Policy
from ucadi.kinds import Kind
from ucadi.rounds.closing import read_receipt, read_round
from ucadi.rounds.succession import agreed, next_plan, read_statements


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """Three sites in threshold mode, all of whom have accepted the roster; round 1 is open. Not to be changed."""
    folder = tmp_path_factory.mktemp("hub")
    return make_hub(folder / "hub", rounds=2, threshold=3, minimum_sites=3)


@pytest.fixture
def hub(fresh: Hub, tmp_path: Path) -> Hub:
    return fresh.copy(tmp_path / "hub")


def second_roster(hub: Hub) -> Path:
    return hub.exchange / "federation-0002.json"


def first_round(hub: Hub) -> None:
    for _ in range(4):
        for site in hub.sites:
            hub.site(site)
        hub.coordinate(until_round=1)
    assert hub.coordinate(until_round=1).rounds == {1: "closed"}


def uploads(hub: Hub, number: int) -> list[str]:
    return [place.site for place in Exchange(hub.exchange).places(Kind.UPLOAD, number)]


def test_a_site_whose_people_accepted_nothing_does_not_begin(hub: Hub) -> None:
    ledger = hub.key("site-a").with_suffix(".ledger")
    ledger.write_bytes(ledger.read_bytes().splitlines(keepends=True)[0])
    for roster, says in ((None, "has accepted no roster yet"), (hub.roster, "is not accepted by this site")):
        with pytest.raises(ConsentError, match=says) as caught:
            hub.site("site-a", roster=roster)
        assert "ucadi roster accept" in str(caught.value.hint)


def test_a_site_waits_for_the_others_consents_and_goes_on(hub: Hub) -> None:
    consent = hub.exchange / "consents/site-c-0001.json"
    consent.rename(hub.folder / "later")
    told = hub.site("site-a").waiting_for
    assert told == "the consents to the roster of round 1, of site-c"
    assert uploads(hub, 1) == []
    (hub.folder / "later").rename(consent)
    hub.site("site-a")
    assert uploads(hub, 1) == ["site-a"]


def test_a_site_puts_its_own_consent_where_it_belongs_whatever_lies_there(hub: Hub) -> None:
    consent = hub.exchange / "consents/site-a-0001.json"
    whole = consent.read_bytes()
    for junk in (None, b"junk", whole.replace(b"site-a", b"site-b")):
        consent.unlink()
        if junk is not None:
            consent.write_bytes(junk)
            assert "site-a" in str(hub.site("site-b").waiting_for)
            assert round_status(hub.exchange, number=1).not_accepted_by == ("site-a",)
        hub.site("site-a")
        assert consent.read_bytes() == whole
    assert uploads(hub, 1) == ["site-a"]


def weaken(hub: Hub) -> None:
    """The coordinator alone signs another roster: members mode, two sites, one of them invented; and opens under it."""
    make_party(hub.folder, "phantom", 9)
    held = roster_format.read(hub.roster)
    members = tuple(key_format.read_key(hub.key(name)).public for name in ("phantom", "site-a"))
    new = replace(held, members=members, policy=Policy("members", 2, 1), sequence=2, previous=held.digest)
    roster_format.write(second_roster(hub), new, key_format.read_key(hub.key("coordinator")))
    accept_all(second_roster(hub), [hub.key("phantom")])


def test_a_coordinator_that_weakens_the_roster_gets_nothing(hub: Hub) -> None:
    """Neither an upload under it, nor the model for its invented member."""
    first_round(hub)
    weaken(hub)
    assert "consents" in str(hub.coordinate().waiting_for)
    exchange = Exchange(hub.exchange)
    round_ = read_round(exchange, 1)
    found = read_receipt(exchange, 1, round_)
    assert found is not None
    newer = roster_format.read(second_roster(hub))
    following = agreed(read_statements(exchange, 1, round_), found[0], round_)
    plan = next_plan(round_, following, newer, newer.names, 4)
    plan_format.write(exchange.make_place(Kind.PLAN, 2), plan, key_format.read_key(hub.key("coordinator")))
    before = sorted(path for path in hub.exchange.rglob("*") if path.is_file())
    told = str(hub.site("site-a").waiting_for)
    assert told.startswith("people here to accept the roster of round 2: look at it and accept it: ucadi roster accept")
    assert "federation-0002.json --key" in told
    assert sorted(path for path in hub.exchange.rglob("*") if path.is_file()) == before
    # even if somebody accepts it without reading, the policy says what was agreed to
    accept_all(second_roster(hub), [hub.key("site-a")])
    assert "a sum that any one member opens" in str(hub.site("site-a").waiting_for)
    assert uploads(hub, 2) == []


def test_a_newer_roster_is_told_before_a_round_has_it_and_holds_once_all_have_accepted(hub: Hub) -> None:
    first_round(hub)
    make_party(hub.folder, "site-d", 4)
    card, coordinator = hub.folder / "site-d/site-d.card", hub.key("coordinator")
    roster_add([card], roster=hub.roster, key=coordinator, output=second_roster(hub))
    assert "to accept the roster of round 2" in str(hub.site("site-b").waiting_for)
    accept_all(second_roster(hub), [hub.key(site) for site in ("site-a", "site-d")])
    waits = str(hub.coordinate().waiting_for)
    assert waits == "the consents to the roster of round 2, of site-b, site-c"
    accept_all(second_roster(hub), [hub.key(site) for site in ("site-b", "site-c")])
    models = set()
    for _ in range(6):
        models = {hub.site(site).model for site in hub.sites} | {hub.site("site-d").model}
        hub.coordinate()
    assert len({model and model.name for model in models}) == 1
    assert uploads(hub, 2) == ["site-a", "site-b", "site-c", "site-d"]


def test_a_rotated_key_takes_part_in_the_next_round(hub: Hub) -> None:
    first_round(hub)
    new = hub.folder / "site-b/new"
    new.mkdir()
    keygen("site-b", output=new, replaces=hub.key("site-b"))
    coordinator = hub.key("coordinator")
    roster_rotate([new / "site-b.card"], roster=hub.roster, key=coordinator, output=second_roster(hub))
    accept_all(second_roster(hub), [hub.key("site-a"), hub.key("site-c"), new / "site-b.key"])
    rotated: dict[str, Any] = {"key": new / "site-b.key", "work": hub.work("site-b")}
    for _ in range(6):
        done = [hub.site("site-a"), hub.site("site-b", **rotated), hub.site("site-c")]
        hub.coordinate()
    assert len({one.model and one.model.name for one in done}) == 1
    assert uploads(hub, 2) == ["site-a", "site-b", "site-c"]


def test_a_round_outside_the_policy_is_waited_out_and_its_line_named(hub: Hub) -> None:
    path = hub.key("site-a").with_suffix(".policy.toml")
    policy_format.write(path, replace(policy_format.read(path), largest_weight_cap=100), force=True)
    assert "largest_weight_cap = 100" in str(hub.site("site-a").waiting_for)
    policy_format.write(path, replace(policy_format.read(path), largest_weight_cap=65536), force=True)
    hub.site("site-a")
    assert uploads(hub, 1) == ["site-a"]


@pytest.mark.parametrize("after", ["upload", "answer", "statement"])
def test_a_rolled_back_ledger_stops_its_site_until_people_say_what_is_known(hub: Hub, after: str) -> None:
    if after == "upload":
        hub.site("site-a")
    else:
        for site in hub.sites:
            hub.site(site)
        hub.coordinate(until_round=1)
        for site in (*hub.sites, "site-a"):  # tags first
            hub.site(site)
    if after == "statement":
        first_round(hub)
    forget(hub.key("site-a"))
    with pytest.raises(MismatchError, match="knows nothing of it") as caught:
        hub.site("site-a")
    assert "accept-loss" in str(caught.value.hint)
    result = ledger_accept_loss(key=hub.key("site-a"), exchange=hub.exchange, yes=True)
    assert any("round 1" in line or "lost" in line for line in result.entered)
    roster_accept(hub.roster_in_exchange, key=hub.key("site-a"), yes=file_digest(hub.roster))
    assert hub.play()


def test_a_coordinator_restored_from_a_backup_signs_no_second_sum(hub: Hub, tmp_path: Path) -> None:
    """Its exchange is older than its ledger: one upload is not there any more, and the sum is not either."""
    for site in hub.sites:
        hub.site(site)
    shutil.copytree(hub.exchange, tmp_path / "backup")
    hub.coordinate()
    shutil.rmtree(hub.exchange)
    shutil.copytree(tmp_path / "backup", hub.exchange)
    upload = Exchange(hub.exchange).path(Kind.UPLOAD, 1, "site-b")
    kept = upload.read_bytes()
    upload.unlink()
    with pytest.raises(MismatchError):
        hub.coordinate(deadline=0.0)
    assert not Exchange(hub.exchange).has(Kind.SUM, 1)
    upload.write_bytes(kept)  # brought back by the site or the relay: the very same sum
    assert hub.coordinate().rounds[1] == "closed"


def test_a_member_that_left_is_not_waited_for(hub: Hub) -> None:
    first_round(hub)
    make_party(hub.folder, "site-d", 4)
    roster_add(
        [hub.folder / "site-d/site-d.card"], roster=hub.roster, key=hub.key("coordinator"), output=second_roster(hub)
    )
    third = hub.exchange / "federation-0003.json"
    roster_remove(["site-d"], roster=second_roster(hub), key=hub.key("coordinator"), output=third, threshold=3)
    for roster in (second_roster(hub), third):
        accept_all(roster, [hub.key(site) for site in hub.sites])
    for _ in range(5):
        for site in hub.sites:
            hub.site(site)
        result = hub.coordinate()
    assert result.rounds == {1: "closed", 2: "closed"}
