"""Bronchi, arteries and veins of the phantom's lungs: trees that fill a volume, and how a slice cuts them.

The trees grow as in M. H. Tawhai et al., J. Appl. Physiol. 97 (2004) 2310: a branch runs part of the way
towards the centre of the tissue it supplies, the tissue is split in two by a plane through the branch, and
each half gets a daughter. Radii follow Murray's law, so a vessel's cube of the radius is its share of the flow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucadi.ct.phantom.anatomy import HILA, Habitus, Landmarks, lattice_at, lung_distance
from ucadi.ct.phantom.shapes import Array, Point

ARTERY_ROOT_MM, VEIN_ROOT_MM = 7.0, 6.4
VEIN_OFFSET_MM = (0.0, 2.0, -18.0)
"""From where the artery enters the lung to where the veins leave it."""

PIECE_MM = 6.0
STRAIGHTNESS = 0.35
"""How much a branch keeps the direction of its mother, relative to heading for its tissue."""

SEED_SPACING_MM = 8.0


@dataclass(frozen=True)
class Tissue:
    """Points evenly spread through both lungs, in mm: what the trees supply and where lesions can sit.

    `points` is (n, 3) as x, y, z; `depth` the distance to the lung's surface, `costal` to the chest wall,
    `right` which lung a point belongs to.
    """

    points: Array
    depth: Array
    costal: Array
    right: NDArray[np.bool_]

    @classmethod
    def of(cls, habitus: Habitus, rng: np.random.Generator) -> Tissue:
        """The tissue of a patient."""
        lattice = lattice_at(np.arange(2, 264, SEED_SPACING_MM, dtype=np.float32), SEED_SPACING_MM)
        landmarks = Landmarks.of(lattice, habitus)
        lungs = lung_distance(lattice, landmarks)
        where = np.nonzero(lungs < -2)
        points = np.stack([lattice.x[where[2]], lattice.y[where[1]], lattice.z[where[0]]], axis=1)
        points += rng.uniform(-0.4, 0.4, points.shape).astype(np.float32) * SEED_SPACING_MM
        return cls(points, -lungs[where], -landmarks.costal[where], points[:, 0] < 2)


@dataclass(frozen=True)
class Tree:
    """Straight pieces of tubes: `start` and `end` are (n, 3) in mm, `radius` is (n,) in mm."""

    start: Array
    end: Array
    radius: Array

    def __len__(self) -> int:
        return self.radius.size

    def where(self, chosen: NDArray[np.bool_]) -> Tree:
        """The chosen pieces only."""
        return Tree(self.start[chosen], self.end[chosen], self.radius[chosen])

    def cut_short(self, length_mm: float = PIECE_MM) -> Tree:
        """The same tubes in pieces no longer than `length_mm`, so that each marks few pixels of a slice."""
        step = self.end - self.start
        pieces = np.maximum(np.ceil(np.linalg.norm(step, axis=1) / length_mm), 1).astype(int)
        owner = np.repeat(np.arange(len(self)), pieces)
        position = np.arange(owner.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        fraction = (position / pieces[owner]).astype(np.float32)[:, None]
        part = (1 / pieces[owner]).astype(np.float32)[:, None]
        start = self.start[owner] + fraction * step[owner]
        return Tree(start, start + part * step[owner], self.radius[owner])

    def scaled(self, scale: Point) -> Tree:
        """The tree of a patient of that scale, radii included."""
        factors = np.asarray(scale, np.float32)
        return Tree(self.start * factors, self.end * factors, self.radius * factors.mean())


@dataclass(frozen=True)
class LungTrees:
    """Arteries and veins in one tree of blood, and the bronchi that accompany the arteries."""

    blood: Tree
    bronchi: Tree
    tips: Array
    """Where the finest arteries end, (n, 3) in mm: the centres of secondary lobules."""


def grow_lung_trees(tissue: Tissue, rng: np.random.Generator) -> LungTrees:
    """The trees of both lungs from their hila."""
    blood, bronchi, tips = [], [], []
    for right, hilum in zip((True, False), HILA, strict=True):
        points = tissue.points[tissue.right == right]
        root = np.array(hilum, np.float32)
        artery = grow(points, root, ARTERY_ROOT_MM, rng)
        blood += [artery, grow(points, root + np.array(VEIN_OFFSET_MM, np.float32), VEIN_ROOT_MM, rng)]
        bronchi.append(_accompany(artery))
        tips.append(artery.end[artery.radius < 1.0])
    return LungTrees(_join(blood), _join(bronchi), np.concatenate(tips))


def grow(points: Array, root: Array, root_radius: float, rng: np.random.Generator, smallest: int = 4) -> Tree:
    """A tree from `root` that supplies the `points` down to groups of `smallest`."""
    total = len(points)
    group = np.zeros(total, np.intp)
    tips = root[None, :]
    onward = np.zeros((1, 3), np.float32)
    normals = _unit(rng.standard_normal((1, 3), np.float32))
    generations = []
    while len(points):
        size = np.bincount(group)
        centre = np.stack([np.bincount(group, axis) for axis in points.T], axis=1) / size[:, None]
        towards = centre.astype(np.float32) - tips
        far = np.linalg.norm(towards, axis=1, keepdims=True)
        reach = rng.uniform(0.40, 0.62, (size.size, 1)).astype(np.float32) * np.where(size < 12, 1.6, 1)[:, None]
        steps = reach * far * _unit(towards + STRAIGHTNESS * far * onward)
        ends = np.asarray(tips + steps, np.float32)
        generations.append(Tree(tips, ends, np.asarray(root_radius * np.cbrt(size / total), np.float32)))
        onward = _unit(steps)
        tilted = normals + 0.5 * rng.standard_normal(normals.shape, np.float32)
        normals = _unit(np.cross(onward, tilted))
        beyond = np.einsum("ij,ij->i", points - centre[group], normals[group]) > 0
        daughters, group, size = np.unique(2 * group + beyond, return_inverse=True, return_counts=True)
        mothers = daughters // 2
        points, group, alive = _drop_small(points, group, size, smallest)
        tips, onward, normals = ends[mothers][alive], onward[mothers][alive], normals[mothers][alive]
    return _join(generations)


def _drop_small(
    points: Array, group: NDArray[np.intp], size: NDArray[np.intp], smallest: int
) -> tuple[Array, NDArray[np.intp], NDArray[np.bool_]]:
    """Groups too small for a branch end here; the others are numbered anew."""
    alive = size >= smallest
    kept = alive[group]
    number = np.cumsum(alive) - 1
    return points[kept], number[group[kept]], alive


def _accompany(artery: Tree) -> Tree:
    """The bronchi beside an artery: a little narrower, displaced by both radii, visible down to 0.9 mm."""
    wide = artery.where(artery.radius > 1.25)
    beside = (
        _unit(np.cross(wide.end - wide.start, np.array([0.3, 0.2, 1.0], np.float32))) * (1.9 * wide.radius)[:, None]
    )
    return Tree(wide.start + beside, wide.end + beside, 0.7 * wide.radius)


def _unit(vectors: NDArray[np.floating]) -> Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6), np.float32)


def _join(trees: list[Tree]) -> Tree:
    return Tree(
        np.concatenate([tree.start for tree in trees]),
        np.concatenate([tree.end for tree in trees]),
        np.concatenate([tree.radius for tree in trees]),
    )


@dataclass(frozen=True)
class SlicePlane:
    """A slice to cut tubes with: its level and thickness, the pixel grid and the width of an edge, all in mm."""

    z: float
    thickness: float
    origin: tuple[float, float]
    """x and y of the centre of the first pixel."""
    pixel: float
    matrix: int
    edge: float


def cut(tree: Tree, plane: SlicePlane) -> Array:
    """How much of each pixel the tubes fill, 0 to 1, (matrix, matrix); what is thinner than the slice fills less."""
    filled = np.zeros(plane.matrix * plane.matrix, np.float32)
    half = plane.thickness / 2 + tree.radius
    low, high = np.minimum(tree.start[:, 2], tree.end[:, 2]), np.maximum(tree.start[:, 2], tree.end[:, 2])
    touched = tree.where((low - half < plane.z) & (high + half > plane.z))
    # Pieces of about the same size share one square stamp, so that numpy works on whole blocks.
    reach = touched.radius + np.linalg.norm((touched.end - touched.start)[:, :2], axis=1) / 2 + plane.edge
    half_stamp = np.ceil(reach / plane.pixel).astype(int) + 1
    sizes = np.quantile(half_stamp, (0.5, 0.85, 1.0), method="higher") if len(touched) else ()
    smaller = 0
    for size in sizes:
        stamped = (half_stamp > smaller) & (half_stamp <= size)
        _stamp(filled, touched.where(stamped), plane, int(size))
        smaller = size
    return filled.reshape(plane.matrix, plane.matrix)


def _stamp(filled: Array, tree: Tree, plane: SlicePlane, half_stamp: int) -> None:
    """Marks what each piece fills in a square of pixels about its middle; where tubes meet, the larger share stays."""
    if not len(tree):
        return
    middle = ((tree.start + tree.end)[:, :2] / 2 - np.array(plane.origin, np.float32)) / np.float32(plane.pixel)
    first = np.rint(middle).astype(np.intp) - half_stamp
    columns, rows = (first[:, axis, None] + np.arange(2 * half_stamp + 1) for axis in (0, 1))
    dx = (columns * np.float32(plane.pixel) + np.float32(plane.origin[0]) - tree.start[:, :1])[:, None, :]
    dy = (rows * np.float32(plane.pixel) + np.float32(plane.origin[1]) - tree.start[:, 1:2])[:, :, None]
    dz = (np.float32(plane.z) - tree.start[:, 2])[:, None, None]
    step = (tree.end - tree.start)[:, :, None, None]
    length_squared = np.maximum(np.square(step).sum(axis=1), 1e-6)
    along = dx * (step[:, 0] / length_squared) + (dy * step[:, 1] + dz * step[:, 2]) / length_squared
    np.clip(along, 0, 1, out=along)
    off_plane = np.maximum(np.abs(dz - along * step[:, 2]) - np.float32(plane.thickness / 2), 0)
    distance = np.square(dx - along * step[:, 0])
    distance += np.square(dy - along * step[:, 1])
    distance += np.square(off_plane)
    # Most pixels of a stamp lie outside its tube: only the others are worth the edge's arithmetic.
    piece, down, right = np.nonzero(distance < np.square(tree.radius + np.float32(plane.edge / 2))[:, None, None])
    beyond = np.sqrt(distance[piece, down, right]) - tree.radius[piece]
    share = np.minimum(0.5 - beyond / np.float32(plane.edge), 1) * _thinness(tree, plane)[piece]
    row, column = rows[piece, down], columns[piece, right]
    inside = (row >= 0) & (row < plane.matrix) & (column >= 0) & (column < plane.matrix)
    np.maximum.at(filled, (row * plane.matrix + column)[inside], share[inside])


def _thinness(tree: Tree, plane: SlicePlane) -> Array:
    """The part of the slice's thickness that a tube occupies: all of it if it runs along z."""
    step = tree.end - tree.start
    lying = np.hypot(step[:, 0], step[:, 1]) / np.maximum(np.linalg.norm(step, axis=1), 1e-6)
    return np.asarray(np.minimum(1, 2 * tree.radius / np.maximum(plane.thickness * lying, 1e-6)), np.float32)
