"""Draws the slices of a phantom: from distance fields on a coarse lattice to HU in every pixel.

A field is interpolated to the pixels and thresholded there, over the width of an edge: the point spread in
plane, and across the slice the way the surface covers within its thickness. So edges show the partial volume
effect without a single supersampled voxel, and each organ costs only the pixels of its bounding box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ucadi.ct.phantom import anatomy
from ucadi.ct.phantom.anatomy import Habitus, Thorax
from ucadi.ct.phantom.lesions import Opacities
from ucadi.ct.phantom.scanner import Protocol
from ucadi.ct.phantom.shapes import Array, Lattice
from ucadi.ct.phantom.trees import SlicePlane, Tree, cut

Box = tuple[slice, slice]

CONSOLIDATED_HU, SEPTUM_HU, BRONCHIAL_WALL_HU = 38.0, -120.0, 5.0
COUCH_SHELL_HU, COUCH_FOAM_HU = -180.0, -930.0
SKIN_MM, CORTEX_MM = 2.0, 1.3
VISIBLE_GROUND_GLASS = 0.1
"""From this share of replaced air on a voxel counts as lesion in the truth."""


@dataclass(frozen=True)
class Scene:
    """All that a scan sees; the levels of its fields are the slices, its trees are in the patient's own mm."""

    habitus: Habitus
    thorax: Thorax
    parenchyma: Array
    """HU of the lung, ground glass included."""
    opacities: Opacities
    blood: Tree
    bronchi: Tree
    wall_factor: float


@dataclass(frozen=True)
class Picture:
    """A slice before the detector: `hu`, and `depth` below the skin in mm (rows, columns).

    The truth: `lungs` is 1 right and 2 left, `lesions` is where the disease is.
    """

    hu: Array
    depth: Array
    lungs: NDArray[np.uint8]
    lesions: NDArray[np.bool_]


@dataclass(frozen=True)
class Raster:
    """Interpolates the lattice's rows and columns to a scan's pixels, linearly and one axis after the other."""

    row: NDArray[np.intp]
    row_weight: Array
    column: NDArray[np.intp]
    column_weight: Array

    @classmethod
    def between(cls, lattice: Lattice, x: Array, y: Array) -> Raster:
        """From the lattice to pixels at `x` and `y`, which are in the lattice's mm."""
        return cls(*_stencil(lattice.y, y), *_stencil(lattice.x, x))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        return self.row.size, self.column.size

    def box(self, wanted: NDArray[np.bool_]) -> Box | None:
        """The pixels about the wanted nodes of one level; None if there are none."""
        if not wanted.any():
            return None
        rows, columns = np.flatnonzero(wanted.any(axis=1)), np.flatnonzero(wanted.any(axis=0))
        return _span(self.row, rows[0] - 1, rows[-1] + 1), _span(self.column, columns[0] - 1, columns[-1] + 1)

    def sample(self, level: Array, box: Box) -> Array:
        """One level of a field, (y, x), at the pixels of the box."""
        row, row_weight = self.row[box[0]], self.row_weight[box[0], None]
        column, column_weight = self.column[box[1]], self.column_weight[box[1]]
        above = level[row]
        above += row_weight * (level[row + 1] - above)
        left = np.take(above, column, axis=1)
        right = np.take(above, column + 1, axis=1)
        right -= left
        right *= column_weight
        right += left
        return right


def _stencil(nodes: Array, at: Array) -> tuple[NDArray[np.intp], Array]:
    position = np.clip((at - nodes[0]) / (nodes[1] - nodes[0]), 0, nodes.size - 1.001)
    first = position.astype(np.intp)
    return first, (position - first).astype(np.float32)


def _span(first_nodes: NDArray[np.intp], low: int, high: int) -> slice:
    return slice(int(np.searchsorted(first_nodes, low)), int(np.searchsorted(first_nodes, high, "right")))


