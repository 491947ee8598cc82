"""Synthetic chest CTs: volumes in HU that resemble a scan of a patient, healthy or with pneumonia.

A `Patient` has an anatomy and a disease, the same in all scans up to the disease's evolution; a `Protocol` says how a
scanner looks at them; `scan` gives the volume. Nothing here is anybody's scan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucadi.ct.phantom import anatomy
from ucadi.ct.phantom.anatomy import Habitus, Thorax
from ucadi.ct.phantom.lesions import (
    MEDIAN_BURDEN,
    Blob,
    Disease,
    Opacities,
    blob_share,
    opacities,
    sample_disease,
    sample_incidental_findings,
)
from ucadi.ct.phantom.rendering import CONSOLIDATED_HU, Renderer, Scene
from ucadi.ct.phantom.scanner import Detector, Protocol
from ucadi.ct.phantom.shapes import Array
from ucadi.ct.phantom.trees import LungTrees, Tissue, grow_lung_trees
from ucadi.labels import Diagnosis

MOTTLE_HU = 14.0


@dataclass(frozen=True)
class Patient:
    """One synthetic patient: anatomy, disease and what else is in the lungs, the same in every scan."""

    habitus: Habitus
    diagnosis: Diagnosis
    trees: LungTrees
    disease: Disease
    incidental: tuple[Blob, ...]

    @classmethod
    def sample(cls, diagnosis: Diagnosis, rng: np.random.Generator, median_burden: float = MEDIAN_BURDEN) -> Patient:
        """A patient at random who has that diagnosis; `median_burden` says how ill such patients are."""
        habitus = Habitus.sample(rng)
        tissue = Tissue.of(habitus, rng)
        trees = grow_lung_trees(tissue, rng)
        disease = sample_disease(diagnosis, tissue, trees, rng, median_burden)
        return cls(habitus, diagnosis, trees, disease, sample_incidental_findings(tissue, rng))


@dataclass(frozen=True)
class PhantomScan:
    """A scan: `hu` is int16 (slice, row, column), its slices at `z_mm` from the feet to the head.

    The truth, of the same shape: `lungs` is uint8 (1 right, 2 left), `lesions` is where ground glass or
    consolidation of the disease is; incidental findings and effusions are not in it.
    """

    protocol: Protocol
    z_mm: Array
    hu: NDArray[np.int16]
    lungs: NDArray[np.uint8]
    lesions: NDArray[np.bool_]


def scan(patient: Patient, protocol: Protocol, rng: np.random.Generator, growth: float = 1.0) -> PhantomScan:
    """Scans the patient; `growth` is the volume of the disease's foci relative to `patient.disease`."""
    z_mm = protocol.levels(patient.habitus)
    shape = (protocol.slices, protocol.matrix, protocol.matrix)
    result = PhantomScan(protocol, z_mm, np.empty(shape, np.int16), np.empty(shape, np.uint8), np.empty(shape, bool))
    detector = Detector(protocol, rng)
    for level, picture in enumerate(Renderer(_scene(patient, protocol, z_mm, rng, growth), protocol).draw()):
        result.hu[level] = detector.record(picture.hu, picture.depth)
        result.lungs[level], result.lesions[level] = picture.lungs, picture.lesions
    return result


def _scene(patient: Patient, protocol: Protocol, z_mm: Array, rng: np.random.Generator, growth: float) -> Scene:
    habitus = patient.habitus
    lattice = anatomy.lattice_at(z_mm / np.float32(habitus.scale[2]))
    thorax = anatomy.thorax(lattice, habitus, protocol.contrast_hu)
    disease = patient.disease.later(growth)
    seen = opacities(disease, lattice, thorax.costal)
    return Scene(
        habitus,
        thorax,
        _parenchyma(patient, thorax, seen, rng),
        seen,
        patient.trees.blood.scaled(habitus.scale).cut_short(),
        patient.trees.bronchi.scaled(habitus.scale).cut_short(),
        disease.wall_factor,
    )


def _parenchyma(patient: Patient, thorax: Thorax, seen: Opacities, rng: np.random.Generator) -> Array:
    """HU of the lung tissue on the lattice: inflation, gravity, mottle, incidental findings and ground glass."""
    lattice, habitus = thorax.lattice, patient.habitus
    _, y, _ = lattice.axes
    dependent = np.clip((y + 20) / 100, 0, 1) + np.exp(np.clip(thorax.costal / 6, -20, 0)) * (y > 40)
    hu = rng.standard_normal(lattice.shape, dtype=np.float32)
    hu *= np.float32(MOTTLE_HU)
    hu += np.float32(habitus.inflation_hu) + np.float32(habitus.dependent_hu) * dependent
    for blob in patient.incidental:
        window, share = blob_share(blob, lattice)
        hu[window] += share * (CONSOLIDATED_HU - hu[window])
    if seen.ground_glass is not None:
        hu += seen.ground_glass * (CONSOLIDATED_HU - hu)
    return hu
