"""Federated learning for chest CT: encrypted rounds as files, from DICOM to heatmap.

The commands are functions on files: `preprocess`, `init`, `train`, `encrypt`, `aggregate`, `decrypt`, `apply`,
`predict` and `evaluate` take what `ucadi COMMAND --help` says and return what `--json` prints. `open_dataset` and its
neighbours read and write their files. All errors are a `UcadiError`. Other modules may change with any release.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from ucadi._version import __version__

if TYPE_CHECKING:
    from ucadi.commands.aggregate import aggregate as aggregate
    from ucadi.commands.apply import apply as apply
    from ucadi.commands.decrypt import decrypt as decrypt
    from ucadi.commands.encrypt import encrypt as encrypt
    from ucadi.commands.evaluate import evaluate as evaluate
    from ucadi.commands.init import init as init
    from ucadi.commands.predict import predict as predict
    from ucadi.commands.preprocess import preprocess as preprocess
    from ucadi.commands.train import train as train
    from ucadi.errors import UcadiError as UcadiError
    from ucadi.formats.dataset import open as open_dataset
    from ucadi.formats.dataset import write as write_dataset
    from ucadi.formats.update import read_update as read_update
    from ucadi.formats.update import write_update as write_update
    from ucadi.formats.weights import read as read_weights
    from ucadi.formats.weights import write as write_weights

__all__ = [
    "UcadiError",
    "__version__",
    "aggregate",
    "apply",
    "decrypt",
    "encrypt",
    "evaluate",
    "init",
    "open_dataset",
    "predict",
    "preprocess",
    "read_update",
    "read_weights",
    "train",
    "write_dataset",
    "write_update",
    "write_weights",
]

_PLACES = {
    "preprocess": "ucadi.commands.preprocess:preprocess",
    "init": "ucadi.commands.init:init",
    "train": "ucadi.commands.train:train",
    "predict": "ucadi.commands.predict:predict",
    "evaluate": "ucadi.commands.evaluate:evaluate",
    "encrypt": "ucadi.commands.encrypt:encrypt",
    "aggregate": "ucadi.commands.aggregate:aggregate",
    "decrypt": "ucadi.commands.decrypt:decrypt",
    "apply": "ucadi.commands.apply:apply",
    "open_dataset": "ucadi.formats.dataset:open",
    "write_dataset": "ucadi.formats.dataset:write",
    "read_weights": "ucadi.formats.weights:read",
    "write_weights": "ucadi.formats.weights:write",
    "read_update": "ucadi.formats.update:read_update",
    "write_update": "ucadi.formats.update:write_update",
    "UcadiError": "ucadi.errors:UcadiError",
}
"""Where each public name stands: nothing is imported before it is used."""


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return resolve_name(_PLACES[name])
    raise AttributeError(f"module 'ucadi' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
