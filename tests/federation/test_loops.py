"""Loops: rounds that run by themselves, with sites that are killed, late, new, gone, and come back."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from commandline import to_set
from federation import accept_all
from looping import Hub, make_hub, make_party, run_until_killed, write_dataset

from ucadi.commands.audit import audit
from ucadi.commands.courier import courier_pack, courier_unpack
from ucadi.commands.roster import roster_add, roster_remove
from ucadi.commands.round_open import round_open
from ucadi.commands.round_times import round_times
from ucadi.commands.split import split
from ucadi.commands.verify import verify
from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.fed.fixedpoint import is_norm
from ucadi.federation.coordinator import CoordinateResult, coordinate
from ucadi.federation.site import site_run
from ucadi.formats import handover as handover_format
from ucadi.formats import keys as key_format
from ucadi.formats import statement as statement_format
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.container import file_digest
from ucadi.formats.exchange import Exchange
from ucadi.formats.statement import Statement
from ucadi.kinds import Kind
from ucadi.rounds.closing import read_round
from ucadi.rounds.handing import check_handover, open_handover


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """Three sites, two rounds, nothing done yet."""
    return make_hub(tmp_path_factory.mktemp("fresh") / "hub", quorum=2)


@pytest.fixture(scope="module")
def model(fresh: Hub, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the two rounds of `fresh` lead to when nothing goes wrong."""
    return fresh.copy(tmp_path_factory.mktemp("undisturbed") / "hub").play()


def models(hub: Hub, site: str) -> set[str]:
    return {path.stem for path in hub.work(site).glob("*.weights") if not path.is_symlink()}


def test_every_site_ends_with_the_same_model_and_the_coordinator_never_sees_it(
    fresh: Hub, model: str, tmp_path: Path
) -> None:
    hub = fresh.copy(tmp_path / "hub")
    assert hub.play() == model
    for site in hub.sites:
        held = hub.work(site) / f"{model}.weights"
        assert file_digest(held) == model
        assert hub.site(site).model == held
    first = file_digest(hub.exchange / "models" / "0001.weights")
    weights = [path for path in hub.exchange.rglob("*") if path.suffix in (".weights", ".update", ".aggregate")]
    assert [file_digest(path) for path in weights] == [first]


@pytest.mark.parametrize("party", [pytest.param("site-b", marks=pytest.mark.slow), "coordinator"])
def test_killed_before_any_file_appears_a_loop_goes_on_to_the_same_model(
    fresh: Hub, model: str, tmp_path: Path, party: str
) -> None:
    at = 0
    while play_with_a_kill(fresh.copy(tmp_path / str(at)), party, at) == model:
        shutil.rmtree(tmp_path / str(at))
        at += 1
    assert at > 5


def play_with_a_kill(hub: Hub, party: str, at: int) -> str | None:
    """The last model, when a party is killed once at file `at`; None if it makes fewer files than that."""
    was_killed = False

    def turn(name: str) -> CoordinateResult | None:
        nonlocal was_killed
        if name == party and not was_killed:
            loop = coordinate if name == "coordinator" else site_run
            options = hub.coordinator_options() if name == "coordinator" else hub.site_options(name)
            was_killed = run_until_killed(loop, options, hub.folder / "count", at)
        if name == "coordinator":
            return hub.coordinate()
        if was_killed or name != party:
            hub.site(name)
        return None

    for _ in range(12):
        for name in hub.sites:
            turn(name)
        result = turn("coordinator")
        assert result is not None
        if result.waiting_for is None:
            return result.model if was_killed else None
    raise AssertionError(f"waiting for {result.waiting_for}")


