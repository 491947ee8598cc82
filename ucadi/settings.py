"""Dataclasses whose fields say what they may be: the one source of checks, files, options and pages.

A field made by `setting` carries its default, its help and its bounds; its annotation says what it holds. From these,
`check_fields` validates an object, `Setting.parse` reads what was typed, and `as_toml` writes the help.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ucadi.errors import UcadiError, UsageError

WHOLE_MAX = 1 << 53
"""Largest whole number: what JSON of every program holds exactly."""

_WORDS: Mapping[float, str] = {0: "zero", 1: "one"}


@dataclass(frozen=True)
class Setting:
    """A field with what it may hold: `kind` (bool, int, float, or str), or a tuple of these where it is `many`.

    Numbers are finite, at `least` and at `most`, or `above` and `below`; `step` counts from `least`. A tuple has up to
    `longest` entries. `unset` is what holds where nothing is said and the default does not tell; `example` what
    a help page shows then. What plans `always` say, they say even where it is the default.
    """

    name: str
    kind: type
    many: bool
    optional: bool
    default: Any
    help: str
    unit: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    step: int = 1
    choices: tuple[str, ...] = ()
    longest: int = 1
    unset: str = ""
    example: Any = None
    always: bool = False

    @property
    def wanted(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return " or ".join(filter(None, (", ".join(self.choices[:-1]), self.choices[-1])))
        if self.kind is bool:
            return "true or false"
        noun = ("whole " if self.kind is int else "") + "number"
        text = f"1 to {self.longest} {noun}s" if self.many else f"a {noun}"
        return text + (f" of {self.unit}" if self.unit else "") + self._range

    @property
    def _range(self) -> str:
        if self.least is not None and self.most is not None:
            return f" from {self.least} to {self.most}" + (f" in steps of {self.step}" if self.step > 1 else "")
        if self.below is not None:
            first = f" between {self.above}" if self.least is None else f" from {self.least}"
            return first + (f" and {self.below}" if self.least is None else f" to below {self.below}")
        if self.above is not None:
            return f" above {_WORDS.get(self.above, self.above)}"
        return "" if self.least is None else f", {_WORDS.get(self.least, self.least)} or more"

    def check(self, value: Any) -> Any:
        """The value as the field holds it: a list as a tuple, a whole number as the float that it is.

        UsageError, naming field and value, for one that it may not hold.
        """
        if value is None and self.optional:
            return None
        values = value if self.many else (value,)
        listed = isinstance(values, list | tuple) and 1 <= len(values) <= self.longest
        if not listed or not all(map(self._fits, values)):
            raise UsageError(f"{self.name} is {_shown(value)}", hint=f"it must be {self.wanted}")
        held = tuple(float(one) if self.kind is float else one for one in values)
        return held if self.many else held[0]

    def parse(self, text: str) -> Any:
        """The value that a person typed; UsageError as of `check`. "none" unsets what need not be set."""
        if self.optional and text == "none":
            return None
        try:
            read = [self._read(one) for one in text.strip("[] ").split(",")] if self.many else self._read(text)
        except ValueError:
            read = text
        return self.check(read)

    def toml(self) -> str:
        """The default, or an example where there is none, as TOML."""
        return _toml(self.default if self.example is None else self.example)

    def _read(self, text: str) -> Any:
        if self.kind is bool:
            return {"true": True, "false": False}.get(text.strip().lower(), text)
        return self.kind(text)

    def _fits(self, value: Any) -> bool:
        if self.kind in (bool, str):
            return type(value) is self.kind and (not self.choices or value in self.choices)
        if isinstance(value, bool) or not isinstance(value, int if self.kind is int else int | float):
            return False
        return (
            abs(value) <= (WHOLE_MAX if self.kind is int else sys.float_info.max)  # nor is it NaN
            and (self.least is None or self.least <= value)
            and (self.most is None or value <= self.most)
            and (self.above is None or self.above < value)
            and (self.below is None or value < self.below)
            and (self.step == 1 or (value - (self.least or 0)) % self.step == 0)
        )


def setting(default: Any, help: str, **rules: Any) -> Any:
    """A dataclass's field with its default, its help and its other `rules`: any that `Setting` has."""
    return field(default=default, metadata={"help": help, **rules})


def settings_of(kind: type) -> Mapping[str, Setting]:
    """The fields of a dataclass that `setting` made, by name."""
    hints = get_type_hints(kind)
    return {
        one.name: Setting(one.name, *_shape(hints[one.name]), default=one.default, **one.metadata)
        for one in fields(kind)
        if one.metadata
    }


def check_fields(made: Any, error: type[UcadiError] = UsageError, what: str = "") -> None:
    """Checks all settings of a frozen dataclass, in its `__post_init__`, and brings their values into form.

    `error` names `what`, the field, its value and what it must be.
    """
    for one in settings_of(type(made)).values():
        try:
            value = one.check(getattr(made, one.name))
        except UsageError as problem:
            raise error(f"{what}: {problem.message}" if what else problem.message, hint=problem.hint) from None
        object.__setattr__(made, one.name, value)


def as_toml(settings: Mapping[str, Setting]) -> str:
    """A page of at most 80 columns on these settings: TOML that sets each to its default."""
    parts = []
    for key, one in settings.items():
        told = f"{one.help[:-1]}: {one.wanted}." + (f" Default: {one.unset}." if one.unset else "")
        lines = [f"# {line}" for line in textwrap.wrap(told, 78)]
        parts.append("\n".join([*lines, f"{'# ' if one.unset else ''}{key} = {one.toml()}"]))
    return "\n\n".join(parts)


def _shape(hint: Any) -> tuple[type, bool, bool]:
    """What an annotation says: the kind, whether it is a tuple of these, and whether it may be None."""
    optional = NoneType in get_args(hint)
    if optional:
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    many = get_origin(hint) is tuple
    if many:
        hint = get_args(hint)[0]
    return (str if get_origin(hint) is Literal else hint), many, optional


def _shown(value: Any) -> str:
    """A value for a message; one line, and not a long one."""
    try:
        return f"{value!r:.40}"
    except ValueError:  # a number of more digits than Python converts
        return "a number of thousands of digits"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)
