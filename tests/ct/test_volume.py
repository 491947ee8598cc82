"""Volumes: resizing against an independent reference, affines, orientation, clipping."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ucadi.ct.volume import Volume, canonical, clip, resize, resize_slice


def place(volume: Volume, index: tuple[float, float, float]) -> np.ndarray:
    """Where a voxel lies in the patient."""
    return (volume.affine @ [*index, 1.0])[:3]


def affine(step=(0, 0, 2.5), down=(0, 0.5, 0), across=(0.7, 0, 0), origin=(-10, -20, 30)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([step, down, across, origin])
    return matrix


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-1024, 600, shape).astype(np.int16)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(2, 90), columns=st.integers(2, 90), new_rows=st.integers(2, 64), new_columns=st.integers(2, 64))
def test_resize_agrees_with_torch(rows: int, columns: int, new_rows: int, new_columns: int) -> None:
    import torch  # which ignores the rows of a plane of one column, so all have two at least

    plane = noise(rows, columns)
    reference = torch.nn.functional.interpolate(
        torch.from_numpy(plane)[None, None].double(),
        (new_rows, new_columns),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )[0, 0].numpy()
    resized = resize_slice(plane, new_rows, new_columns)
    assert resized.dtype == np.int16
    assert np.abs(resized - reference).max() <= 0.52  # rounding to whole HU, and weights of 18 bits


def test_resize_of_512_to_128_by_hand() -> None:
    plane = np.zeros((512, 512), np.int16)
    plane[4:8] = 320  # exactly the rows that the second output row covers
    # The triangle has half-width 4: weights 1, 3, 5, 7, 7, 5, 3, 1 of 32, of which the second output row (centre 6)
    # sees the middle four in the bright rows, the third (centre 10) the first two; the first (centre 2) sees the
    # last two, of the 28 that are left of its weights at the edge.
    assert resize_slice(plane, 128, 128)[:4, 64].tolist() == [round(320 * 4 / 28), 320 * 24 // 32, 320 * 4 // 32, 0]


def test_resize_keeps_the_mean_and_constants() -> None:
    plane = np.full((100, 77), -731, np.int16)
    assert (resize_slice(plane, 33, 128) == -731).all()
    assert (resize_slice(np.full((9, 9), 32767, np.int16), 20, 4) == 32767).all()


def test_resize_moves_the_first_centre_and_keeps_the_corners() -> None:
    volume = Volume(noise(2, 40, 30), affine())
    small = resize(volume, 10, 15)
    for corner, small_corner in (((0, -0.5, -0.5), (0, -0.5, -0.5)), ((1, 39.5, 29.5), (1, 9.5, 14.5))):
        assert place(volume, corner) == pytest.approx(place(small, small_corner))
    assert small.spacing_mm == pytest.approx((2.5, 2.0, 1.4))
    assert small.hu.shape == (2, 10, 15)


def test_a_linear_ramp_stays_where_it_is() -> None:
    """HU that equal a coordinate in mm still do after resizing, away from the edges."""
    volume = Volume(
        np.broadcast_to((np.arange(400) * 2 - 500).astype(np.int16), (1, 64, 400)), affine(across=(2, 0, 0))
    )
    small = resize(volume, 64, 100)
    for column in (5, 50, 90):
        before = volume.affine[0, 3] - -500
        assert small.hu[0, 10, column] == pytest.approx(place(small, (0, 10, column))[0] - before, abs=0.6)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_canonical_orientation_from_any_other(order: tuple[int, int, int], signs: tuple[int, int, int]) -> None:
    """Every permutation and reversal of the axes becomes the same volume, and no voxel moves in the patient."""
    standard = Volume(noise(3, 4, 5), affine(step=(0.1, 0, 2.5), down=(0, 0.5, 0.02)))
    hu = standard.hu.transpose(order)
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for axis, old in enumerate(order):
        turn[old, axis] = signs[axis]
        if signs[axis] < 0:
            hu = np.flip(hu, axis)
            turn[old, 3] = standard.hu.shape[old] - 1
    again = canonical(Volume(hu, standard.affine @ turn))
    assert (again.hu == standard.hu).all()
    assert again.affine == pytest.approx(standard.affine)


def test_positions_are_those_of_the_slices() -> None:
    volume = Volume(noise(4, 2, 2), affine())
    assert volume.positions_mm == pytest.approx([30, 32.5, 35, 37.5])


def test_clip_to_air_and_the_lung_window() -> None:
    volume = clip(Volume(np.array([[[-3024, -1100, 0, 600, 3000]]], np.int16), affine()))
    assert volume.hu.tolist() == [[[-1024, -1024, 0, 600, 600]]]


def test_a_volume_is_what_it_says() -> None:
    with pytest.raises(ValueError, match="int16"):
        Volume(np.zeros((2, 2, 2)), affine())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="affine"):
        Volume(noise(2, 2, 2), np.eye(3))
