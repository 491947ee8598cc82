"""Implicit shapes on a coarse lattice: the drawing tools of the phantom.

A shape is a *distance field*: its value is about the distance in millimetres to the surface, negative
inside. Distances vary smoothly, so a lattice of some 3 mm carries them; the edge becomes sharp only when a
slice interpolates the field to its pixels and thresholds it (see `ucadi.ct.phantom`). That is what makes
a phantom of 512 x 512 pixels cheap.

Coordinates are the patient's, in DICOM's sense: x grows to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Point = tuple[float, float, float]
Knot = tuple[float, float, float, float]
Window = tuple[slice, slice, slice]
Range = tuple[float, float]

EVERYWHERE: Range = (-np.inf, np.inf)
FAR = 99.0
"""Distance, in mm, of what is nowhere near."""

FADE_MM = 24.0
"""Up to this distance from a solid the distance to it is computed: the widest blend, and slices some mm thick."""


@dataclass(frozen=True)
class Lattice:
    """Where distance fields are sampled: `x`, `y` and `z` in mm; a field has the shape (z, y, x)."""

    x: Array
    y: Array
    z: Array

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of a field on this lattice."""
        return self.z.size, self.y.size, self.x.size

    @property
    def axes(self) -> tuple[Array, Array, Array]:
        """x, y and z, shaped to broadcast to a field."""
        return self.x[None, None, :], self.y[None, :, None], self.z[:, None, None]

    def window(self, x: Range = EVERYWHERE, y: Range = EVERYWHERE, z: Range = EVERYWHERE) -> Window:
        """The part of the lattice within the ranges, in mm."""
        ranges = ((self.z, z), (self.y, y), (self.x, x))
        first, second, third = (
            slice(int(np.searchsorted(axis, low)), int(np.searchsorted(axis, high, "right")))
            for axis, (low, high) in ranges
        )
        return first, second, third

    def __getitem__(self, window: Window) -> Lattice:
        return Lattice(self.x[window[2]], self.y[window[1]], self.z[window[0]])

    def around(self, centre: Point, reach: float) -> Window:
        """The part of the lattice in the cube of half-width `reach` mm about `centre`."""
        x, y, z = ((c - reach, c + reach) for c in centre)
        return self.window(x, y, z)


def profile(z: Array, knots: Sequence[tuple[float, float]]) -> Array:
    """A smooth curve through about the `knots` (z, value), shaped (z, 1, 1)."""
    levels, values = zip(*knots, strict=True)
    blur = np.linspace(-12.0, 12.0, 9)  # rounds the corners of the polyline
    smooth = np.interp(z[:, None] + blur, levels, values).mean(axis=1)
    return np.asarray(smooth[:, None, None], np.float32)


def oval(
    x: Array, y: Array, half_width: Array | np.float32, half_depth: Array | np.float32, squareness: float = 0.0
) -> Array:
    """Distance to an upright cylinder; its cross-section is an ellipse (0) to a superellipse of degree 4 (1)."""
    u, v = np.square(x / half_width), np.square(y / half_depth)
    rho: Array = np.sqrt(u + v)
    if squareness:
        corner = np.sqrt(u * u + v * v)
        rho += np.float32(squareness) * (np.sqrt(corner, out=corner) - rho)
    # From the middle, the surface lies at 1 / rho times the distance from it; in the middle itself, at 0 / 0.
    np.maximum(rho, 1e-3, out=rho)
    radius = np.sqrt(np.square(x) + np.square(y)) + np.float32(1e-3) * half_depth
    np.reciprocal(rho, out=rho)
    np.subtract(1, rho, out=rho)
    rho *= radius
    return rho


def ellipsoid(lattice: Lattice, centre: Point, radii: Point, long_axis: Point | None = None) -> Array:
    """About the distance to an ellipsoid; the first radius lies along `long_axis` (default: x)."""
    field = np.full(lattice.shape, FAR, np.float32)
    window = lattice.around(centre, max(radii) + FADE_MM)
    field[window] = _ellipsoid(lattice[window], centre, radii, long_axis)
    return field


def _ellipsoid(lattice: Lattice, centre: Point, radii: Point, long_axis: Point | None) -> Array:
    x, y, z = (axis - c for axis, c in zip(lattice.axes, centre, strict=True))
    if long_axis is not None:
        frame = _frame(long_axis)
        x, y, z = (row[0] * x + row[1] * y + row[2] * z for row in frame)
    u, v, w = x / radii[0], y / radii[1], z / radii[2]
    near = np.sqrt(u * u + v * v + w * w)
    steep = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2)
    return np.asarray(near * (near - 1) / np.maximum(steep, 1e-6), np.float32)


def tubes(lattice: Lattice, paths: Sequence[Sequence[Knot]]) -> Array:
    """Distance to tubes through the points (x, y, z, radius) of each path; far from them, merely large."""
    field = np.full(lattice.shape, FAR, np.float32)
    for start, end in (pair for path in paths for pair in pairwise(path)):
        reach = FADE_MM + max(start[3], end[3])
        x, y, z = ((min(a, b) - reach, max(a, b) + reach) for a, b in zip(start[:3], end[:3], strict=True))
        window = lattice.window(x, y, z)
        part = field[window]
        np.minimum(part, _capsule(lattice[window], start, end), out=part)
    return field


def _capsule(lattice: Lattice, start: Knot, end: Knot) -> Array:
    x, y, z = (axis - s for axis, s in zip(lattice.axes, start[:3], strict=True))
    dx, dy, dz, dr = (e - s for e, s in zip(end, start, strict=True))
    along = np.clip((x * dx + y * dy + z * dz) / (dx * dx + dy * dy + dz * dz), 0, 1)
    across = np.square(x - along * dx) + np.square(y - along * dy) + np.square(z - along * dz)
    return np.asarray(np.sqrt(across) - (start[3] + along * dr), np.float32)


def blend(first: Array, second: Array, radius: float) -> Array:
    """The union of two shapes with the crease between them filled to `radius` mm (a smooth minimum)."""
    overlap: Array = np.abs(first - second)
    np.subtract(radius, overlap, out=overlap)
    np.maximum(overlap, 0, out=overlap)
    overlap *= overlap
    overlap *= np.float32(0.25 / radius)
    return np.minimum(first, second) - overlap


def carve(shape: Array, other: Array, radius: float) -> Array:
    """`shape` without `other`, its new edges rounded to `radius` mm."""
    return -blend(-shape, other, radius)


def ripple(lattice: Lattice, wavelength: float, rng: np.random.Generator) -> Array:
    """A smooth irregular field of about unit deviation; as products of waves along the axes it costs little."""
    field = np.zeros(lattice.shape, np.float32)
    for scale in (1.0, 0.72, 0.45):
        phases, turns = rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.8, 1.25, 3)
        cx, cy, cz = (
            np.cos(axis * np.float32(2 * np.pi * turn / (wavelength * scale)) + np.float32(phase))
            for axis, phase, turn in zip(lattice.axes, phases, turns, strict=True)
        )
        field += cx * cy * cz * np.float32(1.6 * scale)
    return field


def _frame(long_axis: Point) -> NDArray[np.float32]:
    """Three orthonormal rows, the first along `long_axis`."""
    first = np.asarray(long_axis, np.float64) / np.linalg.norm(long_axis)
    helper = np.array([0.0, 0.0, 1.0]) if abs(first[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    second = np.cross(helper, first)
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)]).astype(np.float32)
