"""Writes the tables of settings in the pages, each between its markers, from the fields of the dataclasses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ucadi.fed.optimisers import ServerOptimiser
from ucadi.formats.schedules import ROUND_SETTINGS
from ucadi.hyperparameters import Recipe
from ucadi.settings import Setting, settings_of
from ucadi.translation.recipe import TranslationRecipe

DOCS = Path(__file__).parent
PAGES = ("training.md", "translate.md", "formats/documents.md")
MARKED = re.compile(r"(<!-- settings: (\w+), by docs/make_settings.py -->\n).*?(<!-- end of settings -->\n)", re.DOTALL)


def for_people(settings: Mapping[str, Setting]) -> str:
    """A table of settings with their defaults, their bounds and their help."""
    rows = [f"| `{key}` | {_default(one)} | {one.wanted} | {one.help} |" for key, one in settings.items()]
    return "\n".join(["| key | default | must be | |", "|---|---|---|---|", *rows]) + "\n"


def for_readers(settings: Mapping[str, Setting]) -> str:
    """A table of what a document may hold, and what an entry that is absent means."""
    rows = [
        f"| `{key}` | {one.wanted} | {'never absent' if one.always else _default(one)} |"
        for key, one in settings.items()
    ]
    return "\n".join(["| entry | value | if absent |", "|---|---|---|", *rows]) + "\n"


def _default(one: Setting) -> str:
    return one.unset or f"`{one.toml()}`"


TABLES = {
    "recipe": for_people(ROUND_SETTINGS),
    "translator": for_people(settings_of(TranslationRecipe)),
    "schedule": for_readers(settings_of(Recipe)),
    "server": for_readers(settings_of(ServerOptimiser)),
}


def renewed(text: str) -> str:
    """A page with its tables as the code has them."""
    return MARKED.sub(lambda found: found[1] + TABLES[found[2]] + found[3], text)


if __name__ == "__main__":
    for page in PAGES:
        path = DOCS / page
        path.write_text(renewed(path.read_text()))
