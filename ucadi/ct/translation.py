"""CT slices as the images of an image-to-image network, and what it makes of them as HU again.

A network sees HU through a window: `low` to `high` are -1 to 1 linearly, in float32, and what is beyond is -1 or 1. The
inverse is the same line. Of what the network makes only the change is taken, in HU, and added to the scan, so that
HU beyond the window are kept and a network that changes nothing loses nothing, not even a rounding.

An image is a slice with its neighbours as channels. So each slice is made several times, in the middle and at the
sides, and their mean is taken: what neighbouring slices become follows from overlapping images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ucadi.ct.volume import HounsfieldArray, Volume, clip_hu, resize_slice
from ucadi.errors import FormatError

CONTRAST_WINDOW_HU = (-200, 400)
"""Fat to vessels full of contrast medium: soft tissue gets most of the range, and lungs are left as they are."""

SHIFT = 0.06
"""Largest shift of `varied`, as a share of the side."""

CHUNK = 32
"""Images that are made at a time."""

Images = npt.NDArray[np.float32]
"""(images, depth, row, column)."""

Changes = Callable[[Iterable[Images]], Iterable[Images]]
"""From images to what a network changes in them, in the same units and order, cut into any parts."""


@dataclass(frozen=True)
class Window:
    """HU that a network tells apart."""

    low: int = CONTRAST_WINDOW_HU[0]
    high: int = CONTRAST_WINDOW_HU[1]

    def __post_init__(self) -> None:
        if not -1024 <= self.low < self.high <= 3071:
            raise FormatError(f"a window of {self.low} to {self.high} HU", hint="LOW below HIGH, from -1024 to 3071")

    def to_unit(self, hu: npt.NDArray[np.integer]) -> Images:
        """HU to -1..1, float32."""
        inside = np.clip(hu, self.low, self.high).astype(np.float32)
        unit: Images = (inside - np.float32(self.low)) * np.float32(2 / (self.high - self.low)) - np.float32(1)
        return unit

    def to_hu(self, unit: npt.NDArray[np.floating]) -> HounsfieldArray:
        """The inverse, rounded; of what lies in the window it gives the same HU."""
        hu = (unit.astype(np.float64) + 1) * ((self.high - self.low) / 2) + self.low
        return np.rint(hu).astype(np.int16)

    def change_to_hu(self, change: npt.NDArray[np.floating]) -> HounsfieldArray:
        """A difference of two values in -1..1 as a difference of HU, rounded."""
        hu = np.rint(change.astype(np.float64) * ((self.high - self.low) / 2))
        return np.clip(hu, -4096, 4096).astype(np.int16)


def neighbours(slices: int, depth: int, middle: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """The slices of the images about `middle` (n,), (n, depth); at the ends of the volume the last is repeated."""
    offsets = np.arange(depth) - depth // 2
    indices: npt.NDArray[np.intp] = np.clip(np.asarray(middle)[..., np.newaxis] + offsets, 0, slices - 1)
    return indices


def image(planes: HounsfieldArray, window: Window, size: int, rng: np.random.Generator | None = None) -> Images:
    """Adjacent slices, int16 (depth, row, column), as one image (depth, size, size), varied if there is a generator."""
    resized = np.stack([resize_slice(plane, size, size) for plane in planes])
    return window.to_unit(resized if rng is None else varied(resized, rng))


def varied(planes: HounsfieldArray, rng: np.random.Generator) -> HounsfieldArray:
    """The slices mirrored half of the times, and moved a little; what comes in from outside is as the border is."""
    mirrored = rng.random() < 0.5
    most = round(SHIFT * planes.shape[-1])
    down, right = (int(n) for n in rng.integers(-most, most + 1, 2))
    rows = np.clip(np.arange(planes.shape[1]) - down, 0, planes.shape[1] - 1)
    columns = np.clip(np.arange(planes.shape[2]) - right, 0, planes.shape[2] - 1)
    moved = planes[:, rows][:, :, columns]
    return np.ascontiguousarray(moved[:, :, ::-1] if mirrored else moved)


def translate(volume: Volume, changes: Changes, window: Window, *, depth: int, size: int) -> Volume:
    """The volume with what a network of that depth and size changes in it; its geometry is kept.

    Slices of another size are resized for the network, and the change is resized back, so that noise and fine
    edges are the scan's own.
    """
    slices = len(volume.hu)
    total = np.zeros((slices, size, size))
    times = np.zeros(slices)
    done = 0
    for part in changes(_images(volume.hu, window, depth, size)):
        places = neighbours(slices, depth, np.arange(done, done + len(part)))
        for channel in range(depth):
            np.add.at(total, places[:, channel], part[:, channel])
            np.add.at(times, places[:, channel], 1)
        done += len(part)
    if done != slices:
        raise ValueError(f"{done} images back for {slices} slices")
    hu = np.empty_like(volume.hu)
    for index, plane in enumerate(volume.hu):
        change = window.change_to_hu(total[index] / times[index])
        hu[index] = clip_hu(plane.astype(np.int32) + resize_slice(change, *plane.shape))
    return replace(volume, hu=hu)


def _images(hu: HounsfieldArray, window: Window, depth: int, size: int) -> Iterator[Images]:
    """The images about every slice, in order."""
    for start in range(0, len(hu), CHUNK):
        middle = np.arange(start, min(start + CHUNK, len(hu)))
        places = neighbours(len(hu), depth, middle)
        wanted = range(int(places.min()), int(places.max()) + 1)
        units = np.stack([window.to_unit(resize_slice(hu[index], size, size)) for index in wanted])
        yield units[places - wanted.start]
