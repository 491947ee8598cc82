"""A volume's values come back to the very pixels that they came from, however the scan was turned on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from series import save
from traps import TRAPS, Trap, flipped, stack

from ucadi.ct.placing import edges, image_affine, onto_grid, onto_slice
from ucadi.ct.reading.instance import Instance
from ucadi.ct.reading.refusals import Reason, RefusedError
from ucadi.ct.reading.scan import read_scan, source_series
from ucadi.errors import MismatchError

USABLE = [trap for trap in TRAPS if trap.extent is not None and not trap.reason]
SLOPES, OFFSET = np.array([0.5, -0.3, 0.4]), 100.0


def linear(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Something at every place (..., 3) that linear interpolation gets exactly right."""
    values: NDArray[np.float64] = points @ SLOPES + OFFSET
    return values


def at_voxels(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    indices = np.stack([*np.indices(shape), np.ones(shape)], axis=-1)
    return linear((indices @ affine.T)[..., :3])


def at_pixels(instance: Instance) -> NDArray[np.float64]:
    """By PS3.3 C.7.6.2.1-1, written out."""
    rows, columns = np.indices(instance.shape)
    down, across = instance.spacing_mm
    points = (
        np.array(instance.position)
        + np.array(instance.across) * across * columns[..., None]
        + np.array(instance.down) * down * rows[..., None]
    )
    return linear(points)


@pytest.mark.parametrize("trap", USABLE, ids=lambda trap: trap.name)
@pytest.mark.parametrize("size", [None, 16])
def test_values_return_to_the_original_slices(trap: Trap, size: int | None, tmp_path: Path) -> None:
    place = trap.build(tmp_path)
    scan = read_scan(place, size=size, min_slices=15)
    values = at_voxels(scan.volume.affine, scan.volume.hu.shape)
    with source_series(place, scan.digest) as instances:
        assert len(instances) == scan.slices
        for instance in instances:
            placed, expected = onto_slice(values, scan.volume.affine, instance), at_pixels(instance)
            inner = (slice(2, -2), slice(2, -2)) if size else (slice(None), slice(None))
            there = placed[inner] != 0  # of a tilted gantry's slices a part lies beside the volume
            assert there.all() or "tilt" in trap.name
            assert there.mean() > 0.4
            np.testing.assert_allclose(placed[inner][there], expected[inner][there], atol=0.6)


def test_a_cropped_volume_leaves_the_rest_of_a_slice_cold(tmp_path: Path) -> None:
    place = save(tmp_path / "a", flipped())
    scan = read_scan(place, min_slices=15)
    crop = slice(10, 20), slice(5, 15), slice(4, 20)
    cropped = scan.volume.affine.copy()
    cropped[:3, 3] = (scan.volume.affine @ [10, 5, 4, 1])[:3]
    values = at_voxels(scan.volume.affine, scan.volume.hu.shape)[crop]
    with source_series(place, scan.digest) as instances:
        placed = np.stack([onto_slice(values, cropped, instance) for instance in instances])
        expected = np.stack([at_pixels(instance) for instance in instances])
    assert np.count_nonzero(placed) == values.size
    np.testing.assert_allclose(placed[placed != 0], expected[placed != 0], rtol=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_grid_onto_itself_turned_changes_nothing(seed: int) -> None:
    """Axes swapped and reversed at random, with an affine that is anything but square."""
    rng = np.random.default_rng(seed)
    values = rng.random((4, 5, 6)).astype(np.float32)
    affine = np.eye(4)
    affine[:3] = rng.normal(size=(3, 4)) + 3 * np.eye(3, 4)
    axes = rng.permutation(3)
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1
    turned = values.transpose(axes)
    for new, old in enumerate(axes):
        forward = rng.random() < 0.5
        to_old[old, new], to_old[old, 3] = (1, 0) if forward else (-1, values.shape[old] - 1)
        turned = turned if forward else np.flip(turned, new)
    for nearest in (False, True):
        placed = onto_grid(values, affine, affine @ to_old, turned.shape, nearest=nearest)
        np.testing.assert_allclose(placed, turned, atol=1e-4)


def test_half_a_voxel_around_the_volume_belongs_to_it() -> None:
    values = np.ones((1, 2, 2), np.float32)
    fine = np.diag([1, 0.25, 0.25, 1.0])
    fine[1:3, 3] = -1
    placed = onto_grid(values, np.eye(4), fine, (1, 13, 13))
    assert np.flatnonzero(placed[0, 6]).tolist() == list(range(2, 11))  # from -0.5 to 1.5 in quarters


def test_sides_of_an_image(tmp_path: Path) -> None:
    for name, datasets, expected in (
        ("plain", stack(range(20)), ("R", "L", "A", "P")),
        ("flipped", flipped(), None),
    ):
        place = save(tmp_path / name, datasets)
        with source_series(place, read_scan(place, min_slices=15).digest) as (first, *_):
            if expected is not None:
                assert edges(first) == expected
            left, right, top, bottom = edges(first)
            lps = image_affine(first)
            assert (left, right) == (("R", "L") if lps[0, 2] > 0 else ("L", "R"))
            assert (top, bottom) == (("A", "P") if lps[1, 1] > 0 else ("P", "A"))


def test_another_series_is_refused(tmp_path: Path) -> None:
    mine = save(tmp_path / "mine", stack(range(20)))
    other = save(tmp_path / "other", stack(range(21)))
    digest = read_scan(mine, min_slices=15).digest
    for place in (other, tmp_path / "nowhere"):
        with pytest.raises(MismatchError, match="no series that the case was made from"), source_series(place, digest):
            pass
    save(other, stack(range(20), SeriesInstanceUID="1.2.3.9"))
    with pytest.raises(MismatchError), source_series(other, digest):
        pass
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(RefusedError) as caught, source_series(tmp_path / "bad.zip", digest):
        pass
    assert caught.value.reason is Reason.BAD_ARCHIVE
