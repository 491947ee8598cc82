"""ucadi preprocess."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ucadi.commands import MAX_PROCESSES, Force, Output
from ucadi.errors import MismatchError, OutputError, SeriesError, UsageError
from ucadi.labels import LABELS
from ucadi.parts import Feature, how_to_install, require
from ucadi.progress import note, track

if TYPE_CHECKING:
    from ucadi.ct.reading.parallel import Outcome
    from ucadi.ct.reading.refusals import RefusedError, SetAside
    from ucadi.ct.reading.scan import Scan, Source
    from ucadi.formats.caselist import Entry
    from ucadi.formats.dataset import Case, Dataset, Rejection
    from ucadi.labels import Diagnosis
    from ucadi.pages.quality import NotUsed, Record

REVISION = 2
"""Of the way from scans to volumes. It rises when the same scan would give another volume, tag or flag."""


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
    """
    require(Feature.SCANS, Feature.DATASETS, where={Feature.PICTURES: report})
    lacking = [*Feature.DECODERS.missing, *Feature.JPEG12.missing]
    if lacking:
        note(f"some compressed scans will be refused; to read them all: {how_to_install(lacking)}")
    from ucadi.ct.reading.parallel import Job, read_scans
    from ucadi.formats import caselist, container
    from ucadi.formats import dataset as dataset_format
    from ucadi.formats import salt as salt_format
    from ucadi.pages import quality

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
            _check_reusable(earlier, size)
        run = _Run(salt_format.read_or_make(salt), entries, frozenset(series or ()), earlier, report is not None)
        known = frozenset(run.earlier_cases)
        jobs = [Job(caselist.scan_path(source, e.case), size, min_slices, run.wanted, known) for e in run.entries]
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


class _Run:
    """What accumulates while the outcomes come in, in the order of the cases' ids: so the file has no other order."""

    def __init__(
        self,
        secret: bytes,
        entries: Sequence[Entry],
        wanted: frozenset[str],
        earlier: Dataset | None,
        pictures: bool,
    ) -> None:
        from ucadi.formats.salt import pseudonym

        self.wanted = wanted
        self.earlier = earlier
        self.earlier_cases = {} if earlier is None else {digest: i for i, digest in enumerate(earlier.series_digests)}
        self.ids = {
            entry: (pseudonym(secret, "case", entry.case), pseudonym(secret, "patient", entry.patient))
            for entry in entries
        }
        self.entries = sorted(entries, key=self.ids.__getitem__)
        self.rejections: list[Rejection] = []
        self.pictures = pictures
        self.records: list[Record] = []
        self.linkage: list[tuple[object, ...]] = []
        self.labels: Counter[str] = Counter()
        self.patients: set[str] = set()
        self.rejected: dict[str, str] = {}
        self.not_used: Counter[str] = Counter()

    def cases(self, outcomes: Iterator[Outcome]) -> Iterator[Case]:
        """The usable scans as cases of a dataset; everything else is noted. Raises SeriesError if none is left."""
        from ucadi.ct.reading.refusals import RefusedError
        from ucadi.formats.dataset import Rejection

        used = set()
        for entry, outcome in zip(self.entries, outcomes, strict=True):
            case, patient = self.ids[entry]
            aside = outcome.series if isinstance(outcome, RefusedError) else outcome.set_aside
            self.linkage += _linkage(case, entry.case, outcome, aside)
            self.rejections += [Rejection(case, s.ordinal, s.reason.value, s.slices) for s in aside]
            if isinstance(outcome, RefusedError):
                self.rejected[entry.case] = outcome.message
                slices = max((s.slices for s in aside), default=0)
                self.rejections.append(Rejection(case, 0, outcome.reason.value, slices))
                self.records.append(_refused(entry, case, outcome))
                continue
            used.add(outcome.uid)
            self.not_used.update(s.reason.value for s in aside)
            self.labels[entry.label.label if entry.label is not None else "unlabelled"] += 1
            self.patients.add(patient)
            made = self._case(case, patient, entry.label, outcome)
            self.records.append(_record(made, outcome, self.pictures))
            yield made
        if not self.labels:
            case, reason = min(self.rejected.items())
            raise SeriesError(
                f"no usable scan in {len(self.entries)} cases; {case}: {reason}",
                hint=_hint_for_none(self.entries),
            )
        if self.wanted - used:
            raise MismatchError(
                f"--series {min(self.wanted - used)}: not used in any case",
                hint="--linkage lists every series and its UID",
            )

    def _case(self, case: str, patient: str, label: Diagnosis | None, scan: Scan | Source) -> Case:
        """The case of a scan, which is the earlier dataset's if that has read it already."""
        from ucadi.ct.reading.scan import Source
        from ucadi.formats.dataset import Case

        if isinstance(scan, Source):
            assert self.earlier is not None, "scans are known from an earlier dataset only"
            earlier = self.earlier.case(self.earlier_cases[scan.digest])
            return replace(earlier, id=case, patient=patient, label=label)
        positions = scan.volume.positions_mm
        return Case(case, patient, label, scan.volume, positions, scan.tags, scan.digest, scan.flags)


