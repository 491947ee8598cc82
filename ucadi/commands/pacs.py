"""ucadi pacs pull, ucadi pacs push: images from an archive for preprocess, and objects of gradcam to it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ucadi import units
from ucadi.commands import refuse_unused
from ucadi.errors import FormatError, OutputError, PacsError, UsageError
from ucadi.files import refuse_existing
from ucadi.pacs.address import AE_TITLE, Node, Web, parse, read_credentials
from ucadi.parts import Feature, require
from ucadi.progress import track

if TYPE_CHECKING:
    from ucadi.pacs.dicomweb import WebArchive
    from ucadi.pacs.dimse import NodeArchive

Url = Annotated[
    str, typer.Argument(metavar="URL", help="https://HOST/PATH of a DICOMweb service, or dicom://TITLE@HOST:PORT.")
]
CredentialsFile = Annotated[
    Path | None,
    typer.Option("--credentials", help="File of USER:PASSWORD or 'Bearer TOKEN' [default: UCADI_PACS_USER, ...]."),
]
DEFAULT_TITLE = "UCADI"

Title = Annotated[
    str | None, typer.Option("--title", help=f"One's own AE title, for dicom:// [default: {DEFAULT_TITLE}].")
]


@dataclass(frozen=True)
class PacsPullResult:
    """How many instances came, and how many were here already."""

    output: Path
    studies: int
    series: int
    fetched: int
    present: int

    def __str__(self) -> str:
        return (
            f"{self.output}: {self.series} series of {self.studies} studies; "
            f"{self.fetched} instances fetched, {self.present} here already"
        )


def pacs_pull(
    url: Url,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for STUDY/SERIES/*.dcm; it may exist.")],
    study: Annotated[str, typer.Option(help="Study Instance UID.")] = "",
    series: Annotated[str, typer.Option(help="Series Instance UID.")] = "",
    patient: Annotated[str, typer.Option(help="Patient ID.")] = "",
    since: Annotated[str, typer.Option(help="First date of the study, YYYYMMDD.")] = "",
    until: Annotated[str, typer.Option(help="Last date of the study, YYYYMMDD.")] = "",
    modality: Annotated[str, typer.Option(help="Modality of the series; empty for any.")] = "CT",
    most_instances: Annotated[
        int, typer.Option(help="Refuse more than so many instances.", min=1, max=10_000_000)
    ] = 20_000,
    max_size: Annotated[float, units.size("50GB", "1MB", "Stop when so much has come.")] = 50e9,
    credentials: CredentialsFile = None,
    title: Title = None,
) -> PacsPullResult:
    """Fetch series from an archive into a folder that preprocess reads: a folder a study, each one a case.

    By QIDO-RS and WADO-RS, or C-FIND and C-GET. An instance appears whole or not at all, under the UIDs that were asked
    for; what is here already is not fetched again, so a broken transfer goes on where it ended.

    Example:
        ucadi pacs pull https://pacs.example.org/dicom-web --patient 17 -o ct
    """
    place = _place(url)
    from ucadi.pacs.inbox import Inbox, TransferLimits
    from ucadi.pacs.query import Query

    query = Query(study, series, patient, since, until, modality)
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: a file, not a folder", hint="choose another --output")
    if output.parent.is_dir():
        refuse_existing(output, force=True)  # what cannot be written is said before anything is fetched
    limits = TransferLimits(most_instances, int(max_size))
    with closing(_archive(place, credentials, title)) as archive:
        wanted = archive.find(query, limits.instances)
        if not wanted:
            raise PacsError(f"{url}: nothing there is as asked for", hint="--modality '' looks at others than CT")
        inbox = Inbox(output, wanted, limits)
        missing = len(inbox.missing)
        for _ in track(archive.fetch(inbox), "Fetching instances", total=missing):
            pass
    studies = {address.study for address in wanted}
    all_series = {(address.study, address.series) for address in wanted}
    return PacsPullResult(output, len(studies), len(all_series), len(inbox.received), len(wanted) - missing)


@dataclass(frozen=True)
class PacsPushResult:
    """The files that the archive stored."""

    url: str
    stored: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.url}: {len(self.stored)} stored"


def pacs_push(
    url: Url,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="DICOM files, or folders of *.dcm files.")],
    *,
    credentials: CredentialsFile = None,
    title: Title = None,
) -> PacsPushResult:
    """Send DICOM files to an archive, as those of gradcam --dicom: by STOW-RS, or C-STORE.

    Each answer is checked. One that is refused never stops the others; all that were are named at the end, with the
    archive's reason. Sending again changes nothing, as the objects' UIDs stay the same.

    Example:
        ucadi pacs push https://pacs.example.org/dicom-web heatmap/dicom
    """
    place = _place(url)
    paths = [path for given in files for path in (sorted(given.rglob("*.dcm")) if given.is_dir() else [given])]
    if not paths:
        raise UsageError(
            f"no files to send in {', '.join(map(str, files))}", hint="name files, or folders that hold *.dcm files"
        )
    stored, refused = [], {}
    with closing(_archive(place, credentials, title)) as archive:
        for path in track(paths, "Sending", total=len(paths)):
            try:
                archive.store(path)
                stored.append(str(path))
            except (PacsError, FormatError) as error:
                refused[path] = error
    if refused:
        first = next(iter(refused.values()))
        named = "; ".join(f"{path}: {error.message}" for path, error in list(refused.items())[:20])
        more = f"; and {len(refused) - 20} more" if len(refused) > 20 else ""
        raise PacsError(f"{len(refused)} of {len(paths)} not stored: {named}{more}", hint=first.hint)
    return PacsPushResult(url, tuple(stored))


def _place(url: str) -> Node | Web:
    """What the address names, once it is certain that it can be spoken to."""
    place = parse(url)
    require(Feature.DIMSE if isinstance(place, Node) else Feature.DICOMWEB)
    return place


def _archive(place: Node | Web, credentials: Path | None, title: str | None) -> WebArchive | NodeArchive:
    if isinstance(place, Node):
        from ucadi.pacs.dimse import NodeArchive

        if credentials is not None:
            raise UsageError("--credentials: the DICOM protocol has none", hint="archives know a caller by its --title")
        title = DEFAULT_TITLE if title is None else title
        if not AE_TITLE.fullmatch(title):
            raise UsageError(f"--title {title!r}: not a title", hint="up to 16 letters and digits")
        return NodeArchive(place, title)
    from ucadi.pacs.dicomweb import WebArchive

    refuse_unused({"--title": title}, "DICOMweb knows no titles")
    return WebArchive(place, read_credentials(credentials))
