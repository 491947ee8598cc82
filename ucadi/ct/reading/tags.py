"""The technical facts that a dataset keeps of a DICOM header, cleaned so that nothing else can pass with them.

Any text element can hold a name or a date that someone typed into it. So text is never copied: it is
recognised against a table of what scanners are known to write and replaced by the table's word, or by
`other`. Numbers must lie in the range that they have on a CT.

Source: DICOM PS3.15 Annex E (de-identification), Retain Device Identity is not claimed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pydicom.dataset import Dataset

from ucadi.ct.reading.elements import number, text

OTHER = "other"

MANUFACTURERS = {
    "ge": r"\bGE\b|GENERAL ELECTRIC",
    "siemens": r"SIEMENS",
    "philips": r"PHILIPS|MARCONI|PICKER",
    "toshiba": r"TOSHIBA",
    "canon": r"CANON",
    "hitachi": r"HITACHI|FUJIFILM",
    "united-imaging": r"\bUIH\b|UNITED.?IMAGING",
    "neusoft": r"NEUSOFT|NMS",
    "minfound": r"MINFOUND",
    "samsung": r"SAMSUNG|NEUROLOGICA",
}

MODEL_FAMILIES = (
    *("LightSpeed", "BrightSpeed", "HiSpeed", "Discovery", "Optima", "Revolution"),
    *("SOMATOM", "Sensation", "Definition", "Emotion", "Perspective", "Biograph", "Symbia", "Volume Zoom"),
    *("Brilliance", "Ingenuity", "Incisive", "iCT", "IQon", "Mx8000", "Gemini", "Vereos"),
    *("Aquilion", "Alexion", "Activion", "Asteion", "Supria", "Scenaria", "Eclos", "uCT", "uMI", "NeuViz", "ScintCare"),
)

KERNEL = re.compile(
    r"(?P<siemens>[BHUIQ][a-z]?\d{2}[a-z]?)|(?P<toshiba>FC\d{2})"
    r"|(?P<named>STANDARD|SOFT|DETAIL|CHEST|LUNG|BONE(PLUS)?|EDGE|ULTRA|[A-E]|L|Y[A-E]|SMOOTH|SHARP)",
    re.IGNORECASE,
)

NUMBERS = {
    "KVP": (40.0, 200.0),
    "SliceThickness": (0.05, 20.0),
    "ReconstructionDiameter": (50.0, 1000.0),
    "XRayTubeCurrent": (1.0, 3000.0),
    "SpiralPitchFactor": (0.01, 5.0),
    "GantryDetectorTilt": (-45.0, 45.0),
}

KEYWORDS = ("Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "ContrastBolusAgent", *NUMBERS)
"""The elements that `technical` reads."""


def technical(dataset: Dataset) -> dict[str, str | float]:
    """The allow-listed facts of a header, by DICOM keyword; what is absent or out of range is left out."""
    facts: dict[str, str | float] = {}
    for keyword, clean in _TEXTS.items():
        written = text(dataset, keyword)
        if written or (keyword == "ContrastBolusAgent" and keyword in dataset):
            facts[keyword] = clean(written)
    for keyword, (least, most) in NUMBERS.items():
        value = number(dataset, keyword)
        if value is not None and least <= value <= most:
            facts[keyword] = round(value, 4)
    return facts


def manufacturer(written: str) -> str:
    """The maker, by the names of `MANUFACTURERS`."""
    return _first(name for name, pattern in MANUFACTURERS.items() if re.search(pattern, written, re.IGNORECASE))


def model_family(written: str) -> str:
    """The family of scanners, without the rest of the model name."""
    return _first(family for family in MODEL_FAMILIES if family.lower() in written.lower())


def kernel(written: str) -> str:
    """The reconstruction kernel if it is spelt like one."""
    first = written.split("\\")[0].strip()
    return first if KERNEL.fullmatch(first) else OTHER


def contrast_agent(written: str) -> str:
    """Whether an agent is named: `named`, `none` for words that say that there is none, `empty`."""
    if not written:
        return "empty"
    return "none" if re.fullmatch(r"(?i)no|none|n|non|without|wo|w/o|0|n/?a|native", written) else "named"


_TEXTS: dict[str, Callable[[str], str]] = {
    "Manufacturer": manufacturer,
    "ManufacturerModelName": model_family,
    "ConvolutionKernel": kernel,
    "ContrastBolusAgent": contrast_agent,
}


def _first(names: Iterable[str]) -> str:
    return next(iter(names), OTHER)
