"""Preprocessing: what a dataset, its report and its linkage table take from the scans, one outcome after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ucadi.ct.montage import montage_jpeg
from ucadi.ct.reading.parallel import Outcome
from ucadi.ct.reading.refusals import RefusedError, SetAside
from ucadi.ct.reading.scan import KnownScan, Scan
from ucadi.errors import MismatchError, SeriesError
from ucadi.formats.caselist import ListedCase
from ucadi.formats.dataset import Case, Dataset, Rejection
from ucadi.formats.salt import pseudonym
from ucadi.labels import Diagnosis
from ucadi.pages.quality import NotUsed, Record

REVISION = 2
"""Of the way from scans to volumes. It rises when the same scan would give another volume, tag or flag."""


class Preprocessing:
    """What accumulates while the outcomes come in, in the order of the cases' ids: so the file has no other order."""

    def __init__(
        self,
        secret: bytes,
        entries: Sequence[ListedCase],
        wanted: frozenset[str],
        earlier: Dataset | None,
        pictures: bool,
    ) -> None:

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

    def _case(self, case: str, patient: str, label: Diagnosis | None, scan: Scan | KnownScan) -> Case:
        """The case of a scan, which is the earlier dataset's if that has read it already."""
        if isinstance(scan, KnownScan):
            assert self.earlier is not None, "scans are known from an earlier dataset only"
            earlier = self.earlier.case(self.earlier_cases[scan.digest])
            return replace(earlier, id=case, patient=patient, label=label)
        positions = scan.volume.positions_mm
        return Case(case, patient, label, scan.volume, positions, scan.tags, scan.digest, scan.flags)


def _refused(entry: ListedCase, case: str, refusal: RefusedError) -> Record:

    label = "" if entry.label is None else entry.label.label
    not_used = tuple(map(_not_used, refusal.series))
    return Record(case, label, refusal.reason.value, refusal.detail, not_used=not_used)


def _record(case: Case, scan: Scan | KnownScan, picture: bool) -> Record:
    """A case in the report."""

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

    return NotUsed(series.ordinal, series.slices, series.reason.value, series.detail)


def _linkage(case: str, name: str, outcome: Outcome, aside: Sequence[SetAside]) -> Iterator[tuple[object, ...]]:
    """Rows of the linkage table: the series that is used, if any, with its unreadable files, then the others."""

    if isinstance(outcome, Scan | KnownScan):
        broken = " ".join(outcome.unreadable) if isinstance(outcome, Scan) else ""
        yield case, name, outcome.ordinal, outcome.uid, "yes", broken
    elif not aside:
        yield case, name, "", "", "no", ""
    for series in aside:
        yield case, name, series.ordinal, series.uid, "no", ""


def _hint_for_none(entries: Sequence[ListedCase]) -> str:
    if len(entries) > 1 and all(entry.case.lower().endswith(".dcm") for entry in entries):
        return "a folder of slices is one case: name the folder above it"
    return "--report lists every series with its reason"


def check_reusable(earlier: Dataset, size: int) -> None:
    """Raises MismatchError if the earlier dataset was made in another way."""
    made = {"size": earlier.size, "revision": earlier.attributes.get("revision")}
    if made != {"size": size, "revision": REVISION}:
        raise MismatchError(
            f"{earlier.path.name}: made with {made}, not size {size} and revision {REVISION}",
            hint="leave out --reuse, and all scans are read again",
        )
