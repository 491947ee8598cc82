"""The thorax of the phantom: a reference adult, and how people differ from it.

Everything is written down once, in the millimetres of a reference adult lying on the back with the arms
raised; z = 0 is the depth of the posterior costophrenic recess, z = 262 the apex of the lungs. A patient
is the reference scaled along the axes, with a habitus of their own (`Habitus`).

Hounsfield units are the usual mid-values for 120 kVp: W. A. Kalender, Computed Tomography (2011), and
M. Hofer, CT Teaching Manual: fat -110 to -90, muscle 40 to 60, blood 40 to 50, liver 55 to 65, spleen 45 to 55,
cancellous bone 100 to 300, cortical bone above 500, lung parenchyma -900 to -750.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ucadi.ct.phantom.shapes import (
    FADE_MM,
    FAR,
    Array,
    Lattice,
    Point,
    blend,
    carve,
    ellipsoid,
    oval,
    profile,
    ripple,
    tubes,
)
from ucadi.ct.phantom.skeleton import (
    RIB_PITCH_MM,
    VERTEBRA_PITCH_MM,
    cavity,
    ribs_and_cartilage,
    spine_and_girdle,
    vertebral_column,
)

AIR, FAT, SKIN, MUSCLE, FLUID = -1000.0, -102.0, 25.0, 52.0, 8.0
MEDIASTINAL_FAT = -88.0  # thin septa and small vessels run through it
BLOOD, MYOCARDIUM, LIVER, SPLEEN, CARTILAGE, DISC = 42.0, 48.0, 58.0, 50.0, 105.0, 85.0
CORTICAL_BONE, CANCELLOUS_BONE = 780.0, 190.0

SCAN_RANGE_MM = (-16.0, 276.0)
"""From below the costophrenic recesses to above the apices, as a chest CT is planned."""

LATTICE_MM = 3.5
LATTICE_REACH_MM = ((-216.0, 216.0), (-159.0, 132.0))

WALL_HALF_WIDTH = ((-40, 137), (40, 144), (110, 148), (160, 160), (200, 174), (240, 182), (280, 176))
WALL_HALF_DEPTH = ((-40, 104), (40, 109), (120, 108), (180, 101), (220, 91), (250, 80), (280, 70))
WALL_CENTRE_Y = ((-40, 0), (110, 2), (180, 8), (230, 18), (280, 28))

ASCENDING_AORTA_AND_ARCH = (
    (-4, -20, 128, 15.5), (-14, -26, 152, 15.5), (-14, -24, 175, 15), (-6, -14, 193, 14.5), (8, 4, 200, 14),
    (20, 24, 195, 13.5), (27, 38, 180, 13),
)  # fmt: skip
DESCENDING_AORTA = ((27, 38, 180, 13), (28, 45, 150, 12.5), (24, 48, 90, 12), (14, 44, 30, 11.5), (4, 40, -50, 11))
PULMONARY_ARTERIES = (
    ((20, -40, 128, 13), (21, -30, 146, 13.5), (25, -10, 158, 12), (40, 12, 160, 10), (52, 20, 150, 8)),
    ((21, -22, 152, 12), (4, -6, 156, 10.5), (-22, -3, 152, 10), (-44, 4, 146, 9)),
)
PULMONARY_VEINS = (
    ((6, 10, 122, 9), (-26, 6, 120, 7), (-46, 6, 124, 6)),
    ((12, 10, 124, 9), (34, 10, 126, 7), (50, 8, 130, 6)),
    ((4, 16, 116, 8), (-30, 24, 104, 6)),
    ((14, 16, 116, 8), (40, 26, 104, 6)),
)
SUPERIOR_VENA_CAVA = ((-26, -20, 112, 10), (-28, -22, 150, 9.5), (-25, -24, 196, 9), (-26, -20, 215, 7.5))
LEFT_BRACHIOCEPHALIC_VEIN = ((-25, -26, 200, 6.5), (0, -32, 208, 6), (26, -24, 222, 6), (44, -8, 250, 6))
RIGHT_BRACHIOCEPHALIC_VEIN = ((-26, -20, 212, 7), (-34, -12, 235, 6.5), (-46, -6, 262, 6))
ARCH_BRANCHES = (
    ((-4, -14, 198, 7), (-14, -6, 225, 6.5), (-24, 6, 280, 5)),
    ((8, -2, 200, 5.5), (14, 0, 225, 4.5), (20, 8, 280, 4.5)),
    ((18, 14, 198, 6), (26, 14, 225, 5.5), (38, 20, 258, 5), (84, 6, 266, 4.5), (130, 6, 240, 4), (142, 14, 200, 3.5)),
    ((-24, 6, 262, 5), (-84, 6, 266, 4.5), (-130, 6, 240, 4), (-142, 14, 200, 3.5)),
)
OESOPHAGUS = ((6, 30, 280, 7), (7, 30, 200, 7.5), (4, 32, 150, 7.5), (6, 30, 90, 8), (18, 22, 40, 8))
AZYGOS = ((-6, 46, 0, 3.5), (-8, 44, 120, 4), (-12, 38, 168, 4.5), (-20, 16, 178, 4.5), (-26, -10, 178, 4.5))
TRACHEA = ((-1, 14, 290, 8.8), (0, 16, 220, 8.6), (2, 20, 178, 9))
CARINA: Point = (2, 20, 174)
MAIN_BRONCHI = (
    ((*CARINA, 7.6), (-20, 19, 160, 7.2), (-40, 17, 146, 6.4)),
    ((*CARINA, 7.0), (24, 21, 156, 6.4), (46, 21, 142, 5.8)),
)
"""The right main bronchus is shorter, wider and steeper than the left."""

HILA: tuple[Point, Point] = (MAIN_BRONCHI[0][-1][:3], MAIN_BRONCHI[1][-1][:3])
WALL_BACK_Y, SKIN_AND_FAT_MM, SKIN_BEFORE_STERNUM_MM = 107.0, 4.0, 18.0


@dataclass(frozen=True)
class Habitus:
    """What makes one patient's thorax differ from the reference adult's."""

    female: bool
    age: int
    scale: Point
    """Of the reference adult, along x, y and z."""
    fat_mm: float
    """Thickness of the fat under the skin."""
    heart: float
    """Size of the heart relative to the reference."""
    domes_mm: tuple[float, float]
    """Height of the right and the left dome of the diaphragm."""
    wall_squareness: float
    spine_phase: float
    rib_phase: float
    """Where the vertebrae and the ribs begin, in mm along z."""
    inflation_hu: float
    """Density of the lung: how deep the breath was that the patient holds, and how much air there is in it."""
    dependent_hu: float
    """How much denser the lung is at the back, on which the patient lies."""
    offset_mm: tuple[float, float]
    """Where the patient lies on the couch: x and y of the body's axis."""
    ripple: int
    """Seed of the unevenness of muscles and fat."""

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Habitus:
        """A patient at random; women are a little smaller, with more subcutaneous fat."""
        female = bool(rng.random() < 0.47)
        size = 0.93 if female else 1.0
        sx, sy, sz = size * np.clip(rng.normal(1.0, 0.045, 3), 0.9, 1.1)
        right_dome = float(rng.normal(82, 9))
        return cls(
            female=female,
            age=int(np.clip(rng.normal(54, 15), 19, 89)),
            scale=(float(sx), float(sy), float(sz)),
            fat_mm=float(np.clip(rng.lognormal(2.7 if female else 2.4, 0.35), 5, 32)),
            heart=float(np.clip(rng.normal(1.0, 0.07), 0.86, 1.2)),
            domes_mm=(right_dome, right_dome - float(rng.uniform(4, 18))),
            wall_squareness=float(rng.uniform(0.2, 0.6)),
            spine_phase=float(rng.uniform(0, VERTEBRA_PITCH_MM)),
            rib_phase=float(rng.uniform(0, RIB_PITCH_MM)),
            inflation_hu=float(np.clip(rng.normal(-866, 38), -930, -775)),
            dependent_hu=float(rng.uniform(15, 80)),
            offset_mm=(float(rng.normal(0, 5)), float(rng.normal(0, 6))),
            ripple=int(rng.integers(2**31)),
        )


