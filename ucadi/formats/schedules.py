"""Hyper-parameters as files: the schedule within a plan, and the recipe that people write, in TOML."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ucadi.errors import FormatError, UsageError
from ucadi.fed.optimisers import FEDAVG, ServerOptimiser
from ucadi.fed.plan import Schedule
from ucadi.files import read_text
from ucadi.formats.container import MAX_HEADER
from ucadi.formats.signed import Fields

ALWAYS = (
    "local_epochs",
    "total_epochs",
    "warmup_epochs",
    "learning_rate",
    "batch_size",
    "drop_rate",
    "seed",
    "precision",
)
"""What every plan says of its schedule; of the rest it says only what is not the default."""

_SAME_RELEASE = "use the same release of ucadi at every site"


@dataclass(frozen=True)
class RecipeFile:
    """What a recipe file asks for: fields of the schedule, the server's optimiser, and whether norms stay at home."""

    schedule: Mapping[str, Any] = field(default_factory=dict)
    server: ServerOptimiser = FEDAVG
    local_norms: bool = False


def read_recipe(path: Path) -> RecipeFile:
    """Reads a recipe; FormatError for an entry that there is not, or of the wrong kind."""
    text = read_text(path, "a recipe (TOML)", most=MAX_HEADER)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path.name}: not TOML: {error}", hint="one setting a line, for example learning_rate = 0.05"
        ) from None
    server, local_norms = document.pop("server", {}), document.pop("local_norms", False)
    if not isinstance(local_norms, bool):
        raise FormatError(f"{path.name}: local_norms is true or false")
    try:
        for kind, given in ((Schedule, document), (ServerOptimiser, server)):
            _check_written(kind, given, path.name)
        chosen = _typed(
            Schedule, Fields(document, path.name), path.name, "a recipe may say what the options of ucadi train say"
        )
        return RecipeFile(chosen, parse_server(Fields(server, f"{path.name}: server")), local_norms)
    except UsageError as error:
        raise FormatError(f"{path.name}: {error.message}", hint=error.hint) from None


def to_document(schedule: Schedule) -> dict[str, Any]:
    """The schedule as a plan says it."""
    defaults = Schedule()
    said = {
        name: value for name, value in asdict(schedule).items() if name in ALWAYS or value != getattr(defaults, name)
    }
    return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}


def parse(held: Fields) -> Schedule:
    """The schedule that a plan says."""
    missing = [name for name in ALWAYS if name not in held.values]
    if missing:
        raise FormatError(f"the schedule does not say {missing[0]}", hint=_SAME_RELEASE)
    return Schedule(**_typed(Schedule, held, "the schedule", _SAME_RELEASE))


def parse_server(held: Fields) -> ServerOptimiser:
    """The server's optimiser that a plan or a recipe says."""
    return ServerOptimiser(**_typed(ServerOptimiser, held, "the server's optimiser", _SAME_RELEASE))


def _check_written(kind: type[Any], given: Any, name: str) -> None:
    """Raises FormatError for a value that a person wrote in another way than it is meant: quoted, or a fraction."""
    defaults = {one.name: one.default for one in fields(kind)}
    for key, value in given.items() if isinstance(given, dict) else ():
        default = defaults.get(key)
        if isinstance(value, str) and not isinstance(default, str):
            raise FormatError(f"{name}: {key} is the text {value!r}", hint=f"a number has no quotes: {key} = 0.05")
        if type(default) is int and type(value) is not int:
            raise FormatError(f"{name}: {key} is {value}", hint=f"a whole number: {key} = {default}")
        if type(default) is bool and type(value) is not bool:
            raise FormatError(f"{name}: {key} is {value}", hint=f"{key} = true, or {key} = false")


def _typed(kind: type[Any], held: Fields, name: str, hint: str) -> dict[str, Any]:
    """The object's values, each as the dataclass has it; nothing else may be there."""
    known = {one.name: one for one in fields(kind)}
    unknown = sorted(held.values.keys() - known.keys())
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        meant = f"did you mean {near[0]}?" if near else f"{hint}: {', '.join(known)}"
        raise FormatError(f"{name}: there is no {unknown[0]!r}", hint=meant)
    values: dict[str, Any] = {}
    for key in held.values:
        default = known[key].default
        match default:
            case bool():
                values[key] = held.flag(key)
            case int():
                values[key] = held.number(key)
            case str():
                values[key] = held.text(key)
            case tuple():
                values[key] = tuple(held.reals(key))
            case _:
                assert default is not MISSING
                values[key] = held.real(key)
    return values
