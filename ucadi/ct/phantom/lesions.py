"""What pneumonia does to the phantom's lungs, class by class.

The patterns follow the Fleischner Society's glossary (D. M. Hansell et al., Radiology 246 (2008) 697) and
the RSNA consensus on COVID-19 (S. Simpson et al., Radiology: Cardiothoracic Imaging 2 (2020) e200152):

- covid: rounded ground-glass opacities, bilateral, subpleural, mostly lower and posterior, with crazy paving
  and, later, consolidation;
- other viral: centrilobular nodules and patchy ground glass around the bronchi of both lungs, thick bronchial walls;
- bacterial: a dense consolidation of a lobe, sharply bounded by the fissure, with air bronchograms and
  sometimes an effusion.

How much lung is ill is drawn from the same distribution for all three, so that density alone does not tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ucadi.ct.phantom.shapes import FAR, Array, Lattice, Point, Window, ellipsoid, ripple
from ucadi.ct.phantom.trees import SEED_SPACING_MM, LungTrees, Tissue
from ucadi.labels import Diagnosis

MEDIAN_BURDEN = 0.045
"""Share of the lung's air that a disease replaces, the median over patients, where nothing else is asked for."""

BURDEN_SPREAD = 0.55
"""Deviation of the logarithm of that share."""

LEAST_BURDEN, MOST_BURDEN = 0.012, 0.25

CONSOLIDATED = 0.92
MOST_FOCI = 90
ROUND_MM = 7.0
"""Smaller foci are round: the lattice does not carry an uneven edge on them."""

OBLIQUE_FISSURE = ((-75.0, 42.0), (72.0, 200.0))
"""Two points (y, z) on the oblique fissure, which runs from the front below to the back above."""

HORIZONTAL_FISSURE_Z = 142.0


@dataclass(frozen=True)
class Blob:
    """A rounded focus: an ellipsoid with an uneven edge, `softness` mm wide, replacing `opacity` of the air."""

    centre: Point
    radii: Point
    axis: Point
    opacity: float
    softness: float
    ripple: int
    paving: float = 0.0


@dataclass(frozen=True)
class Lobe:
    """A lobe of the lungs, for what stops at a fissure."""

    right: bool
    name: str
    """`upper`, `middle` (right only) or `lower`."""

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Distance in mm to the lobe's fissures and to the other lung, negative inside."""
        (y0, z0), (y1, z1) = OBLIQUE_FISSURE
        slope = (z1 - z0) / (y1 - y0)
        below_oblique = (z - z0 - slope * (y - y0)) / np.hypot(1, slope)
        other_lung = (x - 2) if self.right else (2 - x)
        parts = [other_lung, below_oblique if self.name == "lower" else -below_oblique]
        if self.right and self.name != "lower":
            parts.append(HORIZONTAL_FISSURE_Z - z if self.name == "upper" else z - HORIZONTAL_FISSURE_Z)
        return np.asarray(np.maximum.reduce(np.broadcast_arrays(*parts)), np.float32)


LOBES = (Lobe(True, "lower"), Lobe(False, "lower"), Lobe(True, "upper"), Lobe(True, "middle"), Lobe(False, "upper"))
LOBE_FREQUENCY = (0.3, 0.25, 0.2, 0.1, 0.15)


@dataclass(frozen=True)
class Disease:
    """All foci of one scan."""

    ground_glass: tuple[Blob, ...] = ()
    consolidations: tuple[Blob, ...] = ()
    lobe: Lobe | None = None
    """The lobe that holds the consolidation, if a fissure bounds it."""
    effusion_mm: float = 0.0
    """Depth of pleural fluid behind that lobe's lung."""
    wall_factor: float = 1.0
    """How much thicker the bronchial walls are."""

    def later(self, growth: float) -> Disease:
        """The disease as another scan sees it: foci larger or smaller by `growth` in volume, denser as they grow."""
        factor = float(np.cbrt(growth))
        denser = float(np.clip(growth, 0.8, 1.2))

        def grown(blob: Blob) -> Blob:
            a, b, c = blob.radii
            opacity = min(blob.opacity * denser, CONSOLIDATED)
            return replace(blob, radii=(a * factor, b * factor, c * factor), opacity=opacity)

        return replace(
            self,
            ground_glass=tuple(map(grown, self.ground_glass)),
            consolidations=tuple(map(grown, self.consolidations)),
            effusion_mm=self.effusion_mm * growth,
        )


