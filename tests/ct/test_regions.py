"""Regions of a heatmap: found, measured, and placed in the patient, however the volume lies."""

from __future__ import annotations

import numpy as np
import pytest

from ucadi.ct.regions import regions


def planted() -> np.ndarray:
    heatmap = np.zeros((20, 30, 30), np.float32)
    heatmap[4:8, 10:14, 5:9] = 0.8  # the patient's right, as columns grow to the left
    heatmap[12:14, 20:22, 22:24] = 1.0
    heatmap[0, 0, 0] = 0.9  # a speck
    return heatmap


AFFINE = np.array([[0, 0, 2.0, -30], [0, 2.0, 0, -50], [5.0, 0, 0, 100], [0, 0, 0, 1]])


def test_two_regions_by_hand() -> None:
    large, small = regions(planted(), AFFINE, least_ml=0.1)
    assert (large.side, large.slice, large.peak) == ("right", 5, pytest.approx(0.8))
    assert large.volume_ml == pytest.approx(4 * 4 * 4 * 2 * 2 * 5 / 1000)
    np.testing.assert_allclose(large.position_mm, (2 * 6.5 - 30, 2 * 11.5 - 50, 5 * 5.5 + 100))
    assert (small.side, small.slice) == ("left", 13)
    assert len(regions(planted(), AFFINE, least_ml=0)) == 3
    assert regions(planted(), AFFINE) == [large]
    assert regions(planted(), AFFINE, level=0.95, least_ml=0.0)[0].peak == 1


@pytest.mark.parametrize("flip", [0, 1, 2])
def test_a_flipped_volume_with_its_affine_has_the_same_regions(flip: int) -> None:
    heatmap = np.flip(planted(), axis=flip)
    to_old = np.eye(4)
    to_old[flip, flip], to_old[flip, 3] = -1, heatmap.shape[flip] - 1
    for one, other in zip(
        regions(heatmap, AFFINE @ to_old, least_ml=0.1), regions(planted(), AFFINE, least_ml=0.1), strict=True
    ):
        np.testing.assert_allclose(one.position_mm, other.position_mm)
        assert (one.side, one.volume_ml) == (other.side, pytest.approx(other.volume_ml))


def test_a_sheared_grid_keeps_its_volume() -> None:
    tilted = AFFINE.copy()
    tilted[1, 0] = 1.5  # each slice a little further back
    assert regions(planted(), tilted)[0].volume_ml == pytest.approx(regions(planted(), AFFINE)[0].volume_ml)


def test_where_nothing_stands_out_there_is_nothing() -> None:
    assert regions(np.zeros((3, 4, 5), np.float32), AFFINE) == []