class Renderer:
    """Draws a scene as a protocol asks for it."""

    def __init__(self, scene: Scene, protocol: Protocol) -> None:
        self._scene = scene
        self._protocol = protocol
        scale, shift = scene.habitus.scale, scene.habitus.offset_mm
        x, y = (
            (pixels - np.float32(offset)) / np.float32(factor)
            for pixels, offset, factor in zip(protocol.pixels, shift, scale, strict=False)
        )
        self._raster = Raster.between(scene.thorax.lattice, x, y)
        self._edge = max(protocol.scanner.edge_mm, protocol.pixel)
        self._thickness = protocol.thickness / scale[2]
        self._backdrop = _couch(x, y, anatomy.couch_level(scene.habitus))
        self._middle = int(np.searchsorted(x, 2.0))
        self._net_rows, self._net_columns = (_net_index(axis) for axis in (y, x))

    def draw(self) -> Iterator[Picture]:
        """The slices from the feet to the head."""
        for level in range(self._scene.thorax.lattice.z.size):
            yield self._draw_slice(level)

    def _draw_slice(self, level: int) -> Picture:
        thorax = self._scene.thorax
        hu, depth = self._backdrop.copy(), np.zeros(self._raster.shape, np.float32)
        lungs, lesions = np.zeros(hu.shape, np.uint8), np.zeros(hu.shape, bool)
        self._paint_skin_and_fat(level, hu, depth)
        self._paint(level, hu, thorax.muscle, anatomy.MUSCLE)
        for organ in thorax.organs:
            self._paint(level, hu, organ.field, organ.hu)
        self._paint_lungs(level, hu, lungs, lesions)
        self._paint(level, hu, thorax.cartilage, anatomy.CARTILAGE)
        self._paint_bones(level, hu)
        self._paint(level, hu, thorax.airways - 1.7, 30.0)
        self._paint(level, hu, thorax.airways, anatomy.AIR)
        return Picture(hu, depth, lungs, lesions)

    def _coverage(self, level: int, field: Array) -> tuple[Box, Array] | None:
        """The pixels that a shape touches and how much of each it fills, 0 to 1."""
        here = field[level]
        box = self._raster.box(here < 0.5 * (self._edge + self._thickness))
        if box is None:
            return None
        above, below = min(level + 1, len(field) - 1), max(level - 1, 0)
        levels = self._scene.thorax.lattice.z
        slope = np.abs(field[above] - field[below]) * np.float32(1 / (levels[above] - levels[below]))
        width = np.float32(self._edge) + np.float32(self._thickness) * np.minimum(slope, 1)
        share = 0.5 - self._raster.sample(here / width, box)
        return box, np.clip(share, 0, 1, out=share)

    def _paint(self, level: int, hu: Array, field: Array, value: float) -> None:
        covered = self._coverage(level, field)
        if covered is not None:
            box, share = covered
            _mix(hu[box], share, np.float32(value))

    def _paint_skin_and_fat(self, level: int, hu: Array, depth: Array) -> None:
        body = self._scene.thorax.body[level]
        box = self._raster.box(body < self._edge)
        if box is None:
            return
        inward = -self._raster.sample(body, box)
        for skipped, value in ((0.0, anatomy.SKIN), (SKIN_MM, anatomy.FAT)):
            share = (inward - np.float32(skipped)) / np.float32(self._edge) + np.float32(0.5)
            _mix(hu[box], np.clip(share, 0, 1, out=share), np.float32(value))
        np.maximum(inward, 0, out=depth[box])

    def _paint_bones(self, level: int, hu: Array) -> None:
        """Bone is a bright cortex around cancellous bone."""
        covered = self._coverage(level, self._scene.thorax.bones)
        if covered is None:
            return
        box, share = covered
        inward = -self._raster.sample(self._scene.thorax.bones[level], box)
        cancellous = np.clip((inward - np.float32(CORTEX_MM)) / np.float32(self._edge), 0, 1)
        value = anatomy.CORTICAL_BONE + cancellous * np.float32(anatomy.CANCELLOUS_BONE - anatomy.CORTICAL_BONE)
        _mix(hu[box], share, value)

    def _paint_lungs(self, level: int, hu: Array, lungs: NDArray[np.uint8], lesions: NDArray[np.bool_]) -> None:
        scene, opacities = self._scene, self._scene.opacities
        covered = self._coverage(level, scene.thorax.lungs)
        if covered is None:
            return
        box, lung = covered
        picture = self._raster.sample(scene.parenchyma[level], box)
        _mix(picture, cut(scene.blood, self._plane(level))[box], np.float32(anatomy.BLOOD + self._protocol.contrast_hu))
        ill = np.zeros(lung.shape, bool)
        if opacities.ground_glass is not None and opacities.ground_glass[level].any():
            ill |= self._raster.sample(opacities.ground_glass[level], box) > VISIBLE_GROUND_GLASS
        if opacities.paving is not None and opacities.paving[level].any():
            _mix(
                picture,
                self._raster.sample(opacities.paving[level], box) * self._net(level, box),
                np.float32(SEPTUM_HU),
            )
        if opacities.consolidation is not None:
            ill |= self._fill(level, picture, box, opacities.consolidation, CONSOLIDATED_HU) > 0.5
        self._paint_bronchi(level, picture, box)
        if opacities.effusion is not None:
            self._fill(level, picture, box, opacities.effusion, anatomy.FLUID)
        _mix(hu[box], lung, picture)
        inside = lung > 0.5
        lesions[box] = ill & inside
        lungs[box] = inside
        lungs[:, self._middle :] *= 2

    def _fill(self, level: int, picture: Array, box: Box, field: Array, value: float) -> Array:
        """Fills a shape in the picture of a box; returns how much of each pixel it covers."""
        whole = np.zeros(self._raster.shape, np.float32)
        covered = self._coverage(level, field)
        if covered is not None:
            whole[covered[0]] = covered[1]
        _mix(picture, whole[box], np.float32(value))
        return whole[box]

    def _paint_bronchi(self, level: int, picture: Array, box: Box) -> None:
        """Walls, then lumina; within a consolidation the lumina stand out as an air bronchogram."""
        bronchi, plane = self._scene.bronchi, self._plane(level)
        thicker = (0.3 + 0.17 * bronchi.radius) * np.float32(self._scene.wall_factor)
        walls = Tree(bronchi.start, bronchi.end, bronchi.radius + thicker)
        _mix(picture, cut(walls, plane)[box], np.float32(BRONCHIAL_WALL_HU))
        _mix(picture, cut(bronchi, plane)[box], np.float32(anatomy.AIR + 40))

    def _plane(self, level: int) -> SlicePlane:
        protocol, habitus = self._protocol, self._scene.habitus
        origin = protocol.origin[0] - habitus.offset_mm[0], protocol.origin[1] - habitus.offset_mm[1]
        z = float(self._scene.thorax.lattice.z[level]) * habitus.scale[2]
        return SlicePlane(z, protocol.thickness, origin, protocol.pixel, protocol.matrix, self._edge)

    def _net(self, level: int, box: Box) -> Array:
        """The septa of the secondary lobules at the pixels of a box, 0 to 1."""
        net = lobular_net()
        z = int(_net_index(self._scene.thorax.lattice.z[level : level + 1], NET_SPACING_Z)[0])
        return np.asarray(net[z % len(net)][self._net_rows[box[0], None], self._net_columns[None, box[1]]])


