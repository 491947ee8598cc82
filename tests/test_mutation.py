"""The mutation run's own judgement: which changes are of wording alone."""

from __future__ import annotations

import ast

import pytest
from mutation import changed_lines, only_wording

BEFORE = """
def check(x):
    assert x, "no x"
    if x > 3:
        raise UsageError(f"{x + 1} is {'too much' if x else 'odd'}", hint="ask " + "for less")
    return "much"
"""


@pytest.mark.parametrize(
    ("old", "new", "wording"),
    [
        ("no x", "NO X", True),
        ("too much", "TOO MUCH", True),
        (" is ", " was ", True),
        ("for less", "XXfor lessXX", True),
        ('"much"', '"MUCH"', False),
        ("x > 3", "x >= 3", False),
        ("x + 1", "x - 1", False),
        ('hint="ask " + "for less"', "hint=None", False),
        (', hint="ask " + "for less"', "", False),
        ("UsageError", "FormatError", False),
    ],
)
def test_wording_is_text_that_an_error_is_given(old: str, new: str, wording: bool) -> None:
    after = BEFORE.replace(old, new, 1)
    assert after != BEFORE
    assert only_wording(ast.parse(BEFORE), ast.parse(after)) is wording


def test_a_change_is_told_by_its_line() -> None:
    before, after = (ast.parse(text).body[0] for text in (BEFORE, BEFORE.replace("x > 3", "x >= 3")))
    assert isinstance(before, ast.FunctionDef)
    assert isinstance(after, ast.FunctionDef)
    assert changed_lines(before, after) == ("if x > 3:", "if x >= 3:")
