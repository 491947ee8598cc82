"""Sizes and times of the command line, with their units: 8GB, 24h, 30s."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import typer

_BYTES: Mapping[str, float] = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_SECONDS: Mapping[str, float] = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def size(default: str, least: str, help: str) -> Any:
    """An option of a size; its value is bytes. A bare number counts gigabytes, as it did before there were units."""
    return _option("SIZE", _BYTES, "GB", least, "100000GB", default, help)


def time(default: str | None, least: str, help: str, *, bare: str = "s") -> Any:
    """An option of a time; its value is seconds. A bare number counts seconds, or what `bare` says."""
    return _option("TIME", _SECONDS, bare, least, "366d", default, help)


def _option(
    metavar: str, units: Mapping[str, float], bare: str, least: str, most: str, default: str | None, text: str
) -> Any:
    low, high = (_parsed(bound, units, bare) for bound in (least, most))

    def parse(value: str | float) -> float:
        found = value if isinstance(value, float) else _parsed(value, units, bare)
        if found is None or not low <= found <= high:  # type: ignore[operator]
            raise typer.BadParameter(
                f"{value!r}: a number from {least} to {most} with one of the units {', '.join(units)}"
            )
        return found

    return typer.Option(parser=_named(parse, metavar), metavar=metavar, show_default=default or False, help=text)


def _named(parse: Callable[[Any], float], name: str) -> Callable[[Any], float]:
    parse.__name__ = name  # what the parser's own messages call it
    return parse


def _parsed(text: str, units: Mapping[str, float], bare: str) -> float | None:
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?|\.\d{1,9})\s?([A-Za-z]*)", text.strip())
    if match is None:
        return None
    spelled = {unit.lower(): factor for unit, factor in units.items()}
    factor = spelled.get((match[2] or bare).lower())
    return None if factor is None else float(match[1]) * factor
