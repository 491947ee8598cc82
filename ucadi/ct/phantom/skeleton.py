"""The cage of the phantom's thorax: the cavity and the bones about it, as distance fields (see `phantom_shapes`).

All in the millimetres of the reference adult of `phantom_anatomy`.
"""

from __future__ import annotations

import numpy as np

from ucadi.ct.phantom.shapes import FAR, Array, Lattice, ellipsoid, oval, profile, tubes

CAVITY_HALF_WIDTH = (
    (-40, 118),
    (0, 124),
    (50, 130),
    (110, 127),
    (165, 115),
    (205, 97),
    (235, 74),
    (252, 50),
    (264, 12),
)
CAVITY_HALF_DEPTH = ((-40, 84), (0, 88), (60, 90), (120, 87), (170, 78), (210, 63), (240, 44), (254, 29), (264, 8))
CAVITY_CENTRE_Y = ((-40, -6), (110, -3), (170, 4), (210, 14), (264, 26))

SPINE_Y = ((-40, 50), (60, 54), (140, 56), (210, 52), (280, 42))
"""The thoracic kyphosis: the middle of the vertebral bodies."""

VERTEBRA_HALF_WIDTH = ((-40, 19), (120, 16.5), (280, 14))
VERTEBRA_PITCH_MM = 22.0
RIB_PITCH_MM, RIB_SLOPE = 27.0, 0.5

CLAVICLE = ((20, -50, 228, 6.5), (70, -50, 246, 5.5), (120, -10, 262, 5.5), (150, 15, 275, 6))


def cavity(lattice: Lattice) -> Array:
    """Distance to the inner surface of the chest wall, including the mediastinum and the upper abdomen."""
    x, y, _ = lattice.axes
    z = lattice.z
    centre = profile(z, CAVITY_CENTRE_Y)
    return oval(x, y - centre, profile(z, CAVITY_HALF_WIDTH), profile(z, CAVITY_HALF_DEPTH), squareness=0.35)


def ribs_and_cartilage(lattice: Lattice, costal: Array, phase: float) -> tuple[Array, Array]:
    """Distances to the ribs and their cartilage: a stack of sloping rings about the cavity, flat against its wall."""
    x, y, z = lattice.axes
    level = z - RIB_SLOPE * y - 0.06 * np.abs(x) + phase
    level -= RIB_PITCH_MM * np.rint(level / RIB_PITCH_MM)
    across = np.abs(level) * 0.88
    thin = np.abs(costal - 6.5)
    ring = np.sqrt(np.square(thin / 4.2) + np.square(across / 6.2)) - 1
    gap = np.maximum(13 - np.abs(x), 0) + np.maximum(z - 262, 0)  # between the ends, at spine and sternum
    rings = np.asarray(ring * 4.6 + gap, np.float32)
    front = y - profile(lattice.z, CAVITY_CENTRE_Y) + 0.62 * profile(lattice.z, CAVITY_HALF_DEPTH)
    return np.maximum(rings, -front), np.maximum(rings + 0.5, front)


def spine_and_girdle(lattice: Lattice, phase: float) -> Array:
    """Distance to the bones other than the ribs: spine, sternum, clavicles, scapulae and humeri."""
    field = np.full(lattice.shape, FAR, np.float32)
    near_spine = lattice.window(x=(-48, 48), y=(25, 140))
    field[near_spine] = _spine(lattice[near_spine], phase)
    in_front = lattice.window(x=(-36, 36), y=(-130, -20), z=(50, 245))
    field[in_front] = np.minimum(field[in_front], _sternum(lattice[in_front]))
    for side in (-1, 1):
        np.minimum(field, _shoulder(lattice, side), out=field)
    return field


