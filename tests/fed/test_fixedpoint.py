"""Updates as integers: rounding, ranges, weights, and the mean against plain floating-point arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hints import raises_with_hint
from hypothesis import given, settings
from hypothesis import strategies as st

from ucadi.errors import CapacityError, FormatError, MismatchError
from ucadi.fed.averaging import Aggregate, add, apply_mean, apply_update, as_sum
from ucadi.fed.fixedpoint import Encoder, Layout, TensorRange, is_norm, layout_of, quantum
from ucadi.fed.update import Update, difference

BASE = "0" * 64
LAYOUT = Layout((TensorRange("a", (2,), 0), TensorRange("b", (), 3)))


def update(site: str, a: list[float], b: float, examples: int = 4, epochs: int = 1) -> Update:
    return Update(site, BASE, examples, epochs, {"a": np.array(a, np.float32), "b": np.array(b, np.float32)})


def test_a_mean_worked_out_by_hand() -> None:
    """Bits 4: quanta are 1/8 for range 1 and 1 for range 8. Weights 4 and 2 of a cap of 8."""
    total = add([update("x", [0.5, -1.0], 4.0), update("y", [1.5, 0.0], -8.0, examples=2)], LAYOUT, cap=8, bits=4)
    # x: 4/8 * (0.5, -1, 4) = (2, -4, 2) quanta; y: 2/8 * (1.5, 0, -8) = (3, 0, -2) quanta
    np.testing.assert_array_equal(total, [6, 5, -4, 0])
    base = {"a": np.array([1, 1], np.float32), "b": np.array(1, np.float32)}
    following, _ = apply_mean(base, Aggregate(BASE, BASE, ("x", "y"), total), LAYOUT, cap=8, bits=4)
    # quanta times quantum times cap over weight
    np.testing.assert_allclose(following["a"], [1 + 5 / 8 * 8 / 6, 1 - 4 / 8 * 8 / 6], rtol=1e-7)
    assert following["b"] == 1


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(),
    sites=st.integers(1, 8),
    bits=st.integers(8, 24),
)
def test_the_mean_is_that_of_floating_point_within_its_quantum(data: st.DataObject, sites: int, bits: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shapes = {"w": (7, 3), "v": (5,), "s": ()}
    base = {name: np.asarray(rng.uniform(0.5, 2, shape), np.float32) for name, shape in shapes.items()}
    layout = layout_of(base, headroom=1)
    cap = data.draw(st.integers(1000, 10_000))
    updates = [
        Update(
            f"site-{i}",
            BASE,
            int(rng.integers(1, cap + 1)),
            1,
            {name: np.asarray(rng.normal(0, 0.1, shape), np.float32) for name, shape in shapes.items()},
        )
        for i in range(sites)
    ]
    total = add(updates, layout, cap=cap, bits=bits)
    assert total[0] == sum(u.weight for u in updates)
    np.testing.assert_array_equal(total, add(updates[::-1], layout, cap=cap, bits=bits))
    following, _ = apply_mean(base, Aggregate(BASE, BASE, (), total), layout, cap=cap, bits=bits)
    for tensor in layout.tensors:
        weights = [u.weight for u in updates]
        mean = np.average([u.deltas[tensor.name].astype(np.float64) for u in updates], axis=0, weights=weights)
        # each site's value is off by at most half a quantum before it is divided by its share of the cap
        allowed = sites * quantum(tensor, bits) / 2 * cap / sum(weights)
        rounding = 2.0**-22 * (np.abs(base[tensor.name]).max() + 1)
        assert np.abs(following[tensor.name] - base[tensor.name] - mean).max() <= allowed + rounding


def test_one_site_with_the_largest_weight_is_off_by_half_a_quantum_at_most() -> None:
    rng = np.random.default_rng(5)
    delta = {"a": rng.uniform(-1, 1, 1000).astype(np.float32)}
    layout = Layout((TensorRange("a", (1000,), 1),))
    for bits in (8, 16, 24):
        total = add([Update("x", BASE, 10, 1, delta)], layout, cap=10, bits=bits)
        assert (
            np.abs(total[1:] * quantum(layout.tensors[0], bits) - delta["a"]).max()
            <= quantum(layout.tensors[0], bits) / 2
        )


def test_ranges_are_powers_of_two_taken_from_the_base() -> None:
    values = {"a": [-3.0, 1.0], "m": [2.0], "n.running_mean": [0.0], "n.running_var": [1.0, 0.1], "z": [0.0]}
    base = {name: np.array(value, np.float32) for name, value in values.items()}
    exponents = {tensor.name: tensor.exponent for tensor in layout_of(base, headroom=2).tensors}
    # at least 1/64 of what is learned, and 1/4 of what is observed
    assert exponents == {"a": 4, "m": 3, "n.running_mean": 0, "n.running_var": 2, "z": -4}


def test_a_value_out_of_range_names_the_tensor_and_the_headroom_that_it_needs() -> None:
    with pytest.raises(CapacityError, match=r"tensor b changed by 2.29 times its range") as caught:
        add([update("x", [0, 0], 32.0)], LAYOUT, cap=8, bits=4)
    assert caught.value.hint is not None
    assert "2 more --headroom" in caught.value.hint


def test_clipping_is_only_on_demand_and_counted() -> None:
    encoder = Encoder(update("x", [0, 8], -32.0), LAYOUT, cap=8, bits=4, clip=True)
    np.testing.assert_array_equal(np.concatenate(list(encoder.pieces())), [4, 0, 7, -7])
    assert encoder.clipped == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(value: float) -> None:
    with raises_with_hint(FormatError, "tensor b holds NaN or infinity", "training diverged"):
        add([update("x", [0, 0], value)], LAYOUT, cap=8, bits=4)
    with pytest.raises(FormatError, match="tensor a"):
        layout_of({"a": np.array([value], np.float32)}, headroom=1)
    with pytest.raises(FormatError, match="tensor a"):
        difference({"a": np.array([value], np.float32)}, {"a": np.zeros(1, np.float32)})


@pytest.mark.parametrize(
    ("deltas", "what"),
    [
        ({"a": (2,)}, "b is absent, the layout says a scalar"),
        ({"a": (3, 1), "b": ()}, "a is 3x1, the layout says 2"),
        ({"a": (2,), "b": (), "c": (1,)}, "c is 1, the layout says absent"),
        ({"a": (2,), "x": ()}, "b is absent, the layout says a scalar"),
    ],
)
def test_another_layout_is_refused(deltas: dict[str, tuple[int, ...]], what: str) -> None:
    other = Update("x", BASE, 1, 1, {name: np.zeros(shape, np.float32) for name, shape in deltas.items()})
    with raises_with_hint(MismatchError, f"^update of x: tensor {what}$", "same base model"):
        add([other], LAYOUT, cap=8, bits=4)


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        *(("blocks.dense1_1.norm2.weight", True), ("norm.running_var", True), ("stem.batchnorm.bias", True)),
        *(("blocks.norm_block.conv.weight", False), ("norm_block.conv.weight", False), ("conv.norm", False)),
        ("scale", False),
    ],
)
def test_a_tensor_is_a_norms_by_the_name_of_its_module(name: str, norm: bool) -> None:
    assert is_norm(name) is norm


def test_a_site_counts_once_and_within_the_cap() -> None:
    with raises_with_hint(MismatchError, "two contributions of x", "once to a round"):
        add([update("x", [0, 0], 0), update("x", [0, 0], 0)], LAYOUT, cap=8, bits=4)
    for weight in (0, 9):
        with raises_with_hint(CapacityError, f"update of x: weight {weight} .* 1 to 8$", "--weight-cap"):
            add([update("x", [0, 0], 0, examples=weight)], LAYOUT, cap=8, bits=4)
    for weight in (1, 8):
        assert add([update("x", [0, 0], 0, examples=weight)], LAYOUT, cap=8, bits=4)[0] == weight


def test_the_largest_value_is_in_its_range() -> None:
    """Seven quanta of an eighth, in both directions; what is beyond is cut to them where that is asked for."""
    limit, beyond = update("x", [7 / 8, -7 / 8], 0, examples=8), update("x", [7 / 8, 8 / 8], 0, examples=8)
    assert [piece.dtype for piece in Encoder(limit, LAYOUT, cap=8, bits=4).pieces()] == [np.int64] * 3
    assert add([limit], LAYOUT, cap=8, bits=4).tolist() == [8, 7, -7, 0]
    with pytest.raises(CapacityError, match=r"tensor a changed by 1\.14 times"):
        list(Encoder(beyond, LAYOUT, cap=8, bits=4).pieces())
    assert add([beyond], LAYOUT, cap=8, bits=4, clip=True).tolist() == [8, 7, 7, 0]
    encoder = Encoder(beyond, LAYOUT, cap=8, bits=4, clip=True)
    assert list(encoder.pieces())
    assert encoder.clipped == 1


def test_sums_fit_32_bits() -> None:
    largest = np.iinfo(np.int32).max
    assert as_sum(np.array([largest, -largest])).tolist() == [largest, -largest]
    assert as_sum(np.array([], np.int64)).shape == (0,)
    for beyond in (largest + 1, -largest - 1):
        with raises_with_hint(CapacityError, "does not fit 32 bits", "fewer sites than were added"):
            as_sum(np.array([0, beyond]))


def test_a_sum_of_another_layout_is_not_applied() -> None:
    base = {"a": np.zeros(2, np.float32), "b": np.array(0, np.float32)}

    def apply(base: dict[str, np.ndarray], *total: int) -> None:
        apply_mean(base, Aggregate(BASE, BASE, (), np.array(total, np.int32)), LAYOUT, cap=8, bits=4)

    apply(base, 1, 0, 0, 0)
    for total in ((1, 0, 0), (1, 0, 0, 0, 0), (0, 0, 0, 0)):
        with raises_with_hint(MismatchError, "does not have the plan's layout", "that it was added under"):
            apply(base, *total)
    with pytest.raises(MismatchError, match=r"^base: tensor b is absent"):
        apply({"a": base["a"]}, 1, 0, 0, 0)


@pytest.mark.parametrize("names", ["ba", "aa"])
def test_a_layout_has_each_tensor_once_and_in_order(names: str) -> None:
    with raises_with_hint(FormatError, "not in name order, or one stands twice", "open the round anew"):
        Layout(tuple(TensorRange(name, (1,), 0) for name in names))


def test_a_site_s_own_model_is_base_plus_difference() -> None:
    base = {"a": np.array([1, 2], np.float32), "b": np.array(3, np.float32)}
    own = apply_update(base, update("x", [0.5, -2], 1))
    np.testing.assert_array_equal(own["a"], [1.5, 0])
    assert own["b"] == 4
    for other in ({"a": base["a"]}, {**base, "b": base["a"]}):
        with pytest.raises(MismatchError, match="update of x"):
            apply_update(other, update("x", [0, 0], 0))
