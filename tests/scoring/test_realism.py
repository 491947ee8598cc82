"""Figures of translated CTs: against other implementations, and on bodies whose numbers are known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ucadi.ct.enhancement import central, descending_aorta, edges, enhanced_share, slice_change, soft_tissue_counts
from ucadi.ct.phantom import anatomy
from ucadi.ct.phantom.cohort import CohortPlan, scan_patient
from ucadi.ct.volume import Volume
from ucadi.errors import FormatError, MismatchError
from ucadi.learn.features import fixed_features
from ucadi.scoring.realism import Figure, correlation, histogram_distance, kernel_distance, share_moved, units
from ucadi.scoring.sheets import translation_sheet_png

counts = st.lists(st.integers(0, 50), min_size=12, max_size=12).filter(any)


@given(a=counts, b=counts)
def test_histogram_distance_is_scipys(a: list[int], b: list[int]) -> None:
    expected = stats.wasserstein_distance(np.arange(12), np.arange(12), a, b)
    assert histogram_distance(a, b) == pytest.approx(expected, abs=1e-9)
    assert histogram_distance(a, a) == 0
    assert histogram_distance(np.roll([*a, 0], 1), [*a, 0]) == pytest.approx(1)


def test_histograms_of_nothing() -> None:
    with pytest.raises(FormatError):
        histogram_distance([0, 0], [1, 2])
    with pytest.raises(MismatchError):
        histogram_distance([1, 2, 3], [1, 2])


def test_kernel_distance_term_by_term() -> None:
    rng = np.random.default_rng(0)
    x, y, unit = rng.normal(size=(5, 3)), rng.normal(1, 2, size=(4, 3)), np.array([1.0, 2.0, 0.5])
    k = lambda a, b: (np.dot((a - y.mean(0)) / unit, (b - y.mean(0)) / unit) / 3 + 1) ** 3  # noqa: E731
    within_x = np.mean([k(x[i], x[j]) for i in range(5) for j in range(5) if i != j])
    within_y = np.mean([k(y[i], y[j]) for i in range(4) for j in range(4) if i != j])
    between = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y, unit) == pytest.approx(within_x + within_y - 2 * between)
    with pytest.raises(FormatError, match="two of each"):
        kernel_distance(x[:1], y, unit)
    with pytest.raises(MismatchError):
        kernel_distance(x[:, :2], y, unit)


def test_kernel_distance_is_about_zero_for_one_kind_and_not_for_two() -> None:
    rng = np.random.default_rng(1)
    draws = [rng.normal(size=(30, 8)) for _ in range(80)]
    same = [kernel_distance(a, b, np.ones(8)) for a, b in zip(draws[::2], draws[1::2], strict=True)]
    assert abs(np.mean(same)) < 3 * np.std(same) / len(same) ** 0.5
    assert kernel_distance(draws[0] + 1, draws[1], np.ones(8)) > max(same)
    constant = np.column_stack([rng.normal(size=20), np.full(20, 7.0)])
    assert np.isinf(units(constant)[1])
    assert np.isfinite(kernel_distance(np.add(constant, [0, 1e9]), constant, units(constant)))


@given(st.integers(0, 100))
def test_correlation_is_numpys(seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 4, 5))
    assert correlation(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert correlation(a, a) == 1
    assert correlation(np.ones(5), np.ones(5)) == 1
    assert correlation(np.ones(5), np.arange(5)) == 0


def test_the_way_to_real() -> None:
    assert share_moved(0.15, 0.09, 0.03) == pytest.approx(0.5)
    assert share_moved(0.03, 0.15, 0.15) == 1
    assert share_moved(0.1, 0.2, 0.1) is None
    assert Figure(1.0, None, 2.0).after is None


def body(heart_hu: int = 200) -> Volume:
    """Twelve slices of 400 mm: a body of 40 HU with a heart in the middle; behind it to the left an aorta of 26 mm."""
    y, x = np.mgrid[:100, :100] * 4.0
    plane = np.full((100, 100), -1000)
    plane[np.hypot(x - 200, (y - 200) * 1.3) < 150] = 40
    plane[np.hypot(x - 200, y - 180) < 40] = heart_hu
    plane[np.hypot(x - 225, y - 245) < 13] = heart_hu
    plane[np.hypot(x - 200, y - 275) < 17] = 600  # the spine
    return Volume(np.repeat(plane[np.newaxis], 12, axis=0).astype(np.int16), np.diag([5.0, 4, 4, 1])[[2, 1, 0, 3]])


def test_figures_of_a_body() -> None:
    volume = body()
    inside = central(volume.hu)
    assert inside.shape == (12, 50, 50)
    assert enhanced_share(volume.hu) == pytest.approx((inside == 200).mean(axis=(1, 2)))
    found = soft_tissue_counts(volume.hu)
    assert found.sum() == ((inside >= -200) & (inside <= 400)).sum()
    assert found[40 + 200] == (inside == 40).sum()
    assert slice_change(volume.hu) == 0
    volume.hu[1::2] += 10
    assert slice_change(volume.hu) == 10
    steep = edges(volume.hu)
    assert steep[0, 50, 50] == 0
    assert steep[0, 45, 60] > 0


def test_the_aorta_of_a_body() -> None:
    volume = body()
    found = descending_aorta(volume)
    y, x = np.mgrid[:100, :100] * 4.0
    assert found.any(axis=(1, 2)).all()
    assert not found[:, np.hypot(x - 225, y - 245) >= 13].any()
    assert (volume.hu[found] == 200).all()
    assert not descending_aorta(body(heart_hu=40)).any()
    coarse = Volume(volume.hu, np.diag([5.0, 8, 8, 1])[[2, 1, 0, 3]])
    assert not descending_aorta(coarse).any(), "of two or three pixels it cannot be told"
    mirrored = Volume(np.ascontiguousarray(volume.hu[:, :, ::-1]), volume.affine)
    assert not descending_aorta(mirrored).any(), "it is on the left"


def phantoms(contrast: float) -> Iterator[tuple[Volume, float]]:
    """Volumes of two patients, and what the contrast medium adds to their blood."""
    for plan in CohortPlan("aorta", 2, (1, 0, 0, 0), "ge", contrast=contrast, matrix=128, slices=40).plan_patients():
        for _, _, scan in scan_patient(plan):
            slice_mm, row_mm = scan.protocol.spacing, scan.protocol.pixel
            yield Volume(scan.hu, np.diag([slice_mm, row_mm, row_mm, 1.0])[[2, 1, 0, 3]]), scan.protocol.contrast_hu


def test_the_aorta_of_phantoms_is_as_bright_as_their_blood() -> None:
    for volume, added in phantoms(contrast=1.0):
        found = descending_aorta(volume)
        assert found.any(axis=(1, 2)).sum() > 8
        assert volume.hu[found].mean() == pytest.approx(anatomy.BLOOD + added, abs=25)
    for volume, _ in phantoms(contrast=0.0):
        assert not descending_aorta(volume).any()


def test_fixed_features_are_fixed_and_see_contrast_medium() -> None:
    rng = np.random.default_rng(0)
    images = [rng.uniform(-1, 1, (1, 32, 32)).astype(np.float32) for _ in range(4)]
    features = fixed_features(images)
    assert features.shape == (4, 448)
    assert np.array_equal(features, fixed_features(images))
    assert not np.allclose(features, fixed_features([image + 0.3 for image in images]))


def test_sheets() -> None:
    plane = body().hu[0]
    pairs = [(f"case {n}", plane, (plane - 10 * n).astype(np.int16)) for n in range(5)]
    picture = translation_sheet_png(pairs, "title")
    assert picture.startswith(b"\x89PNG")
    assert picture == translation_sheet_png(pairs, "title")
    with pytest.raises(MismatchError, match="case 0"):
        translation_sheet_png([("case 0", plane, plane[:50])])
    with pytest.raises(FormatError, match="no slices"):
        translation_sheet_png([])
