"""Patients divided into a test set and folds, so that nobody is on two sides.

Source: the paper, Methods, "Data": cases are divided into a trainval and a test split, with five-fold
cross-validation on the former. Patients have several scans each, so patients are divided, never scans.

Everything follows from the seed and the patients: not from the order of cases, nor from the release of any library.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ucadi.errors import CapacityError, UsageError
from ucadi.labels import Diagnosis

TEST = "test"
TRAINVAL = "trainval"


@dataclass(frozen=True)
class Split:
    """Which patients are for testing, and which are in each of the folds. Every patient is in exactly one place."""

    test: frozenset[str]
    folds: tuple[frozenset[str], ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """The names that `patients` knows: trainval, test, and train-K and val-K of each fold, K from 1."""
        numbers = range(1, len(self.folds) + 1)
        return (TRAINVAL, TEST, *(f"{side}-{k}" for k in numbers for side in ("train", "val")))

    def patients(self, part: str) -> frozenset[str]:
        """The patients of a part. `val-K` is fold K, `train-K` all of trainval but fold K.

        Raises UsageError for a part that does not exist.
        """
        if part not in self.parts:
            raise UsageError(
                f"no part {part!r}", hint=f"one of {TRAINVAL}, {TEST}, train-1, val-1, ... {self.parts[-1]}"
            )
        if part == TEST:
            return self.test
        trainval = frozenset[str]().union(*self.folds)
        if part == TRAINVAL:
            return trainval
        side, _, number = part.partition("-")
        fold = self.folds[int(number) - 1]
        return fold if side == "val" else trainval - fold

    @staticmethod
    def trains(part: str) -> bool:
        """Whether a part is for training: trainval, and train-K of each fold."""
        return part == TRAINVAL or part.startswith("train-")


def divide(
    patients: Sequence[str], labels: Sequence[Diagnosis | None], *, test: float = 0.2, folds: int = 5, seed: int = 0
) -> Split:
    """Divides the patients of cases; case i is of `patients[i]` and has the diagnosis `labels[i]`.

    Patients with the same diagnoses are a stratum. Of each, the share `test` (rounded) is drawn at random for the
    test set; the others are dealt to the folds, those with most scans first, each to the fold that has the fewest
    scans of the stratum. Raises CapacityError if a fold or the test set remains empty.
    """
    scans = Counter(patients)
    diagnoses: defaultdict[str, set[int]] = defaultdict(set)
    for patient, label in zip(patients, labels, strict=True):
        diagnoses[patient].add(-1 if label is None else int(label))
    strata: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for patient in sorted(scans, key=lambda patient: _draw(seed, patient)):
        strata[tuple(sorted(diagnoses[patient]))].append(patient)

    tested: set[str] = set()
    dealt: list[set[str]] = [set() for _ in range(folds)]
    for _, stratum in sorted(strata.items()):
        count = math.floor(test * len(stratum) + 0.5)
        tested.update(stratum[:count])
        of_stratum = [0] * folds
        for patient in sorted(stratum[count:], key=lambda patient: -scans[patient]):
            fold = min(range(folds), key=lambda k: (of_stratum[k], sum(scans[p] for p in dealt[k]), k))
            of_stratum[fold] += scans[patient]
            dealt[fold].add(patient)
    if not all(dealt) or (test > 0 and not tested):
        raise CapacityError(
            f"{len(scans)} patients are too few for {folds} folds and a test set of {test:g}",
            hint="ask for fewer folds (--folds) or another share (--test)",
        )
    return Split(frozenset(tested), tuple(map(frozenset, dealt)))


def _draw(seed: int, patient: str) -> bytes:
    """A patient's place in the random order."""
    return hashlib.sha256(f"ucadi split\0{seed}\0{patient}".encode()).digest()
