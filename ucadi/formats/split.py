"""A split: which patients of a site are for testing and which in each fold. See docs/formats/split.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.formats.signed import Fields, read_document, write_document
from ucadi.kinds import Format
from ucadi.splitting import TEST, Split

if TYPE_CHECKING:
    from ucadi.formats.dataset import Dataset

FORMAT = Format.SPLIT.id

MAX_FOLDS = 100


def write(path: Path, split: Split, *, force: bool = False) -> None:
    """Writes a split."""
    document = {
        **Format.SPLIT.head,
        "test": sorted(split.test),
        "folds": [sorted(fold) for fold in split.folds],
    }
    write_document(path, document, force=force)


def read(path: Path) -> Split:
    """Reads a split. Raises FormatError, also for one in which a patient stands twice."""
    fields = Fields(read_document(path, FORMAT), path.name)
    parts = [fields.texts("test"), *fields.text_lists("folds")]
    patients = [patient for part in parts for patient in part]
    if len(set(patients)) != len(patients):
        raise FormatError(f"{path.name}: a patient is in two parts", hint="make it again with ucadi split")
    if not 2 <= len(parts) - 1 <= MAX_FOLDS:
        raise FormatError(f"{path.name}: {len(parts) - 1} folds")
    test, *folds = map(frozenset, parts)
    return Split(test, tuple(folds))


def select(data: Dataset, path: Path | None, part: str | None) -> Dataset:
    """The cases of `data` that are in a part of the split at `path`, or all of them if neither is given.

    Synthetic cases are in the training parts only, whatever patient they are of. Raises MismatchError if the split does
    not know all of the patients, or none is in the part: a patient who came later is on no side.
    """
    if path is None and part is None:
        return data
    if path is None or part is None:
        raise UsageError("--split and --part go together", hint="for instance --split site.split --part trainval")
    split = read(path)
    wanted = split.patients(part)
    unknown = set(data.patients) - split.test - split.patients("trainval")
    if unknown:
        raise MismatchError(
            f"{path.name}: does not know {len(unknown)} of the {len(set(data.patients))} patients of {data.path.name}",
            hint="make a split of this dataset with ucadi split",
        )
    chosen = data.of_patients(wanted)
    if not split.trains(part):
        chosen = chosen.scans()
    if not len(chosen):
        raise MismatchError(f"{path.name}: no case of {data.path.name} is in {part}")
    return chosen


def require_training(part: str) -> None:
    """Raises UsageError for the test part, which nothing is trained on."""
    if part == TEST:
        raise UsageError("the test part is not for training", hint="--part trainval, or train-K for one fold")


def require_scans(data: Dataset) -> None:
    """Raises MismatchError if there are synthetic cases among `data`: they train a model, and never test one."""
    synthetic = len(data) - len(data.scans())
    if synthetic:
        raise MismatchError(
            f"{data.path.name}: {synthetic} of {len(data)} cases are synthetic, and say nothing of patients",
            hint="use the dataset of the scans, or --split with a part that is not for training, which leaves them out",
        )