@dataclass(frozen=True)
class Organ:
    """A distance field (slice, row, column) on the lattice and what fills it, in HU."""

    field: Array
    hu: float


@dataclass(frozen=True)
class Thorax:
    """The distance fields of one patient, in mm on one lattice.

    `costal` is the distance to the chest wall's inner surface alone (negative inside the cavity): what is
    peripheral is where it is small. `organs` are painted in order; `lungs` excludes airways of the hila.
    """

    lattice: Lattice
    body: Array
    muscle: Array
    costal: Array
    organs: tuple[Organ, ...]
    lungs: Array
    bones: Array
    cartilage: Array
    airways: Array


def lattice_at(z: Array, spacing_mm: float = LATTICE_MM) -> Lattice:
    """The lattice across the whole body with the given levels, in mm of the reference adult."""
    (left, right), (front, back) = LATTICE_REACH_MM
    return Lattice(
        np.arange(left, right + 1, spacing_mm, dtype=np.float32),
        np.arange(front, back + 1, spacing_mm, dtype=np.float32),
        z,
    )


def couch_level(habitus: Habitus) -> float:
    """y of the back where it lies flat on the couch, in mm of the reference adult."""
    return WALL_BACK_Y + 0.5 * habitus.fat_mm


@dataclass(frozen=True)
class Landmarks:
    """Distances to the surfaces that shape the lungs: the chest wall, the heart and the diaphragm."""

    costal: Array
    heart: Array
    domes: Array

    @classmethod
    def of(cls, lattice: Lattice, habitus: Habitus) -> Landmarks:
        """Those of a patient."""
        return cls(cavity(lattice), _heart(lattice, habitus), _domes(lattice, habitus))


