"""Why a series is not used: one reason per cause, each with a sentence and, where there is one, a way out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ucadi.errors import SeriesError
from ucadi.parts import Feature, how_to_install


class Reason(StrEnum):
    """The reasons, by the names that stand in datasets and reports."""

    NO_IMAGES = "no-images"
    UNREADABLE = "unreadable"
    NOT_CT = "not-ct"
    LOCALIZER = "localizer"
    SECONDARY_CAPTURE = "secondary-capture"
    REFORMATTED = "reformatted"
    COLOUR = "colour"
    INVERTED = "inverted"
    MULTI_FRAME = "multi-frame"
    NO_GEOMETRY = "no-geometry"
    INVALID_GEOMETRY = "invalid-geometry"
    NOT_AXIAL = "not-axial"
    NO_RESCALE = "no-rescale"
    INVALID_RESCALE = "invalid-rescale"
    NOT_HOUNSFIELD = "not-hounsfield"
    NO_DECODER = "no-decoder"
    UNSUPPORTED_PIXELS = "unsupported-pixels"
    CONFLICTING_SLICES = "conflicting-slices"
    TOO_FEW_SLICES = "too-few-slices"
    GAP = "gap"
    NOT_CHOSEN = "not-chosen"
    BAD_ARCHIVE = "bad-archive"
    CRASHED = "crashed"

    @property
    def sentence(self) -> str:
        """The reason in words."""
        return _SENTENCES[self][0]

    @property
    def hint(self) -> str | None:
        """What to do about it, if anything."""
        return _SENTENCES[self][1]

    @property
    def names_an_option(self) -> bool:
        """Whether the hint is about an option of the command line, which not everybody has."""
        return self in (Reason.TOO_FEW_SLICES, Reason.NOT_CHOSEN)


_DECODERS = (*Feature.DECODERS.missing, *Feature.JPEG12.missing)
_SENTENCES: dict[Reason, tuple[str, str | None]] = {
    Reason.NO_IMAGES: ("no DICOM image in it", "each case is a folder or zip file of DICOM files, or one NIfTI file"),
    Reason.UNREADABLE: ("cannot be read", "export it again from the archive"),
    Reason.NOT_CT: ("not CT (Modality or SOP Class)", None),
    Reason.LOCALIZER: ("a localizer (scout), not a stack of slices", None),
    Reason.SECONDARY_CAPTURE: ("a screen capture or dose report", None),
    Reason.REFORMATTED: ("a derived reformat or projection", "export the original axial series"),
    Reason.COLOUR: ("colour, not grey values", None),
    Reason.INVERTED: ("MONOCHROME1: grey values inverted for display", "export the original series"),
    Reason.MULTI_FRAME: ("several frames in one image of a class that does not define their places", None),
    Reason.NO_GEOMETRY: (
        "Image Position, Image Orientation or Pixel Spacing is missing",
        "the order of slices cannot be trusted without; export it again with its geometry",
    ),
    Reason.INVALID_GEOMETRY: ("Image Orientation or Pixel Spacing is no geometry", None),
    Reason.NOT_AXIAL: ("coronal or sagittal, not axial", "export the original axial series"),
    Reason.NO_RESCALE: ("Rescale Slope or Intercept is missing, so grey values have no unit", None),
    Reason.INVALID_RESCALE: ("Rescale Slope is zero, negative or not a number", None),
    Reason.NOT_HOUNSFIELD: ("not in Hounsfield units", "export the plain CT, not a map derived from it"),
    Reason.NO_DECODER: (
        "no decoder for its transfer syntax",
        "export it uncompressed" + (f", or {how_to_install(_DECODERS)}" if _DECODERS else ""),
    ),
    Reason.UNSUPPORTED_PIXELS: ("an encoding of pixels that is not supported", None),
    Reason.CONFLICTING_SLICES: ("different slices at the same place", "export one reconstruction per series"),
    Reason.TOO_FEW_SLICES: ("too few slices", "--min-slices sets the least number"),
    Reason.GAP: ("slices are missing", "export the whole series again"),
    Reason.NOT_CHOSEN: ("another series of the case was chosen", "--series chooses by Series Instance UID"),
    Reason.BAD_ARCHIVE: ("a zip file that is broken, encrypted or too large", "unpack it and name the folder instead"),
    Reason.CRASHED: ("reading it crashed the process or took too much memory", "export it uncompressed"),
}


@dataclass(frozen=True)
class SetAside:
    """A series of a case that was not used. `uid` names it to the site; nothing else here names anything.

    ordinal: its place among the series of the case, from 1. slices: how many instances it has.
    """

    ordinal: int
    slices: int
    reason: Reason
    detail: str
    uid: str


class RefusedError(SeriesError):
    """A series, or a whole case with all its `series`, is refused for a `reason`, with numbers in `detail`."""

    def __init__(self, reason: Reason, detail: str = "", series: tuple[SetAside, ...] = ()) -> None:
        super().__init__(f"{reason.sentence} ({detail})" if detail else reason.sentence, hint=reason.hint)
        self.reason = reason
        self.detail = detail
        self.series = series

    def __reduce__(self) -> tuple[type[RefusedError], tuple[Reason, str, tuple[SetAside, ...]]]:
        """What is needed to cross a process border."""
        return RefusedError, (self.reason, self.detail, self.series)
