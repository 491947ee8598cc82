"""Progress of long work, reported through one hook so that libraries stay free of any display.

Code wraps what it loops over in `track`; the command line installs a renderer on stderr with
`show_with`. Without one, `track` is just its iterable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

Renderer = Callable[[Iterable[T], str, int | None], Iterator[T]]
"""A renderer takes what `track` takes and yields the same items while it shows how far they are."""

Writer = Callable[[str], None]
"""Shows a line beside the progress."""

_renderer: Renderer[object] | None = None
_writer: Writer | None = None


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yields `items`, showing `label` and how many of `total` are done (default: their length, if known)."""
    if _renderer is None:
        yield from items
        return
    if total is None:
        total = len(items) if isinstance(items, Sized) else None
    yield from _renderer(items, label, total)  # type: ignore[misc]


def note(line: str) -> None:
    """Shows a line about how the work goes, where anything is shown."""
    if _writer is not None:
        _writer(line)


@contextmanager
def show_with(renderer: Renderer[object], writer: Writer | None = None) -> Iterator[None]:
    """Shows progress with `renderer`, and notes with `writer`, as long as the context lasts."""
    global _renderer, _writer
    previous = _renderer, _writer
    _renderer, _writer = renderer, writer
    try:
        yield
    finally:
        _renderer, _writer = previous
