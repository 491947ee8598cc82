"""Robust averages and admission: worked out by hand, beside scipy, and against sites that lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from federation import Federation, make_federation
from hints import raises_with_hint
from scipy import stats

from ucadi.commands.aggregate import aggregate
from ucadi.commands.apply import apply
from ucadi.errors import CapacityError, FormatError, MismatchError, UsageError
from ucadi.fed.fixedpoint import Layout, TensorRange
from ucadi.fed.robust import RULES, encode, krum, median, norm, trimmed_mean
from ucadi.fed.update import PIECE, Update
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format

SITES = ("site-a", "site-b", "site-c", "site-d", "site-e")


def update(site: str, *values: float) -> Update:
    return Update(site, "0" * 64, 1, 1, {"w": np.array(values, np.float32)})


def test_norm_median_and_trimmed_mean_by_hand() -> None:
    updates = [update("a", 1, 10), update("b", 2, -10), update("c", 6, 1000), update("d", 3, 0)]
    assert norm(update("a", 3, 4)) == 5
    np.testing.assert_array_equal(median(updates)["w"], [2.5, 5])
    np.testing.assert_array_equal(trimmed_mean(updates, 1)["w"], [2.5, 5])


def test_krum_takes_one_of_the_crowd_by_hand() -> None:
    crowd = [update("b", 1, 0), update("a", 0, 0), update("c", 0, 1), update("d", 1, 1)]
    assert krum([*crowd, update("liar", 50, 50)], 1).site == "a"  # all four are alike: the first by name


def test_krum_is_blanchards_definition() -> None:
    """Beside a score by the paper's words, for all numbers of wrong updates that so many admit."""
    rng = np.random.default_rng(7)
    chosen = set()
    for count in range(5, 12):
        for wrong in range(1, (count - 3) // 2 + 1):
            deltas = [
                {"v": rng.normal(size=(2, 3)).astype(np.float32), "w": rng.normal(size=4).astype(np.float32)}
                for _ in range(count)
            ]
            updates = [Update(f"s{i:02}", "0" * 64, 1, 1, delta) for i, delta in enumerate(deltas)]
            flat = [np.concatenate([delta["v"].ravel(), delta["w"]]).astype(np.float64) for delta in deltas]
            scores = []
            for i, one in enumerate(flat):
                others = sorted(((one - other) ** 2).sum() for j, other in enumerate(flat) if j != i)
                scores.append(sum(others[: count - wrong - 2]))
            expected = f"s{int(np.argmin(scores)):02}"
            assert krum(rng.permutation(updates).tolist(), wrong).site == expected
            chosen.add(expected)
    assert len(chosen) > 5


def test_large_values_do_not_overflow() -> None:
    """Squares of these are no float32."""
    assert norm(update("a", 3e25, 4e25)) == pytest.approx(5e25)


def test_the_median_of_one_is_itself() -> None:
    found = median([update("a", 1, 10)])["w"]
    assert (found.dtype, found.tolist()) == (np.float32, [1, 10])


@pytest.mark.parametrize("rule", ["median", "krum"])
def test_longer_updates_are_not_cut_to_the_shortest(rule: str) -> None:
    deltas = [np.zeros(PIECE * (1 + i // 2), np.float32) for i in range(5)]
    updates = [Update(f"s{i}", "0" * 64, 1, 1, {"w": delta}) for i, delta in enumerate(deltas)]
    with pytest.raises(ValueError, match="argument"):
        RULES.load(rule)(updates, 1)


def test_rules_are_chosen_by_name() -> None:
    updates = [update(f"s{i}", i) for i in (0, 1, 2, 4, 18)]
    found = {rule: RULES.load(rule)(updates, 1)["w"].tolist() for rule in RULES.names()}
    assert found == {"median": [2], "trimmed-mean": [np.float32(7 / 3)], "krum": [1]}
    with raises_with_hint(UsageError, "'mode'", "median, trimmed-mean, krum$"):
        RULES.load("mode")


def test_a_result_is_encoded_as_one_update_of_the_full_weight() -> None:
    layout = Layout((TensorRange("w", (2,), 0),))
    deltas = {"w": np.array([0.5, 2], np.float32)}
    with pytest.raises(CapacityError, match="update of the result: tensor w"):
        encode(deltas, "0" * 64, layout, cap=6, bits=4, clip=False)
    assert encode(deltas, "0" * 64, layout, cap=6, bits=4, clip=True).tolist() == [6, 4, 7]


def test_they_are_scipys_in_any_order() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(9, 300_000)).astype(np.float32)
    updates = [Update(f"s{i}", "0" * 64, 1, 1, {"w": row.reshape(300, 1000)}) for i, row in enumerate(values)]
    trimmed = trimmed_mean(updates, 2)["w"]
    expected = stats.trim_mean(values.astype(np.float64), 2.1 / 9, axis=0).reshape(300, 1000)
    np.testing.assert_allclose(trimmed, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(trimmed_mean(updates[::-1], 2)["w"], trimmed)
    np.testing.assert_array_equal(median(updates)["w"].ravel(), np.median(values, axis=0))


def test_too_few_updates_for_so_many_wrong_ones_are_refused() -> None:
    updates = [update(f"s{i}", i) for i in range(7)]
    for wrong, needed in ((1, 5), (2, 7)):
        assert krum(updates[:needed], wrong)
        with raises_with_hint(
            UsageError, f"{wrong} faulty updates needs {needed}, here are {needed - 1}", "--max-faulty 1"
        ):
            krum(updates[: needed - 1], wrong)
    assert trimmed_mean(updates[:3], 1)["w"].tolist() == [1]
    for count, trim, most in ((1, 1, 1), (2, 1, 1), (4, 2, 1), (5, 3, 2), (5, 0, 2)):
        with raises_with_hint(
            UsageError, f"{count} updates, {trim} left out", f"--max-faulty: 1 to {most} of {count}$"
        ):
            trimmed_mean(updates[:count], trim)
    with pytest.raises(UsageError):
        krum(updates, 0)


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """Five sites that all found nearly the same; the plan admits a round of three."""
    made = make_federation(tmp_path, SITES)
    made.open_round(2, tmp_path / "plan2.json", quorum=3, headroom=12)
    for site in SITES:
        lie(made, site, 0.5)
    return made


def lie(federation: Federation, site: str, value: float, shape_of: str | None = None) -> None:
    """Writes a site's update in which everything changed by about the same."""
    base = weights_format.read(federation.base)
    rng = np.random.default_rng(SITES.index(site))
    deltas = {
        name: np.asarray(value + rng.normal(0, 1e-3, array.shape), np.float32) for name, array in base.arrays.items()
    }
    if shape_of is not None:
        deltas[shape_of] = np.zeros(3, np.float32)
    update_format.write_update(federation.update(site), Update(site, base.digest, 60_000, 1, deltas), force=True)


def change(federation: Federation, output: Path, **options: object) -> float:
    """By how much the model changes when the plain updates are combined so."""
    plan = {"plan": federation.folder / "plan2.json", "roster": federation.roster}
    aggregate(federation.updates, **plan, output=output, force=True, **options)  # type: ignore[arg-type]
    following = output.with_suffix(".weights")
    apply(federation.base, output, output=following, force=True, **plan)
    before, after = weights_format.read(federation.base).arrays, weights_format.read(following).arrays
    return float(np.mean([np.mean(after[name] - before[name]) for name in before]))


@pytest.mark.parametrize("rule", ["median", "trimmed-mean", "krum"])
def test_one_liar_of_five_moves_the_mean_but_not_these(federation: Federation, tmp_path: Path, rule: str) -> None:
    lie(federation, "site-e", 1000.0)
    assert change(federation, tmp_path / "mean.aggregate") > 100
    assert change(federation, tmp_path / "robust.aggregate", rule=rule) == pytest.approx(0.5, abs=0.05)
    assert update_format.read_aggregate(tmp_path / "robust.aggregate").rule == rule


def test_wrong_updates_are_set_aside_with_their_reasons(federation: Federation, tmp_path: Path) -> None:
    lie(federation, "site-e", 1000.0)
    federation.update("site-d").write_bytes(federation.update("site-d").read_bytes()[:-10])
    output, aside = tmp_path / "sum.aggregate", tmp_path / "aside"
    moved = change(federation, output, max_norm=10, quarantine=aside)
    assert moved == pytest.approx(0.5, abs=0.05)
    assert sorted(path.name for path in aside.iterdir()) == [
        "site-d.update",
        "site-d.update.reason.txt",
        "site-e.update",
        "site-e.update.reason.txt",
    ]
    assert "times the median" in (aside / "site-e.update.reason.txt").read_text()
    assert (aside / "site-d.update").read_bytes() == federation.update("site-d").read_bytes()


def test_without_quarantine_the_first_wrong_update_stops(federation: Federation, tmp_path: Path) -> None:
    lie(federation, "site-e", 1000.0)
    with pytest.raises(CapacityError, match="update of site-e: norm"):
        change(federation, tmp_path / "sum", max_norm=10)
    lie(federation, "site-e", 0.5, shape_of="scale")
    with pytest.raises(MismatchError, match="tensor scale"):
        change(federation, tmp_path / "sum")
    federation.update("site-a").write_bytes(b"no update")
    with pytest.raises(FormatError):
        change(federation, tmp_path / "sum")
    assert not (tmp_path / "sum").exists()


def test_what_is_left_must_make_a_round(federation: Federation, tmp_path: Path) -> None:
    for site in SITES[2:]:
        federation.update(site).write_bytes(b"no update")
    with pytest.raises(MismatchError, match="missing: site-c, site-d, site-e"):
        change(federation, tmp_path / "sum", quarantine=tmp_path / "aside")
    assert len(list((tmp_path / "aside").iterdir())) == 6


def test_what_is_encrypted_cannot_be_judged(tmp_path: Path) -> None:
    first = make_federation(tmp_path)
    first.encrypt_all()
    with pytest.raises(UsageError, match="nobody can judge"):
        aggregate(
            first.ciphertexts,
            plan=first.plan,
            roster=first.roster,
            output=tmp_path / "sum.enc",
            key=first.key("coordinator"),
            rule="median",
        )
