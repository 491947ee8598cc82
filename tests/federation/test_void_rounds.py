"""Rounds that a malicious site spoils, in the loops: they become void by all sites' word, and nobody stops for good."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from attack import replace_ciphertext
from looping import SIZE, SLICES, Hub, make_hub
from malice import Parts, Words, add_to_value, deal_falsely, write_false_upload

from ucadi.commands.audit import audit
from ucadi.commands.round_status import round_status
from ucadi.ct.volume import Volume
from ucadi.errors import MismatchError
from ucadi.formats import dataset
from ucadi.formats import keys as key_format
from ucadi.formats import plan as plan_format
from ucadi.formats import statement as statement_format
from ucadi.formats import update as update_format
from ucadi.formats.container import file_digest
from ucadi.formats.dataset import Case
from ucadi.formats.exchange import Exchange
from ucadi.formats.statement import Statement, Vote
from ucadi.kinds import Kind
from ucadi.labels import Diagnosis
from ucadi.rounds.closing import read_receipt, read_round
from ucadi.rounds.round import Round
from ucadi.rounds.succession import Following, Voided, agreed

FOUR = ("site-a", "site-b", "site-c", "site-d")


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """Three sites that have uploaded in round 1 of two. Not to be changed."""
    return uploaded(make_hub(tmp_path_factory.mktemp("members") / "hub", quorum=2))


@pytest.fixture(scope="module")
def closed(members: Hub, tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """The same, once round 1 is closed."""
    hub = members.copy(tmp_path_factory.mktemp("closed") / "hub")
    hub.coordinate()
    return hub


@pytest.fixture(scope="module")
def holders(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """Four sites of which three open a sum; they have uploaded. Not to be changed."""
    return uploaded(make_hub(tmp_path_factory.mktemp("holders") / "hub", FOUR, threshold=3, minimum_sites=3))


def uploaded(hub: Hub) -> Hub:
    for site in hub.sites:
        hub.site(site)
    return hub


def spoil(hub: Hub, site: str, change: Words, parts: Parts | None = None, number: int = 1) -> None:
    """A site puts a false upload in the place of its own."""
    exchange = Exchange(hub.exchange)
    round_, keys = read_round(exchange, number), key_format.read_key(hub.key(site))
    (update,) = hub.work(site).glob(f"round-{number:04}-*.update")
    path = exchange.path(Kind.UPLOAD, number, site)
    write_false_upload(path, update_format.read_update(update), round_, keys, change, parts)
    shutil.copy(path, update.with_suffix(".enc"))  # of which the site makes its tag


def turn(hub: Hub, **options: object) -> None:
    for site in (*hub.sites, *hub.sites):  # once for tags, by which all check the sum, and once for what follows
        hub.site(site, **options)


def base_of(hub: Hub, number: int) -> str:
    return read_round(Exchange(hub.exchange), number).plan.base


def said(hub: Hub, number: int) -> dict[str, Statement]:
    exchange = Exchange(hub.exchange)
    round_ = read_round(exchange, number)
    return {
        site: statement_format.read(exchange.path(Kind.METRICS, number, site), round_.roster.member(site))
        for site in hub.sites
    }


@pytest.mark.parametrize(
    ("reason", "index", "amount"), [("weight", 0, 60_000_000), ("values", 9, 1 << 26), ("padding", -1, 3)]
)
def test_a_sum_that_no_updates_have_makes_the_round_void_and_the_next_begins_where_it_did(
    members: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str, index: int, amount: int
) -> None:
    hub = members.copy(tmp_path / "hub")
    round_ = read_round(Exchange(hub.exchange), 1)
    spoil(hub, "site-c", add_to_value(round_, index % (8192 * round_.polynomials), amount))
    hub.coordinate()
    turn(hub)
    assert {site: one.void for site, one in said(hub, 1).items()} == dict.fromkeys(hub.sites, reason)
    assert round_status(hub.exchange, number=1).outcome == f"void: {reason}, say site-a, site-b, site-c"
    result = hub.coordinate()
    assert (result.rounds, result.void) == ({1: "void", 2: "open"}, {1: reason})
    assert result.model == base_of(hub, 1) == base_of(hub, 2)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"time"')]
    assert {event["why"] for event in events if event["event"] in ("unsound", "void")} == {reason}
    assert not list(hub.exchange.rglob("*.aggregate"))
    # everybody trains again from the same model, and the round after is sound
    model = hub.play()
    assert model != base_of(hub, 1)
    assert all((hub.work(site) / f"{model}.weights").exists() for site in hub.sites)
    assert "void" in audit(hub.exchange).rounds[1].base


def test_a_coordinator_that_calls_a_sound_round_void_is_not_followed(members: Hub, tmp_path: Path) -> None:
    hub = members.copy(tmp_path / "hub")
    hub.coordinate()
    turn(hub)
    hub.coordinate()
    exchange = Exchange(hub.exchange)
    first, second = read_round(exchange, 1), read_round(exchange, 2)
    exchange.plan(2).unlink()
    forged = {**vars(second.plan), "base": first.plan.base, "layout": first.plan.layout}
    plan_format.write(exchange.plan(2), type(second.plan)(**forged), key_format.read_key(hub.key("coordinator")))
    with pytest.raises(MismatchError, match="what was before leads to"):
        hub.site("site-a")
    # while not all statements are here, it may be right, and the site waits
    exchange.path(Kind.METRICS, 1, "site-c").unlink()
    assert hub.site("site-a").waiting_for == ("the sites' statements on the model that round 1 leads to: site-c")


def test_a_member_that_a_site_has_sealed_nonsense_to_goes_on_with_the_model_of_the_others(
    members: Hub, tmp_path: Path
) -> None:
    def for_the_first(sealed: list[bytes]) -> None:
        sealed[0] = bytes(32)

    hub = members.copy(tmp_path / "hub")
    spoil(hub, "site-c", lambda _: None, for_the_first)
    hub.coordinate()
    turn(hub)
    statements = said(hub, 1)
    assert (statements["site-a"].void, statements["site-a"].model) == ("seals", None)
    assert statements["site-b"].model == statements["site-c"].model != base_of(hub, 1)
    model = hub.play()
    assert (hub.work("site-a") / f"{model}.weights").exists()


def test_a_false_share_does_not_stop_the_loops_and_everyone_sees_whose_it_is(holders: Hub, tmp_path: Path) -> None:
    """The attack of one dealer: with three of four needed, one holder's share is false and all others are needed."""
    hub = holders.copy(tmp_path / "hub")
    spoil(hub, "site-d", lambda _: None, deal_falsely([1]))
    hub.coordinate()
    for _ in range(3):
        turn(hub)
    assert {site: one.false_shares for site, one in said(hub, 1).items()}["site-a"] == ("site-b",)
    status = round_status(hub.exchange, number=1)
    assert set(status.false_shares) == {"site-b"}
    assert "false share: of site-b, say" in str(status)
    model = hub.play()
    assert all((hub.work(site) / f"{model}.weights").exists() for site in hub.sites)