def thorax(lattice: Lattice, habitus: Habitus, contrast_hu: float) -> Thorax:
    """The thorax of a patient of that habitus; `contrast_hu` is what an injection adds to the blood."""
    landmarks = Landmarks.of(lattice, habitus)
    costal, heart, domes = landmarks.costal, landmarks.heart, landmarks.domes
    muscle, body = _wall(lattice, costal, habitus)
    ribs, cartilage = ribs_and_cartilage(lattice, costal, habitus.rib_phase)
    return Thorax(
        lattice=lattice,
        body=body,
        muscle=np.minimum(muscle, costal - 9),
        costal=costal,
        organs=(
            *_chest_wall(lattice, costal, muscle, habitus),
            *_abdomen(costal, domes, lattice, contrast_hu),
            *_mediastinum(lattice, heart, domes, habitus, contrast_hu),
        ),
        lungs=lung_distance(lattice, landmarks),
        bones=np.minimum(ribs, spine_and_girdle(lattice, habitus.spine_phase)),
        cartilage=cartilage,
        airways=_central_airways(lattice),
    )


def lung_distance(lattice: Lattice, landmarks: Landmarks) -> Array:
    """Distance to the surface of either lung: the cavity without mediastinum and diaphragm."""
    field = np.full(lattice.shape, FAR, np.float32)
    window = lattice.window((-140, 140), (-110, 110))
    costal, heart, domes = (part[window] for part in (landmarks.costal, landmarks.heart, landmarks.domes))
    lung = carve(costal + 2, _partition(lattice[window], heart - 5), 6)
    field[window] = carve(lung, domes, 4)
    return field


