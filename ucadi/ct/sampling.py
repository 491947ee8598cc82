"""From a volume to the slab that the network sees: 16 slices at a regular interval, standardised.

Source: the paper, Methods, "Data pre-processing": an adaptive sampling selects 16 slices using random
starting positions and scalable intervals, once per case in training and five independent times in testing;
the slices are windowed to -1200..600 HU and standardised to zero mean and unit variance.

Every random choice follows from (seed, epoch or repeat, case), never from the order in which cases are
loaded: training resumes, and loads in parallel, bit for bit.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from ucadi.ct.volume import WINDOW_HU

LUNG_HU = -850
"""Of healthy lung."""

SLICES = 16
"""Slices of a slab."""

TEST_SAMPLINGS = 5
"""Independent slabs per case whose predictions are averaged in testing."""


def slab_indices(slices: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Indices of the 16 slices of a slab, intp (16,), in a volume of `slices` slices.

    The interval is the largest that fits and the start is uniform among what remains. Fewer than 16 slices are
    spread evenly, with repeats; nothing is random then, but `rng` is advanced all the same.
    """
    if slices < 1:
        raise ValueError("a volume has at least one slice")
    interval = max(1, slices // SLICES)
    starts = max(1, slices - interval * (SLICES - 1))
    start = int(rng.integers(starts))
    if slices < SLICES:
        return np.arange(SLICES) * slices // SLICES
    return start + interval * np.arange(SLICES)


def slab(volume_hu: npt.NDArray[np.integer], indices: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """The chosen slices as the network's input, float32 (1, 16, row, column), with zero mean and unit variance.

    Standardising undoes any scaling of the window, so HU are not mapped to 0..1 first. A slab of one value
    becomes zeros.
    """
    hu = np.clip(volume_hu[indices], *WINDOW_HU).astype(np.float64)
    mean, deviation = _moments(hu)
    values: npt.NDArray[np.float32] = ((hu - mean) / deviation).astype(np.float32)
    return values[np.newaxis]


def standardised(
    volume_hu: npt.NDArray[np.integer], indices: npt.NDArray[np.intp], hu: float
) -> npt.NDArray[np.float32]:
    """What a value of `hu` is in each slab of the samplings (repeats, 16), float32 (repeats,)."""
    moments = [_moments(np.clip(volume_hu[taken], *WINDOW_HU).astype(np.float64)) for taken in indices]
    return np.array([(hu - mean) / deviation for mean, deviation in moments], np.float32)


def _moments(hu: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean and deviation. Sums of integers in float64 are exact, so they do not depend on the order of summation."""
    mean = hu.sum() / hu.size
    variance = np.square(hu).sum() / hu.size - mean**2
    return float(mean), float(np.sqrt(max(variance, 1e-6)))


def test_indices(slices: int, seed: int, case_id: str) -> npt.NDArray[np.intp]:
    """The slices of a case's independent test samplings, intp (5, 16)."""
    rngs = (test_rng(seed, repeat, case_id) for repeat in range(TEST_SAMPLINGS))
    return np.stack([slab_indices(slices, rng) for rng in rngs])


def slabs(volume_hu: npt.NDArray[np.integer], indices: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """The slabs of several samplings, indices (repeats, 16), as float32 (repeats, 1, 16, row, column)."""
    return np.stack([slab(volume_hu, sampling) for sampling in indices])


def training_rng(seed: int, epoch: int, case_id: str) -> np.random.Generator:
    """The generator of every random choice about one case in one epoch of training."""
    return _generator("training", seed, epoch, case_id)


def test_rng(seed: int, repeat: int, case_id: str) -> np.random.Generator:
    """The generator of one of the `TEST_SAMPLINGS` slabs of a case in testing."""
    return _generator("test", seed, repeat, case_id)


test_rng.__test__ = False  # type: ignore[attr-defined]  # their names make pytest take them for tests
test_indices.__test__ = False  # type: ignore[attr-defined]


def _generator(purpose: str, seed: int, number: int, case_id: str) -> np.random.Generator:
    """A generator for these words; SHA-256 keeps any two purposes, numbers or cases independent."""
    digest = hashlib.sha256(f"ucadi sampling\0{purpose}\0{seed}\0{number}\0{case_id}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest)))
