"""`ucadi phantom`: synthetic chest CTs to try everything with, no patient involved."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ucadi.commands import MAX_PROCESSES
from ucadi.errors import UsageError
from ucadi.files import new_folder
from ucadi.hyperparameters import MAX_SEED
from ucadi.labels import LABELS
from ucadi.parts import Feature, require
from ucadi.progress import track

if TYPE_CHECKING:
    from ucadi.ct.phantom.cohort import PatientPlan


@dataclass(frozen=True)
class PhantomResult:
    """What was written; `patients` counts the patients of each diagnosis."""

    output: Path
    scanner: str
    patients: dict[str, int]
    scans: int
    contrast_scans: int

    def __str__(self) -> str:
        made_of = ", ".join(f"{count} {label}" for label, count in self.patients.items())
        contrast = f", {self.contrast_scans} with contrast" if self.contrast_scans else ""
        total = sum(self.patients.values())
        return f"{self.output}: {self.scans} scans of {total} patients ({made_of}){contrast}, {self.scanner}"


def phantom(
    output: Annotated[Path, typer.Argument(help="New folder: one folder of DICOM files per scan, and labels.csv.")],
    site: Annotated[
        str, typer.Option(help="Name of the hospital; part of every name, another name gives other patients.")
    ] = "site",
    patients: Annotated[int, typer.Option(min=1, max=100_000, help="How many patients.")] = 12,
    prevalence: Annotated[
        str, typer.Option(help="Weights of healthy, covid, other_viral and bacterial; the counts follow exactly.")
    ] = "1,1,1,1",
    scans_per_patient: Annotated[
        str, typer.Option(metavar="MIN..MAX", help="How often each is scanned; a single number is the most.")
    ] = "1",
    scanner: Annotated[str, typer.Option(help="Scanner preset: ge, siemens, toshiba or philips.")] = "ge",
    contrast: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction of patients injected with contrast agent.")
    ] = 0.0,
    burden: Annotated[
        float,
        typer.Option(min=0.012, max=0.25, help="Share of the lungs that pneumonia fills, the median of patients."),
    ] = 0.045,
    slices: Annotated[
        int | None, typer.Option(min=8, max=1000, help="Slices per scan [default: as the scanner's spacing needs].")
    ] = None,
    matrix: Annotated[int, typer.Option(min=64, max=1024, help="Rows and columns of a slice.")] = 512,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="The same seed gives the same bytes.")] = 0,
    workers: Annotated[int, typer.Option(min=0, max=MAX_PROCESSES, help="Processes; 0 for one per core.")] = 0,
    lesion_masks: Annotated[
        Path | None, typer.Option(help="Also write the true lesions: new folder of one CASE.nii.gz per scan.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output folder if it exists.")] = False,
) -> PhantomResult:
    """Makes synthetic chest CTs: anatomy, pneumonia and scanner drawn at random, written as DICOM.

    Each scan is a series in OUTPUT/CASE/, and OUTPUT/labels.csv names its patient and the diagnosis. The four
    classes differ in where and how the lungs are opaque, as in people, and hardly in how much: a network can
    tell them apart, a mean cannot. To play several hospitals, run it once for each, with its own --site and --scanner.

    Example:
        ucadi phantom ct --patients 8 --matrix 64 --slices 40
    """
    require(Feature.SCANS)
    from ucadi.ct.phantom.cohort import CohortPlan
    from ucadi.ct.phantom.export import write_patient
    from ucadi.ct.phantom.scanner import SCANNERS

    if scanner not in SCANNERS:
        raise UsageError(f"--scanner {scanner}: no such preset", hint="use one of: " + ", ".join(SCANNERS))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", site):
        raise UsageError(f"--site {site!r}: not a name for folders", hint="up to 32 letters, digits, dots, - and _")
    cohort = CohortPlan(
        site, patients, _weights(prevalence), scanner, _range(scans_per_patient), contrast, matrix, slices, seed, burden
    )
    plans = cohort.plan_patients()
    with ExitStack() as outputs:
        folder = outputs.enter_context(new_folder(output, force=force))
        masks = outputs.enter_context(new_folder(lesion_masks, force=force)) if lesion_masks else None
        write = partial(write_patient, folder, masks=masks)
        for _ in track(_each(write, plans, workers or os.cpu_count() or 1), "patients", len(plans)):
            pass
        _write_labels(folder / "labels.csv", plans)
    return PhantomResult(
        output,
        scanner,
        {label: sum(plan.diagnosis.label == label for plan in plans) for label in LABELS},
        sum(plan.scans for plan in plans),
        sum(plan.scans for plan in plans if plan.contrast),
    )


def _weights(text: str) -> tuple[float, ...]:
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    if len(weights) != len(LABELS) or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise UsageError(
            f"--prevalence {text}: not {len(LABELS)} weights", hint=f"as {','.join(LABELS)}, for instance 3,3,1,3"
        )
    return weights


def _range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(?:(\d+)\.\.)?(\d+)", text)
    low, high = (int(match[1] or 1), int(match[2])) if match else (0, 0)
    if not 1 <= low <= high <= 99:
        raise UsageError(f"--scans-per-patient {text}: not a range", hint="for instance 1..4, or 4 for up to four")
    return low, high


def _each(write: Callable[[PatientPlan], None], plans: Sequence[PatientPlan], workers: int) -> Iterator[None]:
    """Writes every patient, in processes of their own if there are several workers; yields as each is done."""
    if min(workers, len(plans)) == 1:
        yield from map(write, plans)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    # Not fork: numpy may hold threads, which a forked process would lack.
    with ProcessPoolExecutor(min(workers, len(plans)), mp_context=get_context("spawn")) as pool:
        try:
            for done in as_completed([pool.submit(write, plan) for plan in plans]):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _write_labels(path: Path, plans: Sequence[PatientPlan]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("case", "patient", "label"))
        writer.writerows((case, plan.patient, plan.diagnosis.label) for plan in plans for case in plan.cases)
