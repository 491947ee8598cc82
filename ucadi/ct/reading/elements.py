"""Elements of a DICOM data set as plain Python values; what is malformed reads as absent."""

from __future__ import annotations

import math

from pydicom.dataset import Dataset


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """An element's `count` finite numbers, or None if it is absent, empty, malformed or has another number of them."""
    try:
        value = dataset.get(keyword)
        if value is None or isinstance(value, str | bytes):
            return None
        found = tuple(float(part) for part in (value if hasattr(value, "__iter__") else (value,)))
    except (ValueError, TypeError, OverflowError, AttributeError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def number(dataset: Dataset, keyword: str) -> float | None:
    """An element's only number, or None."""
    found = numbers(dataset, keyword, 1)
    return None if found is None else found[0]


def integer(dataset: Dataset, keyword: str, default: int = 0) -> int:
    """An element's only number without its fraction, or the default."""
    found = numbers(dataset, keyword, 1)
    return default if found is None else int(found[0])


def words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """An element's values as text, without empty ones."""
    try:
        value = dataset.get(keyword)
    except (ValueError, TypeError, OverflowError, AttributeError):
        return ()
    values = () if value is None else (value,) if isinstance(value, str | int | float) else tuple(value)
    return tuple(str(part).strip() for part in values if str(part).strip())


def text(dataset: Dataset, keyword: str) -> str:
    """An element's values in one string, separated as in the file."""
    return "\\".join(words(dataset, keyword))
