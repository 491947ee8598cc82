"""Errors in tests: not only that there is one, but what it says and which way out it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ucadi.errors import UcadiError


@contextmanager
def raises_with_hint(error: type[UcadiError], message: str, hint: str) -> Iterator[None]:
    """What is done here raises `error`; `message` and `hint` are regular expressions for parts of what it says."""
    with pytest.raises(error, match=message) as caught:
        yield
    assert re.search(hint, caught.value.hint or "no hint"), caught.value.hint
