"""Earlier spellings of commands and options: they work for one release more, hidden, and say what they are now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pkgutil import resolve_name

from ucadi.settings import settings_of

OLD_NAMES = {"watch": "wait"}
"""Commands by their earlier names, which work for one release more and are in no list."""

OLD_OPTIONS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "aggregate": {"--wrong": ("--max-faulty", "")},
    "audit": {"--with": ("--models", "")},
    "coordinate": {"--rounds": ("--until-round", "")},
    "evaluate": {"--by": ("--unit", ""), "--point": ("--operating-point", "")},
    "decrypt": {"--answer": ("--partial", "")},
    "apply": {"--norms": ("--local-norms", "")},
    "train": {"--norms": ("--local-norms", ""), "--checkpoint-minutes": ("--checkpoint-every", "m")},
    "serve": {"--max-gigabytes": ("--max-size", "GB"), "--minutes": ("--max-time", "m")},
    "pacs pull": {"--most-gb": ("--max-size", "GB")},
    "relay serve": {"--max-gigabytes": ("--max-size", "GB")},
    "round open": {"--count": ("--count-scores-of", "")},
    "site run": {"--rounds": ("--until-round", "")},
    "translate train": {"--checkpoint-minutes": ("--checkpoint-every", "m")},
}
"""Of each command the earlier spellings of options, likewise: the new one, and the unit that its number was in."""

OLD_SETTINGS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "train": ("ucadi.formats.schedules:ROUND_SETTINGS", {}),
    "round open": ("ucadi.formats.schedules:ROUND_SETTINGS", {}),
    "translate train": ("ucadi.translation.recipe:TranslationRecipe", {"epochs": "total_epochs"}),
}
"""Of each command the settings that were options of their own, and those that had another name: now --set KEY=VALUE."""


def respelled(command: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's arguments with the options' present names, and a line on each that was changed."""
    options, keys = OLD_OPTIONS.get(command, {}), _keys(command)
    present, told = list[str](), list[str]()
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if word == "--":
            present += [word, *words]
        elif option in options:
            name, unit = options[option]
            present += [name, *(one + unit for one in _value(equals, value, words))]
            told.append(f"{option} is now {name}")
        elif option in keys:
            present += ["--set", *(f"{keys[option]}={one}" for one in _value(equals, value, words))]
            told.append(f"{option} is now --set {keys[option]}=...")
        else:
            present.append(word)
    return present, told


def _value(equals: str, value: str, words: Iterator[str]) -> list[str]:
    """An option's value: behind its equals sign, or the next word if there is one."""
    return [value] if equals else list(islice(words, 1))


def _keys(command: str) -> dict[str, str]:
    """Settings by the options that they were."""
    if command not in OLD_SETTINGS:
        return {}
    place, renamed = OLD_SETTINGS[command]
    found = resolve_name(place)
    settings = settings_of(found) if isinstance(found, type) else found
    names = {name: name for name, one in settings.items() if one.kind is not bool and "." not in name}
    return {f"--{name.replace('_', '-')}": key for name, key in (names | dict(renamed)).items()}