@dataclass(frozen=True)
class Opacities:
    """A disease on a lattice: `ground_glass` (0 to 1, share of air replaced), the distance to `consolidation`
    and to `effusion` in mm, and how strong the `paving` is (0 to 1); None where there is none."""

    ground_glass: Array | None = None
    consolidation: Array | None = None
    effusion: Array | None = None
    paving: Array | None = None


def sample_disease(
    diagnosis: Diagnosis, tissue: Tissue, trees: LungTrees, rng: np.random.Generator, median_burden: float
) -> Disease:
    """The disease of a patient with that diagnosis, drawn around a `median_burden` (share of the lung's air)."""
    drawn = median_burden * np.exp(BURDEN_SPREAD * rng.standard_normal())
    burden = float(np.clip(drawn, LEAST_BURDEN, MOST_BURDEN))
    if diagnosis is Diagnosis.COVID:
        return _covid(burden, tissue, rng)
    if diagnosis is Diagnosis.OTHER_VIRAL:
        return _other_viral(burden, tissue, trees, rng)
    if diagnosis is Diagnosis.BACTERIAL:
        return _bacterial(burden, tissue, rng)
    return Disease()


@dataclass
class _Tally:
    """Sums up what foci replace, on the points of the tissue, until the burden is reached."""

    tissue: Tissue
    burden: float
    clear: Array = field(init=False)

    def __post_init__(self) -> None:
        self.clear = np.ones(len(self.tissue.points), np.float32)

    @property
    def reached(self) -> bool:
        """Whether the foci replace as much as they should."""
        return float(1 - self.clear.mean()) >= self.burden

    def add(self, blob: Blob, within: NDArray[np.bool_] | None = None) -> None:
        """Counts a focus, as if it were a ball of the same volume, and only what is `within` a lobe."""
        offset = self.tissue.points - np.array(blob.centre, np.float32)
        covered = np.einsum("ij,ij->i", offset, offset) < np.prod(blob.radii) ** (2 / 3)
        if within is not None:
            covered &= within
        self.clear[covered] *= 1 - blob.opacity


def _covid(burden: float, tissue: Tissue, rng: np.random.Generator) -> Disease:
    height, back = tissue.points[:, 2] / 262, tissue.points[:, 1] / 80
    liking = np.exp(-tissue.costal / 7 - 1.9 * height + 0.9 * back)
    tally = _Tally(tissue, burden)
    ground_glass, cores = [], []
    consolidating, paving = rng.uniform(0.05, 0.5), rng.uniform(0.15, 0.7)
    size = 10 + 110 * burden
    for _ in range(MOST_FOCI):
        if tally.reached:
            break
        centre = _pick(tissue, liking, rng)
        radius = size * rng.uniform(0.6, 1.6)
        blob = Blob(
            centre,
            radii=(0.62 * radius, radius, radius),  # flat against the pleura
            axis=(centre[0] - (62 if centre[0] > 2 else -62), centre[1], 0.2 * (centre[2] - 110)),
            opacity=rng.uniform(0.24, 0.45),
            softness=rng.uniform(3, 7),
            ripple=_seed(rng),
            paving=paving * float(rng.random() < 0.7),
        )
        ground_glass.append(blob)
        tally.add(blob)
        if rng.random() < consolidating:
            inner = radius * rng.uniform(0.3, 0.55)
            cores.append(replace(blob, radii=(0.6 * inner, inner, inner), opacity=0.85))
            tally.add(cores[-1])
    return Disease(tuple(ground_glass), tuple(cores))


