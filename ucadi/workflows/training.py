"""Training at a site, in a round or alone: its cases and the schedule, as what `learn` trains with."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ucadi.ct import sampling
from ucadi.ct.augmentation import augment
from ucadi.errors import FormatError, MismatchError
from ucadi.fed.fixedpoint import layout_of
from ucadi.formats import schedules
from ucadi.formats.container import Metadata
from ucadi.formats.weights import Weights
from ucadi.hyperparameters import Recipe
from ucadi.labels import LABELS
from ucadi.rounds.round import Round

if TYPE_CHECKING:
    from ucadi.formats.dataset import Dataset


def check_round(round_: Round, weights: Weights, site: str, base: str) -> None:
    """Raises MismatchError unless `weights`, from the file `base`, are the round's and `site` takes part in it."""
    if round_.is_counting:
        raise MismatchError(
            f"round {round_.plan.round} counts scores: nobody trains in it",
            hint="give it an exchange directory of its own, and encrypt the histogram there",
        )
    if weights.digest != round_.plan.base:
        raise MismatchError(
            f"{base}: digest {weights.digest[:8]}…, the plan begins from {round_.plan.base[:8]}…",
            hint="use the weights that the round before ended with",
        )
    if site not in round_.plan.sites:
        raise MismatchError(f"{site} is no site of this round", hint="sites: " + ", ".join(round_.plan.sites))
    # the coordinator chose the ranges; a site trusts only what it computes itself
    layout = round_.plan.layout
    shared = layout.shared(weights.arrays, base)
    headrooms = {
        planned.exponent - own.exponent
        for planned, own in zip(layout.tensors, layout_of(shared, headroom=0).tensors, strict=True)
    }
    if len(headrooms) != 1:
        raise MismatchError("the plan's ranges are not those of its base", hint="ask the coordinator to open it again")


class TrainingCases:
    """A dataset's cases for training, all of them labelled; FormatError if one is not."""

    def __init__(self, data: Dataset, schedule: Recipe) -> None:
        self.data, self._seed, self._augment = data, schedule.seed, schedule.augment
        self.labels = [int(label) for label in data.labels if label is not None]
        if len(self.labels) != len(data):
            raise FormatError(
                f"{data.path.name}: {len(data) - len(self.labels)} cases have no label",
                hint="train needs every case labelled",
            )

    def slab(self, epoch: int, index: int) -> npt.NDArray[np.float32]:
        """One random sampling of a case for one epoch (paper, Methods), float32 (1, 16, row, column)."""
        rng = sampling.training_rng(self._seed, epoch, self.data.ids[index])
        indices = sampling.slab_indices(self.data.length(index), rng)
        hu = self.data.slices(index, indices)
        return sampling.slab(augment(hu, rng) if self._augment else hu, np.arange(len(hu)))

    def fixed_slab(self, epoch: int, index: int) -> npt.NDArray[np.float32]:
        """One sampling of a case, as it is and the same in every epoch, so that epochs can be compared."""
        del epoch
        rng = sampling.test_rng(self._seed, 0, self.data.ids[index])
        hu = self.data.slices(index, sampling.slab_indices(self.data.length(index), rng))
        return sampling.slab(hu, np.arange(len(hu)))

    @property
    def missing(self) -> tuple[str, ...]:
        """The diagnoses that no case has."""
        return tuple(label for diagnosis, label in enumerate(LABELS) if diagnosis not in self.labels)

    @property
    def digest(self) -> str:
        """Names the dataset and which cases of it these are."""
        return hashlib.sha256("\n".join([self.data.digest, *self.data.ids]).encode()).hexdigest()


def identity(weights: Weights, cases: TrainingCases, schedule: Recipe, epochs: range, **others: object) -> Metadata:
    """All that decides a training's result, as JSON: a checkpoint is of this training and no other."""
    return {
        "base": weights.digest,
        "cases": cases.digest,
        "recipe": schedules.to_document(schedule),
        "epochs": [epochs.start, epochs.stop],
        **others,
    }
