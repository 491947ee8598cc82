"""Loops and tags: a site tags its upload once, waits for the others', and opens no sum that it could not check."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attack import replace_ciphertext, resign
from hints import raises_with_hint
from looping import Hub, make_hub

from ucadi.errors import MismatchError
from ucadi.events import Events
from ucadi.federation.member import Site
from ucadi.federation.private import Private
from ucadi.federation.station import Options
from ucadi.formats import keys as key_format
from ucadi.formats import partial as partial_format
from ucadi.formats import policy as policy_format
from ucadi.formats import roster as roster_format
from ucadi.formats import tag as tag_format
from ucadi.formats.container import file_digest
from ucadi.formats.exchange import Exchange
from ucadi.formats.tag import SiteTag
from ucadi.kinds import Kind
from ucadi.rounds.closing import read_round
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.succession import read_statements

SITES = ("site-a", "site-b", "site-c")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """Three sites, two of which open a sum; round 1 is closed, and nothing is tagged yet. Not to be changed."""
    hub = make_hub(tmp_path_factory.mktemp("closed") / "hub", SITES, threshold=2, minimum_sites=3, rounds=1)
    for site in SITES:
        hub.site(site)
    hub.coordinate()
    return hub


@pytest.fixture
def hub(made: Hub, tmp_path: Path) -> Hub:
    """A copy of it that a test may change."""
    return made.copy(tmp_path / "hub")


def place(hub: Hub, kind: Kind, site: str = "") -> Path:
    return Exchange(hub.exchange).path(kind, 1, site)


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_late_tag_is_awaited_by_name_and_then_the_round_goes_on(hub: Hub) -> None:
    for _ in range(2):
        assert hub.site("site-a").waiting_for == "tags, by which the sum of round 1 is checked, of site-b, site-c"
    hub.site("site-b")
    assert hub.coordinate().waiting_for == "tags, by which the sum of round 1 is checked, of site-c"
    assert not place(hub, Kind.PARTIAL, "site-a").exists()
    hub.site("site-c")
    model = hub.play()
    exchange = Exchange(hub.exchange)
    round_ = read_round(exchange, 1)
    assert {said.model for said in read_statements(exchange, 1, round_).values()} == {model}
    assert all(said.unchecked == () for said in read_statements(exchange, 1, round_).values())
    assert all(not partial_format.read(exchange.root / one.name).unchecked for one in exchange.places(Kind.PARTIAL))


def test_a_tag_is_made_though_the_upload_is_gone_from_its_place(hub: Hub) -> None:
    """A courier took it away, and somebody emptied the folder."""
    shutil.rmtree(place(hub, Kind.UPLOAD, "site-a").parent)
    hub.site("site-a")
    assert place(hub, Kind.TAG, "site-a").exists()
    assert not list(hub.work("site-a").glob("*.enc"))  # not needed any more


def test_without_its_own_folder_a_site_tags_what_lies_in_its_place_or_says_what_it_needs(hub: Hub) -> None:
    for site in SITES[:2]:
        shutil.rmtree(hub.work(site))
    place(hub, Kind.UPLOAD, "site-b").unlink()
    hub.site("site-a")
    assert place(hub, Kind.TAG, "site-a").exists()
    assert "this site's own upload of round 1" in str(hub.site("site-b").waiting_for)


def test_a_tag_stands_for_good_and_a_second_receipt_is_refused(hub: Hub) -> None:
    hub.site("site-a")
    before = place(hub, Kind.TAG, "site-a").read_bytes()
    resign(place(hub, Kind.RECEIPT), lambda receipt: receipt.update(refused={"x": "y"}), hub.key("coordinator"))
    for _ in range(2):
        with raises_with_hint(MismatchError, "another receipt than the one that site-a was given", "tell the other"):
            hub.site("site-a")
        shutil.rmtree(hub.work("site-a"))  # what it had published still stands
        assert place(hub, Kind.TAG, "site-a").read_bytes() == before


def test_whatever_lies_in_a_sites_own_place_gives_way_and_in_anothers_it_is_told(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.site("site-b")
    mine = place(hub, Kind.TAG, "site-a")
    for rubbish in (b"rubbish", place(hub, Kind.TAG, "site-b").read_bytes()):
        mine.write_bytes(rubbish)
        hub.site("site-a")
        assert tag_format.read(mine, roster_format.read(hub.roster)).site == "site-a"
    place(hub, Kind.TAG, "site-c").write_bytes(b"rubbish")
    capsys.readouterr()
    assert hub.site("site-a").waiting_for == "tags, by which the sum of round 1 is checked, of site-c"
    (told,) = [event for event in events(capsys) if event["event"] == "refused"]
    assert told["file"] == "site-c.json"


def test_a_coordinator_that_changed_the_sum_gets_no_answer(hub: Hub) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["ciphertext"][0, 5] += np.uint64(12345 << 8)

    replace_ciphertext(place(hub, Kind.SUM), hub.key("coordinator"), change)
    digest = file_digest(place(hub, Kind.SUM))
    resign(place(hub, Kind.RECEIPT), lambda receipt: receipt.update(aggregate=digest), hub.key("coordinator"))
    hub.site("site-a")
    hub.site("site-b")
    for site in ("site-c", "site-a", "site-b", "site-a"):  # a loop that is started again says it again
        with raises_with_hint(
            MismatchError, "round 1: the coordinator's sum is not that of the uploads", "do not open"
        ):
            hub.site(site)
    assert not Exchange(hub.exchange).places(Kind.PARTIAL)
    assert not any(b'"answered"' in ledger.read_bytes() for ledger in hub.folder.rglob("*.ledger"))


def test_a_site_that_lies_in_its_tag_is_named_by_the_coordinator(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    for site in SITES:
        hub.site(site) if site != "site-c" else lie(hub, site)
    with raises_with_hint(MismatchError, "or the tag of one of these sites is false", "names a false tag"):
        hub.site("site-a")
    capsys.readouterr()
    waiting = hub.coordinate().waiting_for
    assert waiting == "an end of round 1, which nobody opens: the tag of site-c is not that of its upload"
    assert [event["site"] for event in events(capsys) if event["event"] == "false tag"] == ["site-c"]


def lie(hub: Hub, site: str) -> None:
    honest = tag_format.read(place(hub, Kind.TAG, "site-a"), roster_format.read(hub.roster))
    false = SiteTag(honest.federation, honest.plan, honest.receipt, site, honest.sums)
    tag_format.write(place(hub, Kind.TAG, site), false, key_format.read_key(hub.key(site)))


def test_a_site_that_waits_for_so_long_only_goes_on_and_states_what_was_not_checked(hub: Hub) -> None:
    hub.site("site-a")
    for site in ("site-b", "site-a", "site-b"):
        impatient(hub, site)
    exchange = Exchange(hub.exchange)
    round_ = read_round(exchange, 1)
    assert partial_format.read(place(hub, Kind.PARTIAL, "site-b")).unchecked == ("site-c",)
    said = read_statements(exchange, 1, round_)
    assert {site: one.unchecked for site, one in said.items()} == {"site-a": ("site-c",), "site-b": ("site-c",)}
    assert hub.coordinate().model is not None


def impatient(hub: Hub, site: str) -> None:
    """A site's loop that waits for no tag any longer."""
    data = hub.folder / site / "data.h5"
    options = Options(data, None, None, None, False, False, False)
    policy = hub.key(site).with_suffix(".policy.toml")
    policy_format.write(policy, replace(policy_format.read(policy), wait_for_tags=0.0), force=True)
    keys, trusted = key_format.read_key(hub.key(site)), roster_format.read(hub.roster)
    private, exchange = Private(hub.work(site)), Exchange(hub.exchange)
    agreement = Agreement(hub.key(site), keys)
    loop = Site(exchange, trusted, keys, hub.key(site), agreement, private, options, Events(as_json=True))
    while loop.advance():
        pass
