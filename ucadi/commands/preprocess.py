"""ucadi preprocess."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import MAX_PROCESSES, Force, Output
from ucadi.errors import OutputError, UsageError
from ucadi.labels import LABELS
from ucadi.parts import Feature, how_to_install, require
from ucadi.progress import note, track


@dataclass(frozen=True)
class PreprocessResult:
    """The dataset made, and what became of each case.

    labels: how many cases of each diagnosis. rejected: why, by the case's path. series_not_used: how many
    series of the cases used were set aside, by reason.
    """

    dataset: Path
    cases: int
    patients: int
    labels: dict[str, int]
    rejected: dict[str, str]
    series_not_used: dict[str, int]
    salt: Path
    digest: str

    def __str__(self) -> str:
        labels = ", ".join(f"{count} {label}" for label, count in self.labels.items())
        lines = [f"{self.dataset}: {self.cases} cases of {self.patients} patients: {labels}"]
        if self.series_not_used:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.series_not_used.items())
            lines.append(f"series not used: {reasons}")
        if self.rejected:
            lines.append(f"rejected: {len(self.rejected)} of {self.cases + len(self.rejected)} cases")
            lines += [f"  {case}: {reason}" for case, reason in self.rejected.items()]
        lines.append(f"keep {self.salt} secret and at the site: with it the ids can be traced to patients")
        return "\n".join(lines)


def preprocess(
    source: Annotated[
        Path, typer.Argument(help="Folder with a folder or DICOMDIR, .zip, multi-frame .dcm or .nii.gz file per case.")
    ],
    *,
    output: Output,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the columns case (where a scan lies below the source), patient (a name that the scans of "
            f"one patient share) and label ({', '.join(LABELS)})."
        ),
    ] = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Admit cases without a label.")] = False,
    size: Annotated[int, typer.Option(help="Rows and columns that slices are resized to.", min=16, max=1024)] = 128,
    min_slices: Annotated[int, typer.Option(help="Reject shorter series.", min=2, max=10_000)] = 40,
    series: Annotated[list[str] | None, typer.Option(help="Use this Series Instance UID (repeatable).")] = None,
    salt: Annotated[Path | None, typer.Option(help="Secret file; default: ucadi.salt beside the output.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; 0 for one per core.", min=0, max=MAX_PROCESSES)] = 0,
    reuse: Annotated[Path | None, typer.Option(help="Take scans that are in this earlier dataset from it.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Also make a quality report: a folder of report.html, .csv and .json.")
    ] = None,
    linkage: Annotated[
        Path | None, typer.Option(help="Also write the secret CSV of which folder and series each id stands for.")
    ] = None,
    force: Force = False,
) -> PreprocessResult:
    """Make a dataset from a site's chest CTs: choose the series, order, resize and de-identify it.

    A scan that cannot be used is listed with the reason; it never stops the others.

    Example:
        ucadi preprocess ct --labels labels.csv --report quality -o site-a.h5
    """
    require(Feature.SCANS, Feature.DATASETS, where={Feature.PICTURES: report})
    lacking = [*Feature.DECODERS.missing, *Feature.JPEG12.missing]
    if lacking:
        note(f"some compressed scans will be refused; to read them all: {how_to_install(lacking)}")
    from ucadi.ct.reading.parallel import ReadJob, read_scans
    from ucadi.formats import caselist, container
    from ucadi.formats import dataset as dataset_format
    from ucadi.formats import salt as salt_format
    from ucadi.pages import quality
    from ucadi.workflows.preprocessing import REVISION, Preprocessing, check_reusable

    if labels is None and not unlabelled:
        raise UsageError("no labels file", hint="--labels labels.csv, or --unlabelled for cases without")
    for option, path in (("--report", report), ("--linkage", linkage)):
        if path is not None and path.exists() and not force:
            raise OutputError(f"{path}: exists already", hint=f"choose another {option}, or --force to replace it")
    entries = caselist.match(source, caselist.read(labels, unlabelled=unlabelled) if labels else None)
    parameters: dict[str, str | int | float] = {"min_slices": min_slices, "revision": REVISION}
    salt = salt if salt is not None else output.parent / "ucadi.salt"
    with ExitStack() as stack:
        earlier = None
        if reuse is not None:
            earlier = stack.enter_context(dataset_format.open(reuse))
            check_reusable(earlier, size)
        run = Preprocessing(
            salt_format.read_or_make(salt), entries, frozenset(series or ()), earlier, report is not None
        )
        known = frozenset(run.earlier_cases)
        jobs = [ReadJob(caselist.scan_path(source, e.case), size, min_slices, run.wanted, known) for e in run.entries]
        outcomes = track(read_scans(jobs, workers or os.cpu_count() or 1), "Reading scans", total=len(jobs))
        if report is not None:
            stack.callback(quality.write, report, {"size": size, **parameters}, run.records, force=force)
        if linkage is not None:
            stack.callback(quality.write_linkage, linkage, run.linkage, force=force)
        dataset_format.write(output, run.cases(outcomes), run.rejections, size=size, attributes=parameters, force=force)
    return PreprocessResult(
        dataset=output,
        cases=run.labels.total(),
        patients=len(run.patients),
        labels=dict(sorted(run.labels.items())),
        rejected=dict(sorted(run.rejected.items())),
        series_not_used=dict(sorted(run.not_used.items())),
        salt=salt,
        digest=container.file_digest(output),
    )