def _check_reusable(earlier: Dataset, size: int) -> None:
    """Raises MismatchError if the earlier dataset was made in another way."""
    made = {"size": earlier.size, "revision": earlier.attributes.get("revision")}
    if made != {"size": size, "revision": REVISION}:
        raise MismatchError(
            f"{earlier.path.name}: made with {made}, not size {size} and revision {REVISION}",
            hint="leave out --reuse, and all scans are read again",
        )


def _refused(entry: Entry, case: str, refusal: RefusedError) -> Record:
    from ucadi.pages.quality import Record

    label = "" if entry.label is None else entry.label.label
    not_used = tuple(map(_not_used, refusal.series))
    return Record(case, label, refusal.reason.value, refusal.detail, not_used=not_used)


def _record(case: Case, scan: Scan | Source, picture: bool) -> Record:
    """A case in the report."""
    from ucadi.ct.montage import montage_jpeg
    from ucadi.ct.reading.scan import Scan
    from ucadi.pages.quality import Record

    return Record(
        id=case.id,
        label="" if case.label is None else case.label.label,
        series=scan.ordinal,
        slices=scan.slices or len(case.volume.hu),
        interpolated=scan.interpolated if isinstance(scan, Scan) else None,
        unreadable=len(scan.unreadable) if isinstance(scan, Scan) else None,
        spacing_mm=tuple(round(side, 4) for side in case.volume.spacing_mm),
        flags=case.flags,
        tags=case.tags,
        not_used=tuple(map(_not_used, scan.set_aside)),
        montage=montage_jpeg(case.volume) if picture else b"",
    )


def _not_used(series: SetAside) -> NotUsed:
    from ucadi.pages.quality import NotUsed

    return NotUsed(series.ordinal, series.slices, series.reason.value, series.detail)


def _linkage(case: str, name: str, outcome: Outcome, aside: Sequence[SetAside]) -> Iterator[tuple[object, ...]]:
    """Rows of the linkage table: the series that is used, if any, with its unreadable files, then the others."""
    from ucadi.ct.reading.scan import Scan, Source

    if isinstance(outcome, Scan | Source):
        broken = " ".join(outcome.unreadable) if isinstance(outcome, Scan) else ""
        yield case, name, outcome.ordinal, outcome.uid, "yes", broken
    elif not aside:
        yield case, name, "", "", "no", ""
    for series in aside:
        yield case, name, series.ordinal, series.uid, "no", ""


def _hint_for_none(entries: Sequence[Entry]) -> str:
    if len(entries) > 1 and all(entry.case.lower().endswith(".dcm") for entry in entries):
        return "a folder of slices is one case: name the folder above it"
    return "--report lists every series with its reason"
