"""What a site's training gives: differences, their norm and its bound, and norms that stay at home."""

from __future__ import annotations

import numpy as np
import pytest
from hints import raises_with_hint

from ucadi.errors import MismatchError
from ucadi.fed.fixedpoint import layout_of
from ucadi.fed.norms import with_norms, without_norms
from ucadi.fed.update import Arrays, Update, added, bounded, difference, in_pieces, is_statistic, learned_norm


def arrays(**values: float | list[float]) -> Arrays:
    """Tensors by name, of which `_` stands for a dot."""
    return {name.replace("_", "."): np.array(value, np.float32) for name, value in values.items()}


def in_lists(found: Arrays) -> dict[str, object]:
    assert all(array.dtype == np.float32 for array in found.values())
    return {name: array.tolist() for name, array in found.items()}


DELTAS = {**arrays(a=[3.0, 0.0], b=4.0), "norm.running_var": np.array([100.0], np.float32)}


def test_a_difference_is_trained_minus_base_in_float32() -> None:
    trained, base = {"b": np.array([1.5]), "a": np.array([2.0])}, {"a": np.array([0.5]), "b": np.array([2.0])}
    found = difference(trained, base)
    assert list(found) == ["a", "b"]
    assert in_lists(found) == {"a": [1.5], "b": [-0.5]}
    with pytest.raises(MismatchError, match="different tensors"):
        difference({"a": trained["a"]}, base)


@pytest.mark.parametrize(
    ("name", "statistic"),
    [
        *(("blocks.norm1.running_mean", True), ("norm.running_var", True), ("running_var", True)),
        *(("norm.weight", False), ("running_mean.weight", False), ("norm.running_mean2", False)),
    ],
)
def test_a_statistic_is_known_by_its_own_name(name: str, statistic: bool) -> None:
    assert is_statistic(name) is statistic


def test_statistics_are_no_part_of_the_norm() -> None:
    assert learned_norm(DELTAS) == 5
    assert learned_norm(arrays(a=[3e25], b=4e25)) == pytest.approx(5e25)  # squares of these are no float32


def test_a_bounded_update_is_shorter_and_points_the_same_way() -> None:
    found = bounded(DELTAS, 2.5)
    assert in_lists(found) == {"a": [1.5, 0], "b": 2, "norm.running_var": [100]}
    assert in_lists(bounded(DELTAS, 5)) == in_lists(bounded(DELTAS, 500)) == in_lists(DELTAS)
    assert in_lists(bounded(arrays(a=[0.0]), 1)) == {"a": [0]}


def test_a_change_of_another_length_is_never_added() -> None:
    with pytest.raises(ValueError, match="argument"):
        added(np.zeros(3, np.float32), [np.zeros(3), np.zeros(3)])


def test_a_change_is_added_in_float64_and_rounded_once() -> None:
    base = np.full((2, 2), 1e8, np.float32)
    change = np.array([3.9, 4.1, -3.9, 12.1])
    found = added(base.T, in_pieces(change))
    assert (found.dtype, found.shape) == (np.float32, (2, 2))
    np.testing.assert_array_equal(found.ravel(), (1e8 + change).astype(np.float32))


BASE = arrays(conv_weight=[1.0], norm_bias=[10.0, 10.0])


def test_norms_stay_at_home() -> None:
    """What a round gives has the base's norms; a site puts its own in their place, and shares the rest."""
    assert in_lists(without_norms(BASE)) == {"conv.weight": [1]}
    layout = layout_of(without_norms(BASE), headroom=1)
    own = Update("x", "0" * 64, 1, 1, arrays(conv_weight=[5.0], norm_bias=[1.0, 2.0]))
    following = arrays(conv_weight=[1.5], norm_bias=[10.0, 10.0])
    assert in_lists(with_norms(following, BASE, own, layout)) == {"conv.weight": [1.5], "norm.bias": [11, 12]}


def test_norms_that_are_shared_or_of_another_network_are_no_ones_own() -> None:
    shared, layout = layout_of(BASE, headroom=1), layout_of(without_norms(BASE), headroom=1)
    own = Update("x", "0" * 64, 1, 1, BASE)
    with raises_with_hint(MismatchError, "shares the norms", "leave out --"):
        with_norms(BASE, BASE, own, shared)
    for deltas in (without_norms(BASE), arrays(norm_bias=[1.0])):
        with pytest.raises(MismatchError, match=r"update of x: .* norm\.bias"):
            with_norms(BASE, BASE, Update("x", "0" * 64, 1, 1, deltas), layout)
