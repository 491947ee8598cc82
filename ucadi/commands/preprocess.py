"""ucadi preprocess."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ucadi.commands import Force, Output
from ucadi.errors import FormatError, MismatchError, OutputError, SeriesError, UsageError
from ucadi.progress import track

if TYPE_CHECKING:
    from ucadi.ct.parallel import Outcome
    from ucadi.formats.caselist import Entry
    from ucadi.formats.dataset import Case, Rejection

MIN_SALT_BYTES = 16


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
            lines.append(f"rejected: {len(self.rejected)} cases")
            lines += [f"  {case}: {reason}" for case, reason in self.rejected.items()]
        lines.append(f"keep {self.salt} secret and at the site: with it the ids can be traced to patients")
        return "\n".join(lines)


def preprocess(
    source: Annotated[Path, typer.Argument(help="Folder with a folder (DICOM), .zip or .nii.gz file per case.")],
    *,
    output: Output,
    labels: Annotated[Path | None, typer.Option(help="CSV file with the columns case, patient, label.")] = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Admit cases without a label.")] = False,
    size: Annotated[int, typer.Option(help="Rows and columns that slices are resized to.", min=16, max=1024)] = 128,
    min_slices: Annotated[int, typer.Option(help="Reject shorter series.", min=2)] = 40,
    series: Annotated[list[str] | None, typer.Option(help="Use this Series Instance UID (repeatable).")] = None,
    salt: Annotated[Path | None, typer.Option(help="Secret file; default: ucadi.salt beside the output.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; 0 for one per core.", min=0)] = 0,
    report: Annotated[Path | None, typer.Option(help="Also write a quality report (JSON) for the site.")] = None,
    force: Force = False,
) -> PreprocessResult:
    """Make a dataset from a site's chest CTs: choose the series, order, resize and de-identify it.

    A scan that cannot be used is listed with the reason; it never stops the others.
    """
    from ucadi.ct.parallel import Job, read_scans
    from ucadi.formats import caselist, container
    from ucadi.formats import dataset as dataset_format
    from ucadi.formats.output import write_file

    if labels is None and not unlabelled:
        raise UsageError("no labels file", hint="--labels labels.csv, or --unlabelled for cases without")
    if report is not None and report.exists() and not force:
        raise OutputError(f"{report}: exists already", hint="choose another --report, or --force to replace it")
    entries = match_cases(source, caselist.read(labels, unlabelled=unlabelled) if labels else None)
    salt = salt if salt is not None else output.parent / "ucadi.salt"
    secret = site_salt(salt)
    run = _Run(secret, sorted(entries, key=lambda entry: pseudonym(secret, "case", entry.case)))
    wanted = frozenset(series or ())
    jobs = [Job(scan_path(source, entry.case), size, min_slices, wanted) for entry in run.entries]
    outcomes = track(read_scans(jobs, workers or os.cpu_count() or 1), "Reading scans", total=len(jobs))
    try:
        parameters: dict[str, str | int | float] = {"min_slices": min_slices, "window": "-1200 600"}
        cases = run.cases(outcomes, wanted)
        dataset_format.write(output, cases, run.rejections, size=size, attributes=parameters, force=force)
    finally:
        if report is not None and run.records:
            text = json.dumps({"size": size, "min_slices": min_slices, "cases": run.records}, indent=2)
            write_file(report, text.encode() + b"\n", force=force)
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


@dataclass
class _Run:
    """What accumulates while the outcomes come in."""

    secret: bytes
    entries: Sequence[Entry]
    rejections: list[Rejection] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    patients: set[str] = field(default_factory=set)
    rejected: dict[str, str] = field(default_factory=dict)
    not_used: Counter[str] = field(default_factory=Counter)

    def cases(self, outcomes: Iterator[Outcome], wanted: frozenset[str]) -> Iterator[Case]:
        """The usable scans as cases of a dataset; everything else is noted. Raises SeriesError if none is left."""
        from ucadi.ct.refusals import RefusedError
        from ucadi.formats.dataset import Case, Rejection

        used = set()
        for entry, outcome in zip(self.entries, outcomes, strict=True):
            case = pseudonym(self.secret, "case", entry.case)
            aside = outcome.series if isinstance(outcome, RefusedError) else outcome.set_aside
            self.records.append(_record(entry, case, outcome))
            self.rejections += [Rejection(case, s.ordinal, s.reason.value, s.slices) for s in aside]
            if isinstance(outcome, RefusedError):
                self.rejected[entry.case] = outcome.message
                slices = max((s.slices for s in aside), default=0)
                self.rejections.append(Rejection(case, 0, outcome.reason.value, slices))
                continue
            used.add(outcome.uid)
            self.not_used.update(s.reason.value for s in aside)
            self.labels[entry.label.label if entry.label is not None else "unlabelled"] += 1
            patient = pseudonym(self.secret, "patient", entry.patient)
            self.patients.add(patient)
            volume = outcome.volume
            yield Case(
                case, patient, entry.label, volume, volume.positions_mm, outcome.tags, outcome.digest, outcome.flags
            )
        if not self.labels:
            case, reason = next(iter(sorted(self.rejected.items())))
            raise SeriesError(
                f"no usable scan in {len(self.entries)} cases; {case}: {reason}",
                hint="--report lists every series with its reason",
            )
        if wanted - used:
            raise MismatchError(
                f"--series {min(wanted - used)}: not used in any case", hint="--report lists every series and its UID"
            )


def match_cases(source: Path, entries: list[Entry] | None) -> list[Entry]:
    """The cases of `source`: those of the labels file, after checking that each exists and none is left out.

    Without a labels file, every folder, zip and NIfTI file at the top of `source` is a case without a label.
    """
    from ucadi.formats.caselist import Entry

    if not source.is_dir():
        raise SeriesError(f"{source}: no such folder", hint="it holds one folder of DICOM files per case")
    if entries is None:
        names = sorted(path.name for path in source.iterdir() if _is_scan(path))
        entries = [Entry(name, name, None) for name in names]
    if not entries:
        raise SeriesError(f"{source}: no cases", hint="it holds a folder of DICOM files, a .zip or a .nii.gz per case")
    missing = [entry.case for entry in entries if not scan_path(source, entry.case).exists()]
    if missing:
        raise MismatchError(
            f"{source}: the labels name {_some(missing)}, which it does not hold",
            hint="the column case is the folder's path relative to it",
        )
    extra = list(_unlisted(source, {scan_path(source, entry.case) for entry in entries}))
    if extra:
        raise MismatchError(
            f"{source}: holds {_some(extra)}, which the labels file does not name",
            hint="add a line for each, or move them elsewhere",
        )
    return entries


def scan_path(source: Path, case: str) -> Path:
    """Where a case lies: a folder, or a file whose suffix the labels may leave out."""
    from ucadi.ct.scan import SCAN_SUFFIXES

    candidates = [source / case, *(source / (case + suffix) for suffix in SCAN_SUFFIXES)]
    return next((path for path in candidates if path.exists()), candidates[0])


def site_salt(path: Path) -> bytes:
    """The site's secret, made and kept readable by its owner only if it does not exist yet."""
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        secret = secrets.token_bytes(32)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}", hint="--salt names another file") from None
        with os.fdopen(handle, "wb") as file:
            file.write(secret)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}", hint="--salt names a file of at least 16 secret bytes") from None
    if len(secret) < MIN_SALT_BYTES:
        raise FormatError(f"{path}: {len(secret)} bytes are too few", hint=f"head -c 32 /dev/urandom > {path}")
    return secret