def _other_viral(burden: float, tissue: Tissue, trees: LungTrees, rng: np.random.Generator) -> Disease:
    central = np.exp(-np.square((tissue.depth - 30) / 16)).astype(np.float32) + np.float32(0.06)
    patchy = burden * rng.uniform(0.4, 0.7)
    patches = _patches(patchy, tissue, central, rng)
    nodules = _centrilobular_nodules(burden - patchy, tissue, trees, central, rng)
    return Disease(ground_glass=(*patches, *nodules), wall_factor=rng.uniform(1.5, 2.3))


def _patches(burden: float, tissue: Tissue, liking: Array, rng: np.random.Generator) -> list[Blob]:
    """Faint ground glass without a sharp edge, drawn out along the bronchi."""
    tally = _Tally(tissue, burden)
    patches: list[Blob] = []
    while not tally.reached and len(patches) < MOST_FOCI:
        centre, radius = _pick(tissue, liking, rng), rng.uniform(13, 32)
        patches.append(
            Blob(
                centre,
                radii=(radius, 0.8 * radius, 0.8 * radius),
                axis=_from_hilum(centre),
                opacity=rng.uniform(0.14, 0.32),
                softness=9.0,
                ripple=_seed(rng),
            )
        )
        tally.add(patches[-1])
    return patches


def _centrilobular_nodules(
    burden: float, tissue: Tissue, trees: LungTrees, liking: Array, rng: np.random.Generator
) -> list[Blob]:
    """Small nodules about the ends of the arteries, in clusters: with their branches, trees in bud."""
    clusters = np.array([_pick(tissue, liking, rng) for _ in range(9)], np.float32)
    away = np.min(np.linalg.norm(trees.tips[:, None, :] - clusters[None], axis=2), axis=1)
    nodules: list[Blob] = []
    remaining = burden * len(tissue.points) * SEED_SPACING_MM**3
    for x, y, z in trees.tips[np.argsort(away + rng.uniform(0, 40, away.size))]:
        if remaining <= 0:
            break
        radius, opacity = rng.uniform(3.0, 6.5), rng.uniform(0.35, 0.75)
        nodules.append(Blob((float(x), float(y), float(z)), (radius,) * 3, (1, 0, 0), opacity, 2.5, _seed(rng)))
        remaining -= 4 / 3 * np.pi * radius**3 * opacity
    return nodules


def _bacterial(burden: float, tissue: Tissue, rng: np.random.Generator) -> Disease:
    lobe = LOBES[int(rng.choice(len(LOBES), p=LOBE_FREQUENCY))]
    within = lobe.distance(*tissue.points.T) < 0
    tally = _Tally(tissue, 0.85 * burden)  # the halo and an effusion add the rest
    first = np.array(_pick(tissue, within * np.exp(-tissue.costal / 20), rng), np.float32)
    away = np.linalg.norm(tissue.points - first, axis=1)
    dense: list[Blob] = []
    halo: list[Blob] = []
    size = 20 + 150 * burden
    while not tally.reached and len(dense) < MOST_FOCI:
        centre = _pick(tissue, within * np.exp(-away / (8 + 2.2 * len(dense))), rng)
        radius = size * rng.uniform(0.75, 1.2)
        radii = (radius, 0.85 * radius, 0.85 * radius)
        dense.append(Blob(centre, radii, _from_hilum(centre), CONSOLIDATED, 1.2, _seed(rng)))
        tally.add(dense[-1], within)
        wider = (1.25 * radius, 1.12 * radius, 1.12 * radius)
        halo.append(replace(dense[-1], radii=wider, opacity=rng.uniform(0.08, 0.3), softness=8.0))
    effusion = float(rng.uniform(8, 26)) if rng.random() < 0.4 else 0.0
    return Disease(tuple(halo), tuple(dense), lobe, effusion)


def sample_incidental_findings(tissue: Tissue, rng: np.random.Generator) -> tuple[Blob, ...]:
    """What anybody's lungs may show besides the diagnosis: small nodules, and bands of atelectasis at the base."""
    nodules = [
        Blob(_pick(tissue, tissue.depth, rng), (radius,) * 3, (1, 0, 0), 0.85, 2.0, _seed(rng))
        for radius in rng.uniform(2.2, 4.5, rng.poisson(0.8)).tolist()
    ]
    low = np.exp(-tissue.points[:, 2] / 25 - tissue.costal / 15)
    bands = [
        Blob(
            _pick(tissue, low, rng),
            (4, long, long / 2),
            (0.2, 0.3, 1),
            rng.uniform(0.3, 0.7),
            3.0,
            int(rng.integers(2**31)),
        )
        for long in rng.uniform(12, 30, rng.poisson(0.7)).tolist()
    ]
    return (*nodules, *bands)


