"""CT scanners of the phantom: what differs from one hospital's images to another's.

A preset joins what the reconstruction does to the pixels (kernel, noise, slice thickness, field of view,
a bias, cupping from beam hardening, padding outside the circular field) with what the header says. The values
are typical of the models named, not measured on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ucadi.ct.phantom.anatomy import SCAN_RANGE_MM, Habitus
from ucadi.ct.phantom.shapes import Array

INTERCEPT = -1024
"""Stored values are HU + 1024, as every vendor here writes them (DICOM PS3.3 C.11.1.1.2)."""


@dataclass(frozen=True)
class Scanner:
    """One scanner with its chest protocol; lengths in mm, attenuation in HU."""

    manufacturer: str
    model: str
    station: str
    kernel: str
    sharpening: float
    """Weight of the unsharp mask of a sharp kernel; negative for a soft kernel, which blurs."""
    noise_hu: float
    """Standard deviation in the middle of an average patient."""
    edge_mm: float
    """Width of the point spread in plane."""
    thickness: float
    spacing: float
    field_of_view: tuple[float, float]
    """Smallest and largest reconstruction diameter."""
    kvp: int
    tube_current_ma: tuple[int, int]
    bias_hu: float
    cupping_hu: float
    """How much darker than its rim an object of 100 mm radius is in the middle."""
    padding: int | None
    """Stored value outside the circular field of view, if the vendor pads it."""
    head_first: bool
    """Whether instance 1 is the slice nearest to the head."""
    scrambled_names: bool
    """Whether the names of the files follow the UIDs instead of the slices."""


SCANNERS: dict[str, Scanner] = {
    "ge": Scanner(
        "GE MEDICAL SYSTEMS", "LightSpeed16", "CT01", "STANDARD", -1.0, 15, 1.1, 5.0, 5.0, (350, 400), 120, (180, 320),
        2.0, 6.0, -2000, True, True,
    ),
    "siemens": Scanner(
        "SIEMENS", "SOMATOM Definition AS+", "CTAWP66583", "B60f", 0.7, 30, 0.7, 5.0, 4.0, (320, 370), 120, (90, 210),
        -3.0, 3.0, None, True, False,
    ),
    "toshiba": Scanner(
        "TOSHIBA", "Aquilion PRIME", "ID_STATION", "FC52", 0.9, 36, 0.65, 3.0, 5.0, (340, 390), 120, (120, 260),
        -7.0, 9.0, None, False, False,
    ),
    "philips": Scanner(
        "Philips", "Ingenuity Core 128", "HOST-7612", "B", -0.6, 19, 1.0, 3.0, 3.0, (330, 380), 100, (140, 240),
        5.0, 4.0, None, False, True,
    ),
}  # fmt: skip
"""The presets by name; thickness equals spacing, overlaps (siemens) or leaves gaps (toshiba)."""


@dataclass(frozen=True)
class Protocol:
    """How a patient is scanned: the geometry in mm, and what the contrast agent adds to the blood in HU."""

    scanner: Scanner
    matrix: int
    slices: int
    spacing: float
    thickness: float
    field_of_view: float
    centre: tuple[float, float]
    """x and y of the centre of the image."""
    contrast_hu: float = 0.0

    @classmethod
    def plan(
        cls,
        scanner: Scanner,
        habitus: Habitus,
        rng: np.random.Generator,
        *,
        matrix: int = 512,
        slices: int | None = None,
        contrast: bool = False,
    ) -> Protocol:
        """A scan of the whole chest; with a number of `slices`, spacing and thickness stretch so that it is covered."""
        low, high = SCAN_RANGE_MM
        length = (high - low) * habitus.scale[2]
        count = slices or max(2, round(length / scanner.spacing) + 1)
        spacing = scanner.spacing if slices is None else round(length / max(count - 1, 1), 2)
        widest = 2 * 182 * habitus.scale[0] + 2 * habitus.fat_mm
        smallest, largest = scanner.field_of_view
        return cls(
            scanner,
            matrix,
            count,
            spacing,
            round(scanner.thickness * spacing / scanner.spacing, 2),
            float(np.clip(round(widest * rng.uniform(0.96, 1.06)), smallest, largest)),
            (float(np.round(rng.normal(0, 4), 1)), float(np.round(rng.normal(0, 4), 1))),
            float(rng.uniform(150, 290)) if contrast else 0.0,
        )

    @property
    def pixel(self) -> float:
        """Width of a pixel in mm."""
        return self.field_of_view / self.matrix

    @property
    def origin(self) -> tuple[float, float]:
        """x and y of the centre of the first pixel."""
        corner = (self.matrix - 1) / 2 * self.pixel
        return self.centre[0] - corner, self.centre[1] - corner

    @cached_property
    def pixels(self) -> tuple[Array, Array]:
        """x of the columns and y of the rows, in mm."""
        steps = np.arange(self.matrix, dtype=np.float32) * np.float32(self.pixel)
        return steps + np.float32(self.origin[0]), steps + np.float32(self.origin[1])

    def levels(self, habitus: Habitus) -> Array:
        """z of the slices from the feet to the head, in mm."""
        first = SCAN_RANGE_MM[0] * habitus.scale[2]
        return (first + self.spacing * np.arange(self.slices)).astype(np.float32)


def reconstruction_kernel(sharpening: float) -> Callable[[Array], Array]:
    """The filter of a kernel on an image (rows, columns); its edge pixels wrap, where there is only air."""

    def blurred(image: Array) -> Array:
        rows = np.roll(image, 1, 0)
        rows += np.roll(image, -1, 0)
        rows += 2 * image
        columns = np.roll(rows, 1, 1)
        columns += np.roll(rows, -1, 1)
        columns += 2 * rows
        columns *= np.float32(1 / 16)
        return columns

    def apply(image: Array) -> Array:
        smooth = blurred(image)
        return image + np.float32(sharpening) * (image - smooth)

    return apply


def white_noise_gain(kernel: Callable[[Array], Array]) -> float:
    """By how much the kernel changes the deviation of white noise: the root of the sum of its squared weights."""
    impulse = np.zeros((9, 9), np.float32)
    impulse[4, 4] = 1
    return float(np.sqrt(np.square(kernel(impulse)).sum()))


class Detector:
    """Turns ideal pictures into what the scanner delivers: noise and picture pass through the same kernel."""

    def __init__(self, protocol: Protocol, rng: np.random.Generator) -> None:
        scanner = protocol.scanner
        self._rng = rng
        self._scanner = scanner
        self._kernel = reconstruction_kernel(scanner.sharpening)
        # Thin slices catch fewer photons; the presets state the noise at their own thickness.
        thinner = np.sqrt(scanner.thickness / protocol.thickness) if protocol.thickness else 1.0
        self._white_hu = scanner.noise_hu / white_noise_gain(self._kernel) * min(float(thinner), 2.0)
        self._shared = max(0.0, 1 - protocol.spacing / protocol.thickness)
        self._last: Array | None = None
        x, y = protocol.pixels
        radius = np.hypot(*np.meshgrid(x - protocol.centre[0], y - protocol.centre[1]))
        self._outside = radius > protocol.field_of_view / 2

    def record(self, hu: Array, depth: Array) -> NDArray[np.int16]:
        """The picture `hu` as delivered, int16 HU; noise and cupping grow with the `depth` below the skin."""
        scanner = self._scanner
        deep = depth * np.float32(0.01)
        image = self._noise(hu.shape)
        image *= np.float32(self._white_hu) * (np.float32(0.4) + np.float32(0.65) * deep)
        image += hu
        image -= np.float32(scanner.cupping_hu) * deep
        image = self._kernel(image)
        image += np.float32(scanner.bias_hu)
        recorded = np.clip(np.rint(image, out=image), INTERCEPT, 3071, out=image).astype(np.int16)
        recorded[self._outside] = INTERCEPT + (scanner.padding or 0)
        return recorded

    def _noise(self, shape: tuple[int, ...]) -> Array:
        """White noise of deviation 1, correlated with the slice before as far as both see the same photons."""
        fresh = self._rng.standard_normal(shape, dtype=np.float32)
        if not self._shared:
            return fresh
        mixed = fresh.copy() if self._last is None else fresh + np.float32(self._shared) * self._last
        self._last = fresh
        return mixed * np.float32(1 / np.hypot(1, self._shared))
