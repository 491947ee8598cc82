"""Who is in a synthetic cohort and how often each is scanned: everything decided by one seed, nothing by the clock."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ucadi.ct.phantom.lesions import MEDIAN_BURDEN
from ucadi.ct.phantom.patient import Patient, PhantomScan, scan
from ucadi.ct.phantom.scanner import SCANNERS, Protocol
from ucadi.labels import Diagnosis


@dataclass(frozen=True)
class Visit:
    """One scan of a patient: its number from 1, the `day` since the first, and the disease's `growth` since then."""

    number: int
    day: int
    growth: float


@dataclass(frozen=True)
class PatientPlan:
    """A patient to be made: small, so that it travels to another process."""

    site: str
    number: int
    seed: int
    diagnosis: Diagnosis
    scanner: str
    contrast: bool
    scans: int
    matrix: int
    slices: int | None
    burden: float = MEDIAN_BURDEN

    @property
    def patient(self) -> str:
        """The patient's name within the cohort."""
        return f"{self.site}-{self.number:04d}"

    def case(self, visit: Visit) -> str:
        """The name of one scan of it."""
        return f"{self.patient}-{visit.number}"

    @property
    def cases(self) -> tuple[str, ...]:
        """The names of all its scans."""
        return tuple(f"{self.patient}-{number}" for number in range(1, self.scans + 1))

    def random(self, purpose: int) -> np.random.Generator:
        """The patient's own random numbers: 0 for the anatomy, 1 for the visits, from 2 on for the scans."""
        return np.random.default_rng([self.seed, zlib.crc32(self.site.encode()), self.number, purpose])


@dataclass(frozen=True)
class CohortPlan:
    """What a cohort consists of: `prevalence` is a weight per diagnosis, `scans` the fewest and most per patient."""

    site: str
    patients: int
    prevalence: tuple[float, ...]
    scanner: str
    scans: tuple[int, int] = (1, 1)
    contrast: float = 0.0
    matrix: int = 512
    slices: int | None = None
    seed: int = 0
    burden: float = MEDIAN_BURDEN

    def plan_patients(self) -> tuple[PatientPlan, ...]:
        """All patients; the numbers of each diagnosis and of contrast scans are exact, only their order is random."""
        rng = np.random.default_rng([self.seed, zlib.crc32(self.site.encode())])
        counts = apportion(self.patients, self.prevalence)
        diagnoses = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        injected = rng.permutation(self.patients) < round(self.contrast * self.patients)
        scans = rng.integers(self.scans[0], self.scans[1] + 1, self.patients)
        return tuple(
            PatientPlan(
                self.site,
                index + 1,
                self.seed,
                Diagnosis(int(diagnoses[index])),
                self.scanner,
                bool(injected[index]),
                int(scans[index]),
                self.matrix,
                self.slices,
                self.burden,
            )
            for index in range(self.patients)
        )


def apportion(total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """`total` in whole shares proportional to the weights, by the method of the largest remainder."""
    quotas = np.asarray(weights, float) / np.sum(weights) * total
    counts = np.floor(quotas + 1e-9).astype(int)
    for index in np.argsort(counts - quotas, kind="stable")[: total - counts.sum()]:
        counts[index] += 1
    return tuple(int(count) for count in counts)


def scan_patient(plan: PatientPlan) -> Iterator[tuple[Patient, Visit, PhantomScan]]:
    """Makes the patient and yields one scan after the other."""
    patient = Patient.sample(plan.diagnosis, plan.random(0), plan.burden)
    for visit in _visits(plan):
        rng = plan.random(1 + visit.number)
        protocol = Protocol.plan(
            SCANNERS[plan.scanner],
            patient.habitus,
            rng,
            matrix=plan.matrix,
            slices=plan.slices,
            contrast=plan.contrast,
        )
        yield patient, visit, scan(patient, protocol, rng, visit.growth)


def _visits(plan: PatientPlan) -> Iterator[Visit]:
    """Follow-ups some days apart; a disease mostly grows at first and resolves later."""
    rng = plan.random(1)
    day, growth = 0, 1.0
    for number in range(1, plan.scans + 1):
        yield Visit(number, day, growth)
        day += int(rng.integers(2, 9))
        growth = float(np.clip(growth * np.exp(rng.normal(0.12 if day < 10 else -0.25, 0.25)), 0.35, 1.9))