def test_more_false_shares_than_can_be_spared_make_the_round_void(holders: Hub, tmp_path: Path) -> None:
    hub = holders.copy(tmp_path / "hub")
    spoil(hub, "site-d", lambda _: None, lambda sealed: sealed.__setitem__(slice(0, 2), [bytes(8192)] * 2))
    hub.coordinate()
    for _ in range(3):
        turn(hub)
    # two false shares of four, with three needed: nobody can open it, all say so, and go on from the same model
    assert {one.void for one in said(hub, 1).values()} == {"shares"}
    assert hub.coordinate().void == {1: "shares"}
    assert base_of(hub, 1) == base_of(hub, 2)


def test_shares_that_disagree_are_waited_out_and_a_missing_holder_settles_it(holders: Hub, tmp_path: Path) -> None:
    hub = holders.copy(tmp_path / "hub")
    spoil(hub, "site-d", lambda _: None, deal_falsely([0]))
    hub.coordinate()
    hub.site("site-d")  # its tag is here, and no more of it
    for site in FOUR[:3] * 2:
        hub.site(site)
    waiting = "more partial decryptions for round 1, since those here disagree, of site-d"
    assert [hub.site(site).waiting_for for site in FOUR[:3]] == [waiting] * 3
    turn(hub)
    turn(hub)
    assert {one.false_shares for one in said(hub, 1).values()} == {("site-a",)}


def test_a_holder_that_cannot_help_says_so_and_goes_on_with_the_model_of_the_others(
    holders: Hub, tmp_path: Path
) -> None:
    def nonsense(tensors: dict[str, np.ndarray]) -> None:
        tensors["sealed"][1] = 255

    hub = holders.copy(tmp_path / "hub")
    upload = Exchange(hub.exchange).path(Kind.UPLOAD, 1, "site-d")
    replace_ciphertext(upload, hub.key("site-d"), nonsense)
    (sent,) = hub.work("site-d").glob("round-0001-*.enc")
    shutil.copy(upload, sent)  # of which it makes its tag
    hub.coordinate()
    for _ in range(3):
        turn(hub)
    statements = said(hub, 1)
    assert statements["site-b"].void == "seals"
    assert all(statements[site].model for site in FOUR if site != "site-b")
    model = hub.play()
    assert all((hub.work(site) / f"{model}.weights").exists() for site in hub.sites)