def _partition(lattice: Lattice, heart: Array) -> Array:
    """Distance to what lies between the lungs: spine, aorta, other great vessels, the septum before them, the heart."""
    x, y, _ = lattice.axes
    spine = oval(x - 1, y - 72, np.float32(31), np.float32(36))
    width = profile(lattice.z, ((0, 20), (60, 30), (120, 34), (150, 37), (175, 34), (205, 36), (235, 33), (264, 30)))
    centre = profile(lattice.z, ((0, 25), (100, 20), (150, 4), (200, -4), (264, 5)))
    depth = profile(lattice.z, ((0, 34), (100, 40), (150, 42), (200, 42), (240, 52), (264, 70)))
    column = oval(x - 2, y - centre, width, depth)
    septum = np.abs(x - 3) - profile(
        lattice.z, ((0, 30), (70, 22), (120, 9), (170, 3), (205, 12), (230, 24), (264, 40))
    )
    septum = np.maximum(septum, y - 30)
    aorta = tubes(lattice, (ASCENDING_AORTA_AND_ARCH, DESCENDING_AORTA)) - 2
    return blend(blend(blend(blend(spine, column, 10), septum, 12), heart, 14), aorta, 6)


def _wall(lattice: Lattice, costal: Array, habitus: Habitus) -> tuple[Array, Array]:
    """Distances to the muscles of the chest wall and to the skin, which fat separates."""
    x, y, _ = lattice.axes
    y = y - profile(lattice.z, WALL_CENTRE_Y)
    half_width, half_depth = profile(lattice.z, WALL_HALF_WIDTH), profile(lattice.z, WALL_HALF_DEPTH)
    muscle = oval(x, y, half_width, half_depth, habitus.wall_squareness)
    groove = 4 * np.exp(-np.square(x / 16)) * np.exp(-np.square((y + half_depth) / 30))  # between the pectorals
    back = 5 * np.exp(-np.square(x / 12)) * np.exp(-np.square((y - half_depth) / 30))  # along the spinous processes
    muscle += groove + back + 0.7 * ripple(lattice, 150, np.random.default_rng(habitus.ripple))
    flanks = 1 + 0.35 * np.square(x / half_width) - 0.25 * np.clip(y / half_depth, 0, 1)
    lower = profile(lattice.z, ((-40, 1.25), (100, 1.0), (220, 0.8), (280, 0.7)))
    body = muscle - habitus.fat_mm * flanks * lower
    if habitus.female:
        for side in (-1, 1):
            centre = (side * 78, -98, 105)
            window = lattice.around(centre, 62 + FADE_MM)
            breast = ellipsoid(lattice[window], centre, (62, 24 + habitus.fat_mm, 56))
            body[window] = blend(body[window], breast, 30)
    body = carve(body, couch_level(habitus) - lattice.axes[1], 10)
    body = np.minimum(body, costal - SKIN_BEFORE_STERNUM_MM)
    return np.maximum(muscle, body + SKIN_AND_FAT_MM), body


def _chest_wall(lattice: Lattice, costal: Array, muscle: Array, habitus: Habitus) -> tuple[Organ, ...]:
    """Fat between the muscles and in the armpits; then what fills the cavity, and the column of the spine."""
    z = lattice.axes[2]
    armpits = np.minimum(
        ellipsoid(lattice, (-134, 8, 215), (17, 30, 60), (0.9, 0.45, 0)),
        ellipsoid(lattice, (134, 8, 215), (17, 30, 60), (0.9, -0.45, 0)),
    )
    uneven = ripple(lattice, 90, np.random.default_rng(habitus.ripple + 1))
    planes = np.maximum(np.abs(costal - 19 - 2 * uneven) - 1.6, np.maximum(0.3 * (120 - z), 0.3 * (z - 235)))
    return (
        Organ(np.maximum(planes, muscle + 2), -15.0),
        Organ(np.maximum(armpits, muscle + 2), FAT),
        Organ(costal, MEDIASTINAL_FAT),
        Organ(vertebral_column(lattice), DISC),
    )


def _domes(lattice: Lattice, habitus: Habitus) -> Array:
    """Distance to the diaphragm, negative below it: two domes, and between them the tendon on which the heart lies."""
    x, y, z = lattice.axes
    right, left = habitus.domes_mm

    def dome(top: float, centre: float, half_width: float) -> Array:
        return np.asarray(top - (top + 4) * (np.square((x - centre) / half_width) + np.square((y + 22) / 100)))

    height = -blend(blend(-dome(right, -62, 86), -dome(left, 62, 86), 20), -dome(min(right, left) - 10, 8, 62), 12)
    steep = np.sqrt(1 + np.square(np.maximum(np.abs(x) - 62, 0) * 0.022) + np.square((y + 22) * 0.016))
    return np.asarray((z - height) / steep, np.float32)