def test_a_site_that_joins_gets_the_model_from_a_member(fresh: Hub, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    one_round(hub)
    make_party(hub.folder, "site-d", 9)
    cards = [hub.folder / "site-d" / "site-d.card"]
    joined = Hub(hub.folder, (*hub.sites, "site-d"))
    roster = hub.exchange / "federation-0002.json"
    roster_add(cards, roster=hub.roster, key=hub.key("coordinator"), output=roster)
    accept_all(roster, [hub.key(site) for site in joined.sites])
    hub.coordinate()  # opens round 2 with the new roster
    assert hub.site("site-d").waiting_for == "the model that round 2 begins with"
    model = joined.play()
    assert models(joined, "site-d") >= {model}
    assert (hub.work("site-d") / f"{model}.weights").read_bytes() == (
        hub.work("site-a") / f"{model}.weights"
    ).read_bytes()
    receipt = audit(hub.exchange).rounds[1]
    assert receipt.sites == ("site-a", "site-b", "site-c", "site-d")


def one_round(hub: Hub) -> None:
    """Plays round 1 and lets every site open its sum."""
    for site in hub.sites:
        hub.site(site)
    hub.coordinate()
    hub.follow()


def test_a_handover_opens_for_members_only_and_only_to_the_planned_model(fresh: Hub, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    one_round(hub)
    make_party(hub.folder, "site-d", 9)
    make_party(hub.folder, "stranger", 10)
    roster, cards = hub.exchange / "federation-0002.json", [hub.folder / "site-d" / "site-d.card"]
    roster_add(cards, roster=hub.roster, key=hub.key("coordinator"), output=roster)
    accept_all(roster, [hub.key(site) for site in (*hub.sites, "site-d")])
    hub.coordinate()
    hub.site("site-a")
    exchange = Exchange(hub.exchange)
    place = exchange.path(Kind.HANDOVER, 2, "site-a")
    round_, held = read_round(exchange, 2), handover_format.read(place)
    check_handover(held, round_, place.name)
    for name in ("stranger", "coordinator"):
        with pytest.raises(MismatchError):
            open_handover(held, round_, key_format.read_key(hub.key(name)), tmp_path / "stolen")
    assert not (tmp_path / "stolen").exists()
    for index in (0, place.stat().st_size // 2, -1):  # a flipped bit anywhere
        data = bytearray(place.read_bytes())
        data[index] ^= 1
        spoiled = tmp_path / "spoiled.sealed"
        spoiled.write_bytes(data)
        with pytest.raises((FormatError, MismatchError)):
            check_handover(handover_format.read(spoiled), round_, "spoiled")
    # renamed into another member's place, it is passed over, and the good one taken
    shutil.copy(place, exchange.path(Kind.HANDOVER, 2, "site-b"))
    place.unlink()
    assert hub.site("site-d").waiting_for == "the model that round 2 begins with"
    hub.site("site-a")
    assert hub.site("site-d").waiting_for == "the end of round 2"


def test_a_site_that_missed_a_round_and_lost_its_folder_comes_back(tmp_path: Path) -> None:
    hub = make_hub(tmp_path / "hub", rounds=3, quorum=2)
    for site in ("site-a", "site-b"):
        hub.site(site)
    assert hub.coordinate().waiting_for == "uploads of round 1: site-c"
    hub.coordinate(deadline=0)  # quorum 2: closed without site-c
    hub.follow(("site-a", "site-b"))
    result = hub.coordinate()
    assert result.missing[1] == ("site-c",)
    assert result.rounds == {1: "closed", 2: "open"}
    hub.site("site-c")  # opens the sum of the round that it missed, and takes part in the next
    assert len(models(hub, "site-c")) == 2
    shutil.rmtree(hub.work("site-b"))
    model = hub.play()
    assert models(hub, "site-b") >= {model}
    assert "site-c" in audit(hub.exchange).rounds[1].sites


def test_a_late_upload_is_told_and_changes_nothing(
    fresh: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = fresh.copy(tmp_path / "hub")
    own = hub.own_exchange("site-c")
    shutil.copytree(hub.exchange, own)
    for site in ("site-a", "site-b"):
        hub.site(site)
    hub.coordinate(deadline=0)
    receipt = (hub.exchange / "rounds" / "0001" / "receipt.json").read_bytes()
    hub.site("site-c", exchange=own)  # knows nothing of the round's end
    upload = Path("rounds/0001/uploads/site-c.enc")
    shutil.copy(own / upload, hub.exchange / upload)
    capsys.readouterr()
    hub.coordinate()
    assert '"event": "late", "round": 1, "site": "site-c"' in capsys.readouterr().out
    assert (hub.exchange / "rounds" / "0001" / "receipt.json").read_bytes() == receipt


def test_below_the_quorum_a_round_is_void_and_the_next_begins_where_it_did(fresh: Hub, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    hub.site("site-a")
    result = hub.coordinate(deadline=0, until_round=3)
    assert result.rounds[1] == "void"
    assert result.missing[1] == ("site-b", "site-c")
    exchange = Exchange(hub.exchange)
    first, second = (read_round(exchange, number).plan for number in (1, 2))
    assert first.base == second.base
    assert not exchange.sum(1).exists()


def test_a_coordinator_that_changes_the_model_is_found_out(fresh: Hub, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    one_round(hub)
    exchange = Exchange(hub.exchange)
    round_ = read_round(exchange, 1)
    # the members' statements replaced by forged ones: their signatures do not hold, so nothing is opened
    honest = {}
    for site in hub.sites:
        path = exchange.path(Kind.METRICS, 1, site)
        honest[site] = path.read_bytes()
        keys = key_format.read_key(hub.key("coordinator"))
        statement_format.write(path, Statement("coordinator", round_.plan_digest, "f" * 64, (0,)), keys, force=True)
    assert hub.coordinate().rounds == {1: "closed"}
    for site, data in honest.items():
        exchange.path(Kind.METRICS, 1, site).write_bytes(data)
    # two members of three who lie together lead the coordinator astray, and the third stops
    exponents = statement_format.read(
        exchange.path(Kind.METRICS, 1, "site-c"), round_.roster.member("site-c")
    ).exponents
    for site in ("site-a", "site-b"):
        keys = key_format.read_key(hub.key(site))
        lie = Statement(site, round_.plan_digest, "f" * 64, exponents)
        statement_format.write(exchange.path(Kind.METRICS, 1, site), lie, keys, force=True)
    hub.coordinate()
    with pytest.raises(MismatchError, match="begins with ffffffff"):
        hub.site("site-c")


def test_sites_that_disagree_on_the_model_stop_the_rounds(fresh: Hub, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    one_round(hub)
    exchange = Exchange(hub.exchange)
    round_ = read_round(exchange, 1)
    for site, digit in zip(hub.sites, "abc", strict=True):
        path = exchange.path(Kind.METRICS, 1, site)
        honest = statement_format.read(path, round_.roster.member(site))
        other = Statement(site, round_.plan_digest, digit * 64, honest.exponents)
        statement_format.write(path, other, key_format.read_key(hub.key(site)), force=True)
    with pytest.raises(MismatchError, match="disagree on the model"):
        hub.coordinate()


def test_a_removed_member_takes_no_part_any_more(tmp_path: Path) -> None:
    hub = make_hub(tmp_path / "hub", ("site-a", "site-b", "site-c", "site-d"))
    one_round(hub)
    roster = hub.exchange / "federation-0002.json"
    roster_remove(["site-d"], roster=hub.roster, key=hub.key("coordinator"), output=roster)
    accept_all(roster, [hub.key(site) for site in hub.sites[:3]])
    hub.coordinate()
    assert hub.site("site-d").waiting_for == "a round whose roster lists this site"
    Hub(hub.folder, hub.sites[:3]).play()
    assert audit(hub.exchange).rounds[1].sites == ("site-a", "site-b", "site-c")


def test_only_the_sites_drawn_take_part_and_all_follow(tmp_path: Path) -> None:
    hub = make_hub(tmp_path / "hub", ("site-a", "site-b", "site-c", "site-d"), rounds=3)
    accept_all(hub.roster_in_exchange, [hub.key(site) for site in hub.sites], "lot=true")
    one_round(hub)
    drawn = []
    for _ in range(12):
        result = hub.coordinate(sites=2)
        if result.waiting_for is None:
            break
        for site in hub.sites:
            hub.site(site)
    exchange = Exchange(hub.exchange)
    drawn = [read_round(exchange, number).plan.sites for number in exchange.rounds()]
    assert [len(sites) for sites in drawn] == [4, 2, 2]
    assert result.model is not None
    assert all(models(hub, site) >= {result.model} for site in hub.sites)


def test_in_threshold_mode_holders_answer_by_themselves(tmp_path: Path) -> None:
    hub = make_hub(tmp_path / "hub", threshold=2, minimum_sites=3, rounds=1)
    model = hub.play()
    assert all(models(hub, site) >= {model} for site in hub.sites)
    assert len(list((hub.exchange / "rounds" / "0001" / "partials").iterdir())) >= 2


def test_by_courier_the_rounds_lead_to_the_same_model(fresh: Hub, model: str, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    stick = tmp_path / "stick"
    for _ in range(12):
        for site in hub.sites:
            own = hub.own_exchange(site)
            own.mkdir(exist_ok=True)
            courier_pack(hub.exchange, receiver=site, output=stick, force=True)
            courier_unpack(stick, own, roster=hub.roster)
            hub.site(site, exchange=own)
            courier_pack(own, receiver="coordinator", output=stick, force=True)
            courier_unpack(stick, hub.exchange, roster=hub.roster)
        result = hub.coordinate()
        if result.waiting_for is None:
            break
    assert result.model == model
    for site in hub.sites:
        others = [name for name in hub.sites if name != site]
        assert not any(path.stem in others for path in hub.own_exchange(site).rglob("*.enc"))


def test_published_sums_let_everyone_recompute_the_models(fresh: Hub, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    for _ in range(12):
        for site in hub.sites:
            hub.site(site, publish_model=True, test=hub.folder / site / "data.h5", publish_metrics=True)
        if hub.coordinate().waiting_for is None:
            break
    exchange = Exchange(hub.exchange)
    assert len(exchange.places(Kind.OPENED)) == 6
    statement = statement_format.read(
        exchange.path(Kind.METRICS, 2, "site-a"), read_round(exchange, 2).roster.members[0]
    )
    assert statement.metrics is not None
    assert set(statement.metrics) == {"auc", "sensitivity", "specificity", "accuracy"}
    assert statement.seconds is not None
    assert set(statement.seconds) == {"training", "encryption", "decryption"}
    assert (
        hub.site("site-a", test=hub.folder / "site-a/data.h5", publish_metrics=True).metrics.keys()
        == statement.metrics.keys()
    )


def test_a_first_model_of_other_weights_than_planned_is_not_trained_from(fresh: Hub, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    first = hub.exchange / "models" / "0001.weights"
    held = weights_format.read(first)
    changed = {name: array + 1 for name, array in held.arrays.items()}
    weights_format.write(first, weights_format.Weights(changed, held.architecture, held.origin), force=True)
    assert hub.site("site-a").waiting_for == "the model that round 1 begins with"
    weights_format.write(first, held, force=True)
    assert hub.site("site-a").waiting_for == "the end of round 1"


def test_norms_that_stay_at_home_are_kept_from_round_to_round(fresh: Hub, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    exchange = Exchange(hub.exchange)
    exchange.plan(1).unlink()
    (tmp_path / "recipe.toml").write_text("local_norms = true\n")
    round_open(
        number=1,
        base=hub.folder / "base.weights",
        exchange=hub.exchange,
        key=hub.key("coordinator"),
        recipe=tmp_path / "recipe.toml",
        settings=to_set(total_epochs=2, batch_size=2, learning_rate=0.1),
    )
    model = hub.play()
    base = weights_format.read(hub.folder / "base.weights").arrays
    shared = weights_format.read(hub.work("site-a") / f"{model}.weights").arrays
    norms = [name for name in base if is_norm(name)]
    assert norms
    assert all((shared[name] == base[name]).all() for name in norms)
    assert any((shared[name] != base[name]).any() for name in base)
    first, second = sorted(hub.work("site-a").glob("*.update"))
    one, two = update_format.read_update(first).deltas, update_format.read_update(second).deltas
    assert any((one[name] != 0).any() for name in norms)
    # the second round began with the norms that the first had made: running means went on from there
    means = [name for name in norms if name.endswith("running_mean")]
    assert all(abs(two[name]).sum() > abs(one[name]).sum() for name in means)


def test_only_the_coordinators_own_clock_counts_and_one_that_went_back_waits(fresh: Hub, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    for site in ("site-a", "site-b"):
        hub.site(site)
    plan = hub.exchange / "rounds" / "0001" / "plan.json"
    os.utime(plan, (time.time() + 86_400, time.time() + 86_400))  # the clock has gone back a day since
    assert hub.coordinate(deadline=60).waiting_for == "uploads of round 1: site-c"
    os.utime(plan, (time.time() - 61, time.time() - 61))
    assert hub.coordinate(deadline=60).rounds[1] == "closed"


def test_verify_tells_of_a_whole_directory_and_times_account_for_its_rounds(fresh: Hub, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    for site in ("site-a", "site-b"):
        hub.site(site)
    hub.coordinate(deadline=0)
    (hub.exchange / "rounds" / "0001" / "uploads" / "site-c.enc").write_bytes(b"no ciphertext")
    hub.follow(("site-a", "site-b"))
    hub.coordinate()
    first, second = verify([hub.exchange]).rounds
    assert (first.state, first.contributed, first.missing) == ("closed", ("site-a", "site-b"), ("site-c",))
    assert list(first.refused) == ["site-c.enc"]
    assert second.state == "open"
    (times,) = round_times(hub.exchange).rounds
    assert (times.round, times.sites) == (1, 2)
    sizes = [(hub.exchange / "rounds/0001" / name).stat().st_size for name in ("uploads/site-a.enc", "sum.enc")]
    assert times.transfer == pytest.approx(sum(sizes) / 900_000)
    parts = (times.training, times.encryption, times.aggregation, times.decryption)
    assert all(part is not None and part >= 0 for part in parts)
    assert times.total == pytest.approx(times.transfer + sum(part or 0 for part in parts))
    with pytest.raises(UsageError, match="verified under their round's plan"):
        verify([hub.exchange / "rounds/0001/sum.enc"])


def test_a_site_recomputes_the_history_with_what_it_keeps(fresh: Hub, model: str, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    assert hub.play() == model
    assert audit(hub.exchange).rounds[1].base == "not recomputed: the opened sum is not at hand"
    assert audit(hub.exchange, models=hub.work("site-b")).rounds[1].base == "recomputed"
    (opened,) = hub.work("site-b").glob("round-0001-*.aggregate")
    held = update_format.read_aggregate(opened)
    total = held.total.copy()
    total[1] += 1
    update_format.write_aggregate(opened, replace(held, total=total), force=True)
    with pytest.raises(MismatchError, match="by the sum that one's own folder opened"):
        audit(hub.exchange, models=hub.work("site-b"))


def test_a_site_trains_on_the_part_that_it_was_told(fresh: Hub, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    split_file = tmp_path / "split.json"
    write_dataset(hub.folder / "site-a" / "data.h5", seed=1, cases=12)
    split(hub.folder / "site-a" / "data.h5", output=split_file, folds=2)
    hub.site("site-a", split=split_file, part="trainval")
    (update,) = hub.work("site-a").glob("*.update")
    examples = update_format.read_update(update).examples
    assert 0 < examples < 12
    with pytest.raises(UsageError, match="test part is not for training"):
        hub.site("site-b", split=split_file, part="test")
