"""The lot: everyone draws the same, nobody steers it, and while it cannot be drawn all members are asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from exchanges import Rounds
from federation import accept_all, make_federation

from ucadi.commands.roster import roster_remove
from ucadi.commands.round_open import round_open
from ucadi.errors import ConsentError, FormatError
from ucadi.formats import keys as key_format
from ucadi.formats import roster as roster_format
from ucadi.formats import statement as statement_format
from ucadi.formats.statement import Statement
from ucadi.identity import SecretKeys
from ucadi.kinds import Kind
from ucadi.rounds.closing import read_round
from ucadi.rounds.lot import ROUNDS, anchor, drawn, is_link, link, links

SITES = tuple(f"site-{letter}" for letter in "abcdef")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    """Six members; round 1 is over, and all but site-f have stated, with their links. Not to be changed."""
    federation = make_federation(tmp_path_factory.mktemp("keys"), SITES)
    accept_all(federation.roster, [federation.key(site) for site in SITES], "lot=true")
    rounds = Rounds.begin(federation, tmp_path_factory.mktemp("exchange"))
    rounds.play(1)
    for site in SITES[:-1]:
        state(rounds, site, 2)
    return rounds


@pytest.fixture
def own(made: Rounds, tmp_path: Path) -> Rounds:
    return made.copy(tmp_path / "own")


def keys(rounds: Rounds, site: str) -> SecretKeys:
    return key_format.read_key(rounds.federation.key(site))


def state(rounds: Rounds, site: str, number: int, lot: str | None = None) -> None:
    statement = Statement(
        site, read_round(rounds.exchange, 1).plan_digest, lot=lot or link(keys(rounds, site), "test", number)
    )
    statement_format.write(rounds.file(Kind.METRICS, 1, site), statement, keys(rounds, site), force=True)


def members(rounds: Rounds) -> roster_format.Roster:
    return roster_format.read(rounds.exchange.newest_roster())


def test_links_lead_to_the_anchor_each_for_its_round() -> None:
    party = SecretKeys.generate("site-a")
    end = anchor(party, "test")
    for number in (1, 2, 77, ROUNDS):
        assert is_link(link(party, "test", number), number, end)
        assert not is_link(link(party, "test", number), number + 1, end)
    assert not is_link(link(party, "other", 3), 3, end)
    assert not is_link(end, 0, end)


def test_all_are_asked_until_every_link_is_here(own: Rounds) -> None:
    roster = members(own)
    assert drawn(roster, 2, 3, links(roster, 2, own.exchange.root)) == SITES
    state(own, "site-f", 2, link(keys(own, "site-f"), "test", 3))  # the link of another round
    assert drawn(roster, 2, 3, links(roster, 2, own.exchange.root)) == SITES
    state(own, "site-f", 2)
    three = drawn(roster, 2, 3, links(roster, 2, own.exchange.root))
    assert len(three) == 3
    assert set(three) < set(SITES)
    fewest = drawn(roster, 2, 1, links(roster, 2, own.exchange.root))
    assert len(fewest) == roster.policy.minimum_sites


def test_a_site_draws_again_and_refuses_what_is_not_drawn(own: Rounds) -> None:
    state(own, "site-f", 2)
    roster = members(own)
    three = drawn(roster, 2, 3, links(roster, 2, own.exchange.root))
    other = tuple(sorted({*three[:-1], next(site for site in SITES if site not in three)}))
    for sites, says in ((three, None), (other, "whom the lot does not draw")):
        plan = own.exchange.plan(2)
        plan.unlink(missing_ok=True)
        plan.parent.mkdir(exist_ok=True)
        round_open(
            number=2,
            base=own.exchange.model(2),
            roster=own.exchange.rosters()[-1],
            key=own.federation.key("coordinator"),
            output=plan,
            site=list(sites),
            quorum=2,
        )
        if says is None:
            own.upload(2, three[0]).unlink()
        else:
            with pytest.raises(ConsentError, match=says):
                own.upload(2, other[0])


def test_a_new_roster_draws_nothing_before_its_first_round_is_over(own: Rounds) -> None:
    """Who changes the roster, or its own anchor, after it has seen the links, gains nothing."""
    state(own, "site-f", 2)
    path = own.exchange.root / "federation-0002.json"
    key = own.federation.key("coordinator")
    roster_remove(["site-a"], roster=own.exchange.roster(1), key=key, output=path)
    accept_all(path, [own.federation.key(site) for site in SITES[1:]])
    newer = members(own)
    assert newer.sequence == 2
    assert drawn(newer, 2, 3, links(newer, 2, own.exchange.root)) == SITES[1:]


def test_each_member_is_drawn_as_often_as_another(own: Rounds) -> None:
    roster = members(own)
    counts: Counter[str] = Counter()
    for number in range(600):
        revealed = {site: f"{number:032x}{place:032x}" for place, site in enumerate(SITES)}
        counts.update(drawn(roster, 2, 3, revealed))
    expected, deviation = 600 / 2, (600 / 4) ** 0.5
    assert all(abs(count - expected) < 5 * deviation for count in counts.values())
    assert len(counts) == len(SITES)


def test_what_a_link_is_not(own: Rounds) -> None:
    path = own.file(Kind.METRICS, 1, "site-a")
    party = keys(own, "site-a")
    statement = statement_format.read(path, party.public)
    statement_format.write(path, replace(statement, lot="zz"), party, force=True)
    with pytest.raises(FormatError):
        statement_format.read(path, party.public)
    assert "site-a" not in links(members(own), 2, own.exchange.root)