def pseudonym(secret: bytes, kind: str, name: str) -> str:
    """The id that stands for a case or a patient: 16 hex digits of HMAC-SHA-256 with the site's secret."""
    return hmac.new(secret, f"{kind}\0{name}".encode(), hashlib.sha256).hexdigest()[:16]


def _record(entry: Entry, case: str, outcome: Outcome) -> dict[str, Any]:
    """A case in the report, which stays at the site: it names folders and series."""
    from ucadi.ct.refusals import RefusedError

    record: dict[str, Any] = {"case": entry.case, "id": case}
    if isinstance(outcome, RefusedError):
        aside = outcome.series
        record |= {"used": False, "reason": outcome.reason.value, "message": outcome.message}
    else:
        aside = outcome.set_aside
        record |= {
            "used": True,
            "series": outcome.uid,
            "slices": outcome.slices,
            "interpolated": outcome.interpolated,
            "unreadable": list(outcome.unreadable),
            "spacing_mm": [round(side, 4) for side in outcome.volume.spacing_mm],
            "flags": list(outcome.flags),
            "tags": outcome.tags,
        }
    record["not_used"] = [
        {"series": s.uid, "slices": s.slices, "reason": s.reason.value, "detail": s.detail} for s in aside
    ]
    return record


def _is_scan(path: Path) -> bool:
    """Whether a case could lie here: a folder with any file in it or below, a zip or NIfTI file."""
    from ucadi.ct.scan import SCAN_SUFFIXES

    if path.name.startswith("."):
        return False
    if path.is_dir():
        return any(files for _, _, files in os.walk(path))
    return path.name.lower().endswith(SCAN_SUFFIXES)


def _unlisted(folder: Path, cases: set[Path]) -> Iterator[str]:
    """Scans below `folder` that are not among the cases: whole folders, searched only where cases lie deeper."""
    for path in sorted(folder.iterdir()):
        if path in cases or not _is_scan(path):
            continue
        if any(path in case.parents for case in cases):
            yield from (f"{path.name}/{name}" for name in _unlisted(path, cases))
        else:
            yield path.name


def _some(names: list[str]) -> str:
    """The first few names, and how many more."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
