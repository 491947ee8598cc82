"""ucadi split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ucadi.commands import Force, Output
from ucadi.errors import MismatchError
from ucadi.formats import split as split_format
from ucadi.hyperparameters import MAX_SEED
from ucadi.parts import Feature, require
from ucadi.splitting import TEST, TRAINVAL, divide

if TYPE_CHECKING:
    from ucadi.formats.dataset import Dataset


@dataclass(frozen=True)
class SplitResult:
    """The split made. Of each part (test, trainval, val-1, ...): how many patients, cases, and cases by label."""

    split: Path
    parts: dict[str, dict[str, int]]

    def __str__(self) -> str:
        columns = list(next(iter(self.parts.values())))
        lines = [" " * 10 + "".join(f"{column:>13}" for column in columns)]
        lines += [f"{part:<10}" + "".join(f"{row[c]:>13}" for c in columns) for part, row in self.parts.items()]
        return "\n".join([str(self.split), *lines])


def split(
    dataset: Annotated[Path, typer.Argument(help="A dataset, from preprocess or merge.")],
    *,
    output: Output,
    test: Annotated[float, typer.Option(help="Share of the patients for testing.", min=0, max=0.9)] = 0.2,
    folds: Annotated[int, typer.Option(help="Folds of the others.", min=2, max=split_format.MAX_FOLDS)] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the draw.", min=0, max=MAX_SEED)] = 0,
    force: Force = False,
) -> SplitResult:
    """Divide a dataset's patients into test and trainval, and the latter into folds, by diagnosis.

    The file goes to train and predict with --part: trainval, test, and train-K and val-K of fold K. All scans of
    a patient are on one side. Synthetic cases count for nothing here, and are in the training parts only.

    Example:
        ucadi split site-a.h5 --folds 2 -o site-a.split
    """
    require(Feature.DATASETS)
    from ucadi.formats import dataset as dataset_format

    with dataset_format.open(dataset) as whole:
        data = whole.scans()
        unseen = set(whole.patients) - set(data.patients)
        if unseen:
            raise MismatchError(
                f"{dataset.name}: of {len(unseen)} patients it has synthetic cases only, which test nothing",
                hint="split the datasets of the scans, merged: the patients are the same",
            )
        made = divide(data.patients, data.labels, test=test, folds=folds, seed=seed)
        split_format.write(output, made, force=force)
        names = (TEST, TRAINVAL, *(f"val-{k}" for k in range(1, folds + 1)))
        return SplitResult(output, {name: _counts(data, made.patients(name)) for name in names})


def _counts(data: Dataset, patients: Collection[str]) -> dict[str, int]:
    cases = data.of_patients(patients)
    labels = Counter(_name(label) for label in cases.labels)
    every = sorted(set(data.labels), key=lambda label: -1 if label is None else label)
    return {
        "patients": len(set(cases.patients)),
        "cases": len(cases),
        **{_name(label): labels[_name(label)] for label in every},
    }


def _name(label: object) -> str:
    return getattr(label, "label", "unlabelled")