def _spine(lattice: Lattice, phase: float) -> Array:
    """Distance to the vertebrae: body, arch around the canal, transverse and spinous processes, with discs between."""
    x, y, z = lattice.axes
    y = y - profile(lattice.z, SPINE_Y)
    height = np.mod(z + phase, VERTEBRA_PITCH_MM) - VERTEBRA_PITCH_MM / 2
    waist = 1.5 * np.square(height / 9) - 1.5
    size = profile(lattice.z, VERTEBRA_HALF_WIDTH)
    body = oval(x, y, size + waist, size * 0.82 + waist)
    body = np.maximum(body, np.abs(height) - 8.6)
    canal = np.hypot(x, (y - 24) * 1.08)
    arch = np.maximum(np.abs(canal - 11.5) - 3.0, np.abs(height) - 7)
    transverse = np.hypot(y - 27 - 0.35 * (np.abs(x) - 12), height + 1) - 4.6
    transverse = np.maximum(transverse, np.abs(np.abs(x) - 20) - 12)
    spinous = np.maximum(np.abs(x) - 2.8, np.maximum(np.abs(y - 39) - 11, np.abs(height + 0.5 * (y - 36)) - 7))
    return np.asarray(np.minimum(np.minimum(body, arch), np.minimum(transverse, spinous)), np.float32)


def _sternum(lattice: Lattice) -> Array:
    """Distance to the manubrium and the body of the sternum, in front of the cavity."""
    x, y, z = lattice.axes
    plane = profile(lattice.z, CAVITY_CENTRE_Y) - profile(lattice.z, CAVITY_HALF_DEPTH) - 9
    half_width = profile(lattice.z, ((60, 12), (100, 17), (170, 14), (190, 19), (225, 27), (245, 24)))
    plate = np.hypot(np.maximum(np.abs(x) - half_width + 5, 0), y - plane) - 5.2
    return np.asarray(np.maximum(plate, np.abs(z - 150) - 84), np.float32)


def _shoulder(lattice: Lattice, side: int) -> Array:
    """Distance to the clavicle, the scapula and the head of the humerus of one side, the arms being raised."""
    clavicle = tubes(lattice, [[(side * x, y, z, radius) for x, y, z, radius in CLAVICLE]])
    humerus = ellipsoid(lattice, (side * 168, 22, 282), (23, 23, 26))
    window = lattice.window(x=(40, 170) if side > 0 else (-170, -40), y=(-10, 120), z=(110, 290))
    field = np.minimum(clavicle, humerus)
    field[window] = np.minimum(field[window], _scapula(lattice[window], side))
    return field


def _scapula(lattice: Lattice, side: int) -> Array:
    """Distance to the blade, which lies oblique on the ribs, and to its spine."""
    x, y, z = lattice.axes
    x = x * side
    along = (x - 100) * 0.77 - (y - 72) * 0.64  # from the medial border to the shoulder
    across = (x - 100) * 0.64 + (y - 72) * 0.77 + 0.0028 * np.square(along) - (z - 190) * 0.05
    reach = profile(lattice.z, ((118, 2), (140, 14), (190, 30), (235, 38), (262, 36), (285, 18)))
    blade = np.maximum(np.hypot(np.maximum(np.abs(along + 4) - reach, 0), across) - 2.6, 126 - z)
    spine = np.hypot(np.maximum(np.abs(along - 6) - 32, 0), across - 8) - 3.6
    spine = np.maximum(spine, np.abs(z - 240 - 0.3 * along) - 8)
    return np.asarray(np.minimum(blade, spine), np.float32)


def vertebral_column(lattice: Lattice) -> Array:
    """Distance to the column of vertebral bodies and discs, with the canal behind it."""
    field = np.full(lattice.shape, FAR, np.float32)
    window = lattice.window(x=(-40, 40), y=(20, 110))
    lattice = lattice[window]
    x, y, _ = lattice.axes
    y = y - profile(lattice.z, SPINE_Y)
    size = profile(lattice.z, VERTEBRA_HALF_WIDTH)
    field[window] = np.minimum(oval(x, y, size, size * 0.82), np.hypot(x, y - 24) - 10)
    return field