def _mix(picture: Array, share: Array, value: Array | np.float32) -> None:
    """Replaces the share of each pixel by the value, in place."""
    picture += share * (value - picture)


def _couch(x: Array, y: Array, level: float) -> Array:
    """Air, and the scanner's couch under a back at `level`: a shallow cradle of foam in a thin shell of carbon."""
    below = y[:, None] - (level + 2.5 - 0.0004 * np.square(x[None, :]))
    depth = np.minimum(below, 16 - below)
    depth = np.minimum(depth, 200 - np.abs(x[None, :]))
    hu = np.full(depth.shape, anatomy.AIR, np.float32)
    _mix(hu, np.clip(depth + 0.5, 0, 1), np.float32(COUCH_SHELL_HU))
    _mix(hu, np.clip(depth - 1.5, 0, 1), np.float32(COUCH_FOAM_HU))
    return hu


NET_SPACING, NET_SPACING_Z = 0.75, 2.5
NET_CELL_MM, NET_CELLS = 7.5, 8
SEPTUM_MM = 1.1


def _net_index(at: Array, spacing: float = NET_SPACING) -> NDArray[np.intp]:
    period = round(NET_CELL_MM * NET_CELLS / spacing)
    return np.asarray(np.floor(at / np.float32(spacing)), np.intp) % period


@cache
def lobular_net() -> Array:
    """The walls between the cells of a periodic foam, (z, y, x) of 60 mm each way, 1 on a wall and 0 within a cell.

    A voxel lies on a wall where its nearest and second nearest centres are equally far (Worley noise). One
    foam serves all phantoms: what differs is where it shows.
    """
    period = NET_CELL_MM * NET_CELLS
    jitter = np.random.default_rng(1996).uniform(0.1, 0.9, (NET_CELLS, NET_CELLS, NET_CELLS, 3)).astype(np.float32)
    z, y, x = (
        np.arange(0, period, step, dtype=np.float32) / NET_CELL_MM for step in (NET_SPACING_Z, NET_SPACING, NET_SPACING)
    )
    cell = np.ix_(*(axis.astype(np.intp) for axis in (z, y, x)))
    nearest = np.full((z.size, y.size, x.size), 9.0, np.float32)
    second = nearest.copy()
    for shift in np.ndindex(3, 3, 3):
        neighbour = tuple(index + step - 1 for index, step in zip(cell, shift, strict=True))
        centre = jitter[tuple(index % NET_CELLS for index in neighbour)]
        distance = np.square(neighbour[0] + centre[..., 0] - z[:, None, None])
        distance += np.square(neighbour[1] + centre[..., 1] - y[None, :, None])
        distance += np.square(neighbour[2] + centre[..., 2] - x[None, None, :])
        distance = np.sqrt(distance)
        np.minimum(second, np.maximum(distance, nearest), out=second)
        np.minimum(nearest, distance, out=nearest)
    wall = (second - nearest) * NET_CELL_MM / 2
    return np.clip(1.2 - wall / (SEPTUM_MM / 2), 0, 1).astype(np.float32)
