"""Whether a heatmap lies on the lesions: by hand, and for maps of which chance alone decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from ucadi.errors import FormatError, MismatchError
from ucadi.scoring.localisation import edge_map, energy, mean_interval, pointing, rank_correlation

MM = (5.0, 1.0, 1.0)


def scene() -> tuple[np.ndarray, np.ndarray]:
    lesions = np.zeros((4, 10, 10), bool)
    lesions[1, 2:4, 2:4] = True
    heatmap = np.zeros(lesions.shape, np.float32)
    heatmap[1, 2, 2], heatmap[1, 8, 8] = 0.6, 0.2
    return heatmap, lesions


def test_by_hand() -> None:
    heatmap, lesions = scene()
    assert pointing(heatmap, lesions, MM) == 1
    assert energy(heatmap, lesions) == pytest.approx(0.75)
    heatmap[1, 8, 8] = 0.6  # two highest, of which one is right
    assert pointing(heatmap, lesions, MM) == 0.5
    heatmap[1, 8, 8] = 0.9
    assert pointing(heatmap, lesions, MM) == 0
    assert energy(heatmap, lesions) == pytest.approx(0.4)


@pytest.mark.parametrize(("place", "distance"), [((1, 2, 6), 3), ((2, 2, 2), 5), ((1, 6, 7), 5), ((3, 3, 3), 10)])
def test_nearness_is_in_mm(place: tuple[int, int, int], distance: float) -> None:
    heatmap, lesions = scene()
    heatmap[place] = 1
    assert pointing(heatmap, lesions, MM, distance) == 1
    assert pointing(heatmap, lesions, MM, distance - 0.01) == 0


@given(st.integers(0, 2**32 - 1))
def test_a_uniform_map_scores_the_share_of_the_lesions(seed: int) -> None:
    lesions = np.random.default_rng(seed).random((3, 4, 5)) < 0.3
    uniform = np.full(lesions.shape, 0.7, np.float32)
    assert pointing(uniform, lesions, MM) == pytest.approx(lesions.mean())
    assert energy(uniform, lesions) == pytest.approx(lesions.mean())


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_the_unit_of_a_map_does_not_matter(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    heatmap, lesions = rng.random((3, 4, 5)), rng.random((3, 4, 5)) < 0.4
    assert pointing(heatmap * factor, lesions, MM) == pointing(heatmap, lesions, MM)
    assert energy(heatmap * factor, lesions) == pytest.approx(energy(heatmap, lesions))
    assert energy(heatmap, lesions) + energy(heatmap, ~lesions) == pytest.approx(1)


def test_a_map_of_zeros_points_nowhere() -> None:
    heatmap, lesions = scene()
    assert (pointing(0 * heatmap, lesions, MM), energy(0 * heatmap, lesions)) == (0, 0)
    assert pointing(heatmap, np.zeros_like(lesions), MM, 100) == 0


def test_edges_are_where_the_image_changes() -> None:
    hu = np.full((3, 6, 8), -850)
    hu[:, :, 4:] = 40
    edges = edge_map(hu)
    assert set(np.flatnonzero(edges[1, 3])) == {3, 4}
    assert not edge_map(np.full((3, 4, 5), 7)).any()


@given(st.integers(0, 2**32 - 1))
def test_rank_correlation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, 6, (2, 3, 4, 5)).astype(float)  # with ties
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    assert rank_correlation(one, np.exp(one)) == pytest.approx(1)
    assert rank_correlation(one, 0 * one) == 0


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        mean, low, high = mean_interval(rng.exponential(size=40).tolist(), seed=trial, resamples=400)
        assert low < mean < high
        covered += low <= 1 <= high
    assert 0.87 < covered / 200 < 0.99


def test_what_has_no_meaning_is_refused() -> None:
    heatmap, lesions = scene()
    for wrong in (-heatmap, heatmap * np.nan):
        with pytest.raises(FormatError):
            energy(wrong, lesions)
    with pytest.raises(MismatchError):
        pointing(heatmap[:2], lesions, MM)
    with pytest.raises(MismatchError):
        energy(heatmap, lesions.astype(np.uint8))
    with pytest.raises(MismatchError):
        rank_correlation(heatmap, heatmap[0])
    for values in ([], [np.nan]):
        with pytest.raises(FormatError):
            mean_interval(values)
