"""Slices on one regular grid: the line that they lie on, the gaps that they may have, and what is between them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ucadi.ct.reading.refusals import Reason, RefusedError
from ucadi.ct.reading.stack import Grid, affine, fill, regular_grid, shift, stack_line
from ucadi.ct.volume import AIR_HU

ACROSS, DOWN = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])


def line_of(*positions: tuple[float, float, float], pixel_mm: float = 0.25):  # type: ignore[no-untyped-def]
    return stack_line(np.array(positions), ACROSS, DOWN, pixel_mm)


def refusal(reason: Reason, detail: str):  # type: ignore[no-untyped-def]
    return pytest.raises(RefusedError, match=rf"\({detail}\)", check=lambda error: error.reason is reason)


# The line


@given(
    turn=st.floats(0, 2 * math.pi),
    lean=st.floats(-0.6, 0.6),
    start=st.tuples(*[st.floats(-500, 500)] * 3),
    places=st.lists(st.integers(0, 400), min_size=2, max_size=30, unique=True),
    order=st.randoms(use_true_random=False),
)
def test_the_line_of_slices_in_any_order(turn, lean, start, places, order) -> None:  # type: ignore[no-untyped-def]
    """Slices tilted by `turn` around the first axis, stacked askew by `lean` mm per mm along their rows."""
    down = np.array([0, math.cos(turn), math.sin(turn)])
    normal = np.cross(ACROSS, down)
    step = normal + lean * ACROSS
    order.shuffle(places)
    line = stack_line(np.array(start) + np.outer(places, step), 3 * ACROSS, 2 * down, 1.0)
    first = min(places)
    assert line.normal == pytest.approx(normal)
    assert line.step == pytest.approx(step)
    assert line.origin == pytest.approx(np.array(start) + first * step)
    assert line.tilt_degrees == pytest.approx(math.degrees(math.atan(abs(lean))), abs=1e-6)
    assert line.along(np.array(start) + np.outer(places, step)) == pytest.approx(np.array(places) - first)


def test_slices_at_one_place_are_no_stack() -> None:
    assert line_of((0, 0, 0), (0, 0, 0.01)).step.tolist() == [0, 0, 1]
    with refusal(Reason.TOO_FEW_SLICES, "3 at one place"):
        line_of((0, 0, 0), (0, 0, 0.009), (0, 0, 0))


@pytest.mark.parametrize(("pixel_mm", "admitted"), [(0.25, 0.5), (0.5, 0.5), (0.75, 0.75), (2.0, 2.0)])
def test_a_slice_lies_beside_the_line_by_a_pixel_at_most(pixel_mm: float, admitted: float) -> None:
    """Or by half a millimetre, where pixels are smaller."""
    ends = (0, 0, 0), (0, 0, 4)
    assert line_of(*ends, (0, admitted, 2), pixel_mm=pixel_mm).step.tolist() == [0, 0, 1]
    with refusal(Reason.INVALID_GEOMETRY, rf"a slice lies {admitted + 0.125:.1f} mm beside the others"):
        line_of(*ends, (-admitted - 0.125, 0, 2), pixel_mm=pixel_mm)


def test_each_slice_may_lie_beside_the_line_however_many_do() -> None:
    beside = [(0.5 * (index % 2), 0, index) for index in range(21)]
    assert line_of(*beside).step.tolist() == [0, 0, 1]


def test_a_stack_leans_by_forty_degrees_at_most() -> None:
    for degrees in (-39.9, 39.9):
        assert line_of((0, 0, 0), (0, math.tan(math.radians(degrees)), 1)).tilt_degrees == pytest.approx(39.9)
    assert line_of((0, 0, 0), (0, math.tan(math.radians(40)), 1)).tilt_degrees == 40
    for degrees in (-40.6, 40.6):
        with refusal(Reason.INVALID_GEOMETRY, "slices are stacked askew by 41 degrees"):
            line_of((0, 0, 0), (math.tan(math.radians(degrees)), 0, 1))


# The grid


def test_the_grid_of_regular_slices() -> None:
    assert regular_grid(np.array([-5.0, -3, -1, 1])) == Grid(-5, 2, 4, 0, False)
    assert regular_grid(np.array([7.0, 7.5])) == Grid(7, 0.5, 2, 0, False)


def without(count: int, *missing: int) -> np.ndarray:
    return np.delete(10.0 * np.arange(count), missing)


def test_gaps_are_counted_up_to_their_limits() -> None:
    assert regular_grid(without(40, 20, 21, 22)) == Grid(0, 10, 40, 3, False)
    with refusal(Reason.GAP, "4 in one place"):
        regular_grid(without(80, 20, 21, 22, 23))
    assert regular_grid(without(20, 5, 10)) == Grid(0, 10, 20, 2, False)
    with refusal(Reason.GAP, "2 of 19"):
        regular_grid(without(19, 5, 10))


def test_regular_slices_are_counted_by_their_steps() -> None:
    """Two of three distances are longer than the mean, and so is the median."""
    places = np.concatenate([[0], np.cumsum([10.2, 10.2, 9.6] * 20)])
    assert regular_grid(places) == Grid(0, pytest.approx(10), 61, 0, False)


def test_a_slice_is_a_tenth_of_the_spacing_beside_its_place_at_most() -> None:
    places = 10.0 * np.arange(9)
    for off, irregular in ((1.0, False), (-1.0, False), (1.25, True), (-1.25, True)):
        moved = places + off * (np.arange(9) == 4)
        assert regular_grid(moved) == Grid(0, 10, 9, 0, irregular)


def irregular(*distances: float) -> np.ndarray:
    """Slices that are 4 mm apart, but for these distances between some."""
    return np.cumsum([10.0, *[4.0] * 20, *distances, *[4.0] * 20])


@pytest.mark.parametrize(
    ("distances", "missing"),
    [((7,), 0), ((5,), 0), ((0.4,), 0), ((5.5, 7.1), 0), ((5.5, 7.2), 1), ((5.5, 7.2, 7.2), 2), ((5.5, 19.1), 3)],
)
def test_irregular_slices_are_missing_where_there_is_room_for_them(distances: tuple[float, ...], missing: int) -> None:
    """7 mm between slices of 4 mm is no gap; with a tenth to spare at either end, 7.2 mm are one."""
    along = irregular(*distances)
    length = 160 + sum(distances)
    count = round(length / 4) + 1
    assert regular_grid(along) == Grid(10, pytest.approx(length / (count - 1)), count, missing, True)


def test_irregular_slices_with_a_large_gap_are_refused() -> None:
    with refusal(Reason.GAP, "4 in one place"):
        regular_grid(irregular(5.5, 19.2))


# What goes on it


def planes(*values: int) -> list[np.ndarray]:
    return [np.full((2, 3), value, np.int16) for value in values]


def test_slices_are_copied_to_their_places_and_interpolated_between() -> None:
    along = np.array([5.0, 7.5, 9])
    filled = fill(Grid(5, 1, 5, 0, True), along, planes(0, 250, 401))
    assert filled.dtype == np.int16
    assert filled.shape == (5, 2, 3)
    # 8 is a third of the way from 7.5 to 9: 250 + 151 / 3
    assert [set(plane.ravel().tolist()) for plane in filled] == [{0}, {100}, {200}, {300}, {401}]


def test_a_slice_within_a_tenth_of_the_spacing_is_copied() -> None:
    for off, expected in ((1.0, 100), (-1.0, 100), (1.25, 89), (-1.25, 111)):
        along = np.array([0, 10 + off, 20])
        filled = fill(Grid(0, 10, 3, 0, False), along, planes(0, 100, 200 if off < 0 else 0))
        if abs(off) <= 1:
            assert filled[1, 0, 0] == expected
        else:
            assert filled[1, 0, 0] == round(np.interp(10, along, [0, 100, 200 if off < 0 else 0])) != 100


@given(rows=st.floats(-9, 9), columns=st.floats(-9, 9), seed=st.integers(0, 9))
def test_a_shift_is_scipys(rows: float, columns: float, seed: int) -> None:
    plane = np.random.default_rng(seed).integers(-1024, 600, (6, 8)).astype(np.int16)
    expected = ndimage.shift(plane.astype(np.float64), (rows, columns), order=1, mode="grid-constant", cval=AIR_HU)
    moved = shift(plane, rows, columns)
    assert moved.dtype == np.int16
    assert np.abs(moved - expected).max() <= 0.5 + 1e-6


def test_whole_pixels_are_moved_exactly() -> None:
    plane = np.arange(12, dtype=np.int16).reshape(3, 4)
    assert shift(plane, 1, -2).tolist() == [[AIR_HU] * 4, [2, 3, AIR_HU, AIR_HU], [6, 7, AIR_HU, AIR_HU]]
    for far in (3, -3, 4, -400):
        assert (shift(plane, far, 0) == AIR_HU).all()


def test_the_affine_places_the_first_voxel_and_each_index() -> None:
    matrix = affine(np.array([1.0, 2, 3]), np.array([0, 0, 5.0]), np.array([0, 0.5, 0]), np.array([0.25, 0, 0]))
    assert (matrix @ [0, 0, 0, 1]).tolist() == [1, 2, 3, 1]
    assert (matrix @ [2, 4, 8, 1]).tolist() == [1 + 8 * 0.25, 2 + 4 * 0.5, 3 + 2 * 5, 1]