def test_a_poisoned_model_is_voted_down_on_an_encrypted_sum(
    members: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within all bounds, one site makes the others' only diagnosis impossible; both see it, and begin again."""
    hub = members.copy(tmp_path / "hub")
    tested = tmp_path / "tested.h5"
    write_cases(tested, 12)
    round_ = read_round(Exchange(hub.exchange), 1)
    spoil(hub, "site-c", add_to_value(round_, place_of(round_, "classifier.bias"), -(1 << 22)))
    hub.coordinate()
    for _ in range(2):
        for site in ("site-a", "site-b"):
            hub.site(site, test=tested)
        hub.coordinate()
        hub.site("site-c")
    votes = {site: one.vote for site, one in said(hub, 1).items()}
    assert votes == {"site-a": "worse", "site-b": "worse", "site-c": None}
    result = hub.coordinate()
    assert (result.void, result.votes[1]) == ({1: "votes"}, {"site-a": "worse", "site-b": "worse"})
    assert "round 1: void (votes); site-a votes worse; site-b votes worse" in str(result)
    assert base_of(hub, 1) == base_of(hub, 2)
    assert '"event": "void", "round": 1, "why": "votes"' in capsys.readouterr().out
    status = round_status(hub.exchange, number=1)
    assert (status.votes, status.outcome) == (result.votes[1], "void: votes, say site-a, site-b")
    # the newest model of an honest site is the one before, and it takes part again
    found = hub.site("site-a", test=tested)
    assert found.latest is not None
    assert file_digest(found.latest) == base_of(hub, 1)
    assert found.waiting_for == "the end of round 2"


def test_a_coordinator_that_ignores_the_votes_is_not_followed_by_who_saw_them_first(
    members: Hub, tmp_path: Path
) -> None:
    hub = members.copy(tmp_path / "hub")
    hub.coordinate()
    turn(hub)
    exchange = Exchange(hub.exchange)
    round_ = read_round(exchange, 1)
    for site in ("site-a", "site-b"):
        restate(exchange, round_, hub, site, Vote.WORSE)
    assert hub.site("site-c").waiting_for == "a round after round 1, which is void"
    for site in ("site-a", "site-b"):
        restate(exchange, round_, hub, site, None)
    hub.coordinate()
    with pytest.raises(MismatchError, match="that the sites have made void"):
        hub.site("site-c")


def restate(exchange: Exchange, round_: Round, hub: Hub, site: str, vote: Vote | None) -> None:
    path = exchange.path(Kind.METRICS, 1, site)
    honest = statement_format.read(path, round_.roster.member(site))
    said = Statement(site, honest.plan, honest.model, honest.exponents, vote=vote)
    statement_format.write(path, said, key_format.read_key(hub.key(site)), force=True)


W, N, X = Vote.WORSE, Vote.NOT_WORSE, None


@pytest.mark.parametrize(
    ("votes", "late", "void"),
    [
        ((X, X, X), False, False),  # by nobody
        ((W, X, X), False, False),  # by one
        ((W, N, X), False, False),  # tied
        ((W, W, X), False, True),
        ((W, W, N), False, True),
        ((W, N, N), False, False),
        ((W, X), False, None),  # the third may decide
        ((N, X), False, False),
        ((W, W), False, True),
        ((N, N), False, False),
        ((W, N), False, None),
        ((W, X), True, False),
        ((W, W), True, True),
        ((W,), True, None),  # no majority for a model
    ],
)
def test_how_votes_are_counted(closed: Hub, votes: tuple[Vote | None, ...], late: bool, void: bool | None) -> None:
    exchange = Exchange(closed.exchange)
    round_ = read_round(exchange, 1)
    found = read_receipt(exchange, 1, round_)
    assert found is not None
    exponents = (0,) * len(round_.plan.layout.tensors)
    statements = {
        site: Statement(site, round_.plan_digest, "a" * 64, exponents, vote=vote)
        for site, vote in zip(closed.sites, votes, strict=False)
    }
    outcome = agreed(statements, found[0], round_, late=late)
    expected = {None: type(None), True: Voided, False: Following}[void]
    assert isinstance(outcome, expected)


def place_of(round_: Round, name: str) -> int:
    """Where a tensor begins in the encoded vector."""
    start = 1
    for tensor in round_.plan.layout.tensors:
        if tensor.name == name:
            return start
        start += tensor.size
    raise AssertionError(name)


def write_cases(path: Path, count: int) -> None:
    """Patients who all have the first diagnosis."""
    rng = np.random.default_rng(3)
    made = []
    for number in range(count):
        hu = rng.integers(-1000, 300, (SLICES, SIZE, SIZE)).astype(np.int16)
        volume = Volume(hu, np.diag([1.0, 1.0, 1.0, 1.0]))
        identity = f"{number:016x}"
        made.append(Case(identity, identity, Diagnosis(0), volume, volume.positions_mm, {}, "ab" * 32, ()))
    dataset.write(path, made, [], size=SIZE, attributes={}, force=True)
