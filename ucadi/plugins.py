"""What is found by name: built in, or added by an installed package's entry points, so that a new one needs no fork."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pkgutil import resolve_name
from typing import Any

from ucadi.errors import UsageError


@dataclass(frozen=True)
class Registry:
    """Things of one kind by name. `group` is the group of entry points; `built_in` says where each of ours stands, as
    "module:name", so that nothing is imported before it is used. What is built in cannot be replaced."""

    group: str
    what: str
    built_in: Mapping[str, str]

    def names(self) -> tuple[str, ...]:
        """All names, those built in first."""
        return (*self.built_in, *sorted(self._added()))

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in self._added()

    def load(self, name: str) -> Any:
        """What has that name. UsageError if nothing has, or if its package cannot be imported."""
        if name in self.built_in:
            return resolve_name(self.built_in[name])
        entry = self._added().get(name)
        if entry is None:
            raise UsageError(f"no {self.what} is called {name!r}", hint=f"there are {', '.join(self.names())}")
        try:
            return entry.load()
        except Exception as error:  # it is somebody else's code
            package = entry.dist.name if entry.dist else entry.module
            raise UsageError(
                f"{self.what} {name}: {package} cannot be loaded: {error!r}", hint=f"mend or remove {package}"
            ) from error

    def _added(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group) if entry.name not in self.built_in}