def _abdomen(cavity: Array, domes: Array, lattice: Lattice, contrast_hu: float) -> tuple[Organ, ...]:
    """Diaphragm, liver, spleen and stomach with its bubble of air in front (the patient lies on the back)."""
    inside = np.maximum(cavity + 3, domes + 3)
    liver = np.maximum(inside + 1, ellipsoid(lattice, (-48, -8, 5), (92, 80, 95)))
    spleen = np.maximum(inside + 1.5, ellipsoid(lattice, (88, 42, 8), (26, 40, 45), (0.5, 0.8, 0.2)))
    stomach = np.maximum(inside + 4, ellipsoid(lattice, (62, -20, 4), (38, 44, 48)))
    bubble = np.maximum(stomach + 4, lattice.axes[1] + 34)
    muscle = np.maximum(cavity + 1, domes)
    return (
        Organ(muscle, MUSCLE),
        Organ(inside, FAT),
        Organ(liver, LIVER + 0.22 * contrast_hu),
        Organ(spleen, SPLEEN + 0.3 * contrast_hu),
        Organ(stomach, 45.0),
        Organ(stomach + 4, 15.0),
        Organ(bubble, AIR),
    )


def _heart(lattice: Lattice, habitus: Habitus) -> Array:
    """Distance to the epicardium; the apex points to the left, the front and the feet."""
    size = habitus.heart
    ventricles = ellipsoid(lattice, (26, -32, 98), (61 * size, 44 * size, 43 * size), (0.78, -0.42, -0.46))
    atria = ellipsoid(lattice, (-4, -8, 116), (40 * size, 31 * size, 33 * size))
    return blend(ventricles, atria, 18)


def _mediastinum(
    lattice: Lattice, heart: Array, domes: Array, habitus: Habitus, contrast_hu: float
) -> tuple[Organ, ...]:
    size = habitus.heart
    above = -domes + 1
    enhanced = BLOOD + contrast_hu
    chambers = (
        ellipsoid(lattice, (38, -30, 92), (38 * size, 19 * size, 20 * size), (0.78, -0.42, -0.46)),  # left ventricle
        ellipsoid(lattice, (10, -54, 96), (36 * size, 16 * size, 26 * size), (0.85, 0.1, -0.5)),  # right ventricle
        ellipsoid(lattice, (8, 10, 122), (30 * size, 15 * size, 20 * size)),  # left atrium
        ellipsoid(lattice, (-28, -18, 108), (17 * size, 22 * size, 26 * size)),  # right atrium
    )
    vessels = (ASCENDING_AORTA_AND_ARCH, DESCENDING_AORTA, *PULMONARY_ARTERIES, *PULMONARY_VEINS, *ARCH_BRANCHES)
    veins = (SUPERIOR_VENA_CAVA, LEFT_BRACHIOCEPHALIC_VEIN, RIGHT_BRACHIOCEPHALIC_VEIN, AZYGOS)
    oesophagus = tubes(lattice, [OESOPHAGUS])
    thyroid = ellipsoid(lattice, (0, 2, 285), (26, 12, 22))
    return (
        Organ(oesophagus, 38.0),
        Organ(thyroid, 85.0),
        Organ(np.maximum(heart, above), MYOCARDIUM + 0.3 * contrast_hu),
        *(Organ(np.maximum(chamber, above), enhanced) for chamber in chambers),
        Organ(tubes(lattice, veins), BLOOD + 0.8 * contrast_hu),
        Organ(tubes(lattice, vessels), enhanced),
    )


def _central_airways(lattice: Lattice) -> Array:
    """Distance to the lumen of the trachea and the main bronchi."""
    return tubes(lattice, (TRACHEA, *MAIN_BRONCHI))