def opacities(disease: Disease, lattice: Lattice, costal: Array) -> Opacities:
    """The disease on the lattice; `costal` is the distance to the chest wall there."""
    ground_glass, paving = _ground_glass(disease, lattice)
    return Opacities(ground_glass, _consolidation(disease, lattice), _effusion(disease, lattice, costal), paving)


def _ground_glass(disease: Disease, lattice: Lattice) -> tuple[Array | None, Array | None]:
    """Share of air replaced by all foci together, and the strength of the crazy paving within them."""
    if not disease.ground_glass:
        return None, None
    clear, paving = np.ones(lattice.shape, np.float32), None
    for blob in disease.ground_glass:
        window, share = blob_share(blob, lattice)
        clear[window] *= 1 - share
        if blob.paving:
            paving = np.zeros(lattice.shape, np.float32) if paving is None else paving
            np.maximum(paving[window], blob.paving / blob.opacity * share, out=paving[window])
    if disease.lobe is not None:
        fissure = disease.lobe.distance(*lattice.axes)
        clear = 1 - (1 - clear) * np.clip(0.5 - fissure / 2, 0, 1)
    return 1 - clear, paving


def _consolidation(disease: Disease, lattice: Lattice) -> Array | None:
    if not disease.consolidations:
        return None
    distance = np.full(lattice.shape, FAR, np.float32)
    for blob in disease.consolidations:
        window, near = _blob_distance(blob, lattice)
        np.minimum(distance[window], near, out=distance[window])
    if disease.lobe is not None:
        np.maximum(distance, disease.lobe.distance(*lattice.axes), out=distance)
    return distance


def _effusion(disease: Disease, lattice: Lattice, costal: Array) -> Array | None:
    """Fluid gathers behind and below, the patient lying on the back."""
    if disease.lobe is None or not disease.effusion_mm:
        return None
    x, y, z = lattice.axes
    depth = disease.effusion_mm * np.clip((y - 5) / 45, 0, 1) * np.clip(1.15 - z / 150, 0, 1)
    other_lung = (x - 2) if disease.lobe.right else (2 - x)
    return np.asarray(np.maximum(-costal - depth, np.maximum(other_lung, 1 - depth)), np.float32)


def blob_share(blob: Blob, lattice: Lattice) -> tuple[Window, Array]:
    """The part of the lattice about a blob, and the share of air that it replaces there."""
    window, distance = _blob_distance(blob, lattice)
    return window, np.float32(blob.opacity) * np.clip(0.5 - distance / np.float32(blob.softness), 0, 1)


def _blob_distance(blob: Blob, lattice: Lattice) -> tuple[Window, Array]:
    """The part of the lattice about a blob, and about the distance to its uneven surface."""
    window = lattice.around(blob.centre, 1.4 * max(blob.radii) + blob.softness)
    part, smallest = lattice[window], min(blob.radii)
    distance = ellipsoid(part, blob.centre, blob.radii, blob.axis)
    if smallest > ROUND_MM:
        distance += np.float32(0.16 * smallest) * ripple(part, 2.4 * smallest, np.random.default_rng(blob.ripple))
    return window, distance


def _pick(tissue: Tissue, liking: NDArray[np.floating | np.bool_], rng: np.random.Generator) -> Point:
    """A point of the tissue, chosen with probability proportional to `liking`."""
    cumulative = np.cumsum(liking, dtype=np.float64)
    x, y, z = tissue.points[int(np.searchsorted(cumulative, rng.random() * cumulative[-1]))]
    return float(x), float(y), float(z)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _from_hilum(centre: Point) -> Point:
    return centre[0] - (46 if centre[0] > 2 else -42), centre[1] - 18, centre[2] - 144
