"""Augmentation of training slabs: what another scan of the same chest might have looked like.

All slices of a slab are changed alike, as a patient is. The ranges are small: nothing that a radiologist would
call another finding. Sizes are in pixels of the resampled slices, intensities in Hounsfield units.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ucadi.ct.volume import WINDOW_HU

MIRRORED = 0.5
"""Probability that left and right change places."""

TURN_DEGREES = 10.0
SCALE = 0.1
SHIFT = 0.05
"""Largest turn, change of size, and shift as a share of the side; each is drawn evenly up to that, either way."""

NOISE_HU = 30.0
"""Largest standard deviation of the noise added."""


def augment(hu: npt.NDArray[np.integer], rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """The slices (16, row, column) mirrored, turned, scaled, moved and made noisy by what `rng` draws.

    What comes in from outside is air, as dark as the window shows.
    """
    from scipy import ndimage

    slices = np.clip(hu, *WINDOW_HU).astype(np.float32)
    mirrored = rng.random() < MIRRORED
    angle = math.radians(rng.uniform(-TURN_DEGREES, TURN_DEGREES))
    scale = 1 + rng.uniform(-SCALE, SCALE)
    shift = rng.uniform(-SHIFT, SHIFT, 2) * slices.shape[1:]
    if mirrored:
        slices = slices[:, :, ::-1]
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / scale
    middle = (np.array(slices.shape[1:]) - 1) / 2
    offset = middle - turn @ (middle + shift)
    moved = np.stack(
        [ndimage.affine_transform(one, turn, offset, order=1, mode="constant", cval=WINDOW_HU[0]) for one in slices]
    )
    moved += rng.normal(0.0, rng.uniform(0.0, NOISE_HU), moved.shape)
    rounded: npt.NDArray[np.int16] = np.rint(moved).astype(np.int16)
    return rounded
