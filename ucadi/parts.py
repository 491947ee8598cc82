"""The parts of ucadi that are installed apart: which libraries each needs, told before any work begins.

Hints name these libraries with the versions that fit, which are those of the distribution's own metadata. They never
name ucadi itself to an installer: on a public index that name may be anybody's.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from importlib import metadata

from ucadi.errors import UsageError


class Feature(Enum):
    """What some commands or options do, with the modules that it imports beside the core's."""

    DATASETS = ("datasets", "h5py", "scipy")
    SCANS = ("CT files", "pydicom", "nibabel", "scipy")
    PICTURES = ("pictures", "PIL")
    NETWORKS = ("networks", "torch")
    STATISTICS = ("statistics", "sklearn", "scipy")
    PLOTS = ("plots", "matplotlib")
    PRIVACY = ("differentially private training", "dp_accounting")
    TENSORBOARD = ("TensorBoard", "tensorboard")
    ONNX = ("ONNX", "onnx", "onnxscript", "onnxruntime")
    OPENVINO = ("OpenVINO", "openvino", "onnx", "onnxscript")
    HEATMAP_OBJECTS = ("heatmaps as DICOM objects", "pydicom", "highdicom", "PIL")
    DICOMWEB = ("DICOMweb", "pydicom", "dicomweb_client", "requests")
    DIMSE = ("the DICOM protocol", "pydicom", "pynetdicom")
    PAGE = ("the diagnosis page", "starlette", "uvicorn")
    DECODERS = ("compressed DICOM", "pylibjpeg", "openjpeg", "jpeg_ls", "gdcm")
    JPEG12 = ("JPEG of 12 bits", "imagecodecs")

    def __init__(self, title: str, *modules: str) -> None:
        self.title = title
        self.modules = modules

    @property
    def missing(self) -> list[str]:
        """The modules that are not installed."""
        return [module for module in self.modules if importlib.util.find_spec(module) is None]


OPTIONAL = frozenset(module for feature in Feature for module in feature.modules)
"""Every module that some installations lack."""

_DISTRIBUTIONS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "openjpeg": "pylibjpeg-openjpeg",
    "jpeg_ls": "pyjpegls",
    "gdcm": "python-gdcm",
}
"""Where a distribution is not called as its module, but for the hyphens."""


def require(*features: Feature, where: Mapping[Feature, object] | None = None) -> None:
    """Raises UsageError if a library is missing that one of the features needs, and names all that are.

    where: features that only an option needs, each with that option's value.
    """
    wanted = (*features, *(feature for feature, asked in (where or {}).items() if asked))
    lacking = [feature for feature in wanted if feature.missing]
    if lacking:
        raise missing_error(
            ", ".join(feature.title for feature in lacking),
            (module for feature in lacking for module in feature.missing),
        )


def missing_error(what: str, modules: Iterable[str]) -> UsageError:
    """The error of what cannot be done without these modules."""
    names = tuple(dict.fromkeys(modules))
    verb = "are" if len(names) > 1 else "is"
    return UsageError(
        f"{what}: {', '.join(map(_distribution, names))} {verb} needed and not installed", hint=how_to_install(names)
    )


def how_to_install(modules: Iterable[str]) -> str:
    """The command that installs these modules, in versions that fit."""
    names = list(dict.fromkeys(map(_distribution, modules)))
    fitting = _fitting()
    command = "pip install " + " ".join(f"'{name}{fitting.get(name, '')}'" for name in names)
    return command + ("; install the CPU or CUDA build of torch that you want first" if "torch" in names else "")


def _distribution(module: str) -> str:
    return _DISTRIBUTIONS.get(module, module.replace("_", "-"))


def _fitting() -> dict[str, str]:
    """The versions that fit, by distribution, as in `>=3.11`; none if ucadi runs without being installed."""
    try:
        required = metadata.requires("ucadi") or []
    except metadata.PackageNotFoundError:
        return {}
    parsed = (re.fullmatch(r"([\w.-]+)(?:\[.*\])?\s*([^;]*?)\s*(;.*)?", line) for line in required)
    return {match[1].lower(): match[2] for match in reversed(list(parsed)) if match}
