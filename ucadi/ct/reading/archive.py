"""Zip files with the DICOM files of one scan, unpacked so that nothing in them can do harm.

Members are written under names of our own into a folder of our own, so no path, link or device in the archive
has any effect; what is inflated is counted as it comes, whatever the archive declares; archives inside are not
opened.
"""

from __future__ import annotations

import re
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ucadi.ct.reading.refusals import Reason, RefusedError
from ucadi.errors import OutputError
from ucadi.files import opened, writing

SUFFIX = ".zip"

MAX_MEMBERS = 20_000
"""Most files in an archive; a chest CT has a thousand slices at most, and there may be several series."""

MAX_BYTES = 8 << 30
"""Most bytes that an archive may inflate to."""

MAX_RATIO = 200
"""Most that an archive may inflate to, in times its own size; CT images shrink to a third, empty air to a hundredth."""

_PIECE = 1 << 20


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The folder with the files of a zip file, as long as the context lasts.

    Each folder of the archive keeps its files together, in a folder with a number for a name. Raises RefusedError
    (BAD_ARCHIVE) for what is no zip file, is encrypted or is larger than any scan; OutputError on a full disk.
    """
    with tempfile.TemporaryDirectory(prefix="ucadi-") as name:
        folder = Path(name)
        try:
            with opened(path) as file, zipfile.ZipFile(file) as archive:
                _unpack(archive, folder, budget=min(MAX_BYTES, path.stat().st_size * MAX_RATIO))
        except (OutputError, RefusedError):
            raise
        except Exception as error:  # whatever a parser of broken input raises
            raise RefusedError(Reason.BAD_ARCHIVE, type(error).__name__) from error  # its words name members
        yield folder


def is_archive(path: Path) -> bool:
    """Whether a file is named as zip files are."""
    return path.name.lower().endswith(SUFFIX)


def _unpack(archive: zipfile.ZipFile, folder: Path, budget: int) -> None:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise RefusedError(Reason.BAD_ARCHIVE, f"{len(members)} members")
    folders: dict[PurePosixPath, Path] = {}
    for number, member in enumerate(members):
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.is_dir() or kind not in (0, stat.S_IFREG):
            continue
        if member.flag_bits & 1:
            raise RefusedError(Reason.BAD_ARCHIVE, "encrypted")
        place = PurePosixPath(member.filename)
        target = folders.setdefault(place.parent, folder / f"{len(folders):05d}")
        target.mkdir(exist_ok=True)
        harmless = re.sub(r"[^A-Za-z0-9._-]", "_", place.name)[-40:].lstrip(".")
        with archive.open(member) as source, (target / f"{number:05d}-{harmless}").open("wb", buffering=0) as copy:
            while piece := source.read(_PIECE):
                budget -= len(piece)
                if budget < 0:
                    raise RefusedError(Reason.BAD_ARCHIVE, "inflates to more than any scan")
                with writing(folder, "make room there, or set TMPDIR to a larger disk"):
                    while piece := piece[copy.write(piece) :]:
                        pass
