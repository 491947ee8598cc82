"""Hyper-parameters as files: the schedule within a plan, and the recipe that people write, in TOML or by --set."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ucadi.errors import FormatError, UsageError
from ucadi.fed.optimisers import ServerOptimiser
from ucadi.files import read_text
from ucadi.formats.container import MAX_HEADER, Metadata
from ucadi.hyperparameters import Recipe
from ucadi.settings import Setting, setting, settings_of

T = TypeVar("T")

_SAME_RELEASE = "use the same release of ucadi at every site"


@dataclass(frozen=True)
class RoundRecipe:
    """What is asked for: how to train, what makes the next model of the mean, and whether norms stay at home."""

    schedule: Recipe
    server: ServerOptimiser
    local_norms: bool = setting(False, "Norms stay at home (FedBN); for round open only.")


ROUND_SETTINGS: Mapping[str, Setting] = {
    **settings_of(Recipe),
    **settings_of(RoundRecipe),
    **{f"server.{key}": replace(one, name=f"server.{key}") for key, one in settings_of(ServerOptimiser).items()},
}
"""All that a recipe of training may say, by its key in TOML."""


def read_recipe(path: Path | None, given: Sequence[str] = ()) -> RoundRecipe:
    """What the recipe file says, but for what was `given` as KEY=VALUE; errors as of `choose`."""
    chosen = choose(ROUND_SETTINGS, path, given)
    server = {key.removeprefix("server."): chosen.pop(key) for key in list(chosen) if key.startswith("server.")}
    local_norms = chosen.pop("local_norms", False)
    try:
        return RoundRecipe(_recipe_of(chosen), ServerOptimiser(**server), local_norms)
    except UsageError as error:
        if path is None or given:
            raise
        raise FormatError(f"{path.name}: {error.message}", hint=error.hint) from None


def choose(settings: Mapping[str, Setting], path: Path | None, given: Sequence[str]) -> dict[str, Any]:
    """The values of a TOML file, and over them those `given` as KEY=VALUE, each checked by itself.

    FormatError, naming the file, for an entry that there is not or of the wrong kind; UsageError for one of `given`.
    """
    return {**({} if path is None else _read(settings, path)), **dict(_parsed(settings, one) for one in given)}


def to_document(schedule: Recipe) -> Metadata:
    """The schedule as a plan says it: of most hyper-parameters only what is not the default."""
    said = {
        name: getattr(schedule, name)
        for name, one in settings_of(Recipe).items()
        if one.always or getattr(schedule, name) != one.default
    }
    return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}


def parse(document: Metadata) -> Recipe:
    """The schedule that a plan says."""
    missing = [name for name, one in settings_of(Recipe).items() if one.always and name not in document]
    if missing:
        raise FormatError(f"the schedule does not say {missing[0]}", hint=_SAME_RELEASE)
    return _built(Recipe, document, "the schedule")


def parse_server(document: Metadata) -> ServerOptimiser:
    """The server's optimiser that a plan says."""
    return _built(ServerOptimiser, document, "the server's optimiser")


def _recipe_of(chosen: Mapping[str, Any]) -> Recipe:
    recipe = Recipe(**chosen)
    # the paper's five epochs of warm-up are more than a short training has; whoever says more means something else
    if "warmup_epochs" in chosen and recipe.warmup_epochs > recipe.total_epochs:
        raise UsageError(
            f"{recipe.warmup_epochs} epochs of warm-up in a schedule of {recipe.total_epochs}",
            hint="warmup_epochs is at most total_epochs, which counts the epochs of all rounds together",
        )
    return recipe


def _built(kind: type[T], document: Metadata, what: str) -> T:
    unknown = sorted(document.keys() - settings_of(kind).keys())
    if unknown:
        raise FormatError(f"{what}: there is no {unknown[0]!r:.40}", hint=_SAME_RELEASE)
    return kind(**document)


def _read(settings: Mapping[str, Setting], path: Path) -> dict[str, Any]:
    text = read_text(path, "a recipe (TOML)", most=MAX_HEADER)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path.name}: not TOML: {error}", hint="one setting a line, for example learning_rate = 0.05"
        ) from None
    try:
        return {key: _checked(_known(settings, key), value) for key, value in _flat(document).items()}
    except UsageError as error:
        raise FormatError(f"{path.name}: {error.message}", hint=error.hint) from None


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a document, those of its tables with dots in their names, as TOML may write them too."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= {f"{key}.{inner}": one for inner, one in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _checked(one: Setting, value: Any) -> Any:
    if isinstance(value, str) and one.kind is not str:
        raise UsageError(f"{one.name} is the text {value!r:.40}", hint=f"it has no quotes: {one.name} = {one.toml()}")
    return one.check(value)


def _parsed(settings: Mapping[str, Setting], given: str) -> tuple[str, Any]:
    key, sign, text = given.partition("=")
    if not sign:
        raise UsageError(f"--set {given}: it says no value", hint="--set KEY=VALUE, and --set help lists the keys")
    try:
        return key, _known(settings, key).parse(text)
    except UsageError as error:
        raise UsageError(f"--set: {error.message}", hint=error.hint) from None


def _known(settings: Mapping[str, Setting], key: str) -> Setting:
    if key not in settings:
        near = difflib.get_close_matches(key.replace("-", "_"), settings, n=3)
        meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(settings)}"
        raise UsageError(f"there is no {key!r:.40}", hint=meant)
    return settings[key]
