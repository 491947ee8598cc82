"""Statements: what is written is read, and a word that is none is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ucadi.errors import FormatError, Unsound
from ucadi.formats import statement as statement_format
from ucadi.formats.signed import sign, write_document
from ucadi.formats.statement import Statement, Vote
from ucadi.identity import SecretKeys

KEYS = SecretKeys.generate("site-a")
PLAN = "a" * 64


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    void=st.none() | st.sampled_from(Unsound),
    vote=st.none() | st.sampled_from(Vote),
    false=st.sets(st.from_regex(r"\A[a-z]{1,8}\Z"), max_size=5),
)
def test_what_is_written_is_read(tmp_path: Path, void: Unsound | None, vote: Vote | None, false: set[str]) -> None:
    model = None if void else "b" * 64
    said = Statement("site-a", PLAN, model, (), {}, {}, void=void, false_shares=tuple(sorted(false)), vote=vote)
    statement_format.write(tmp_path / "said.json", said, KEYS, force=True)
    assert statement_format.read(tmp_path / "said.json", KEYS.public) == said


WRONG: dict[str, dict[str, Any]] = {
    "a reason that is none": {"void": "quorum"},
    "a reason that is a list": {"void": ["weight"]},
    "a reason that is a truth value": {"void": True},
    "no word on the sum": {"void": ...},
    "a model of a void round": {"void": "weight", "model": "b" * 64},
    "a vote that is none": {"vote": "better"},
    "a vote that is a number": {"vote": 1},
    "no word on a vote": {"vote": ...},
    "liars that are no list": {"false_shares": "site-b"},
    "liars that are numbers": {"false_shares": [1]},
    "a liar twice": {"false_shares": ["site-b", "site-b"]},
    "liars out of order": {"false_shares": ["site-c", "site-b"]},
    "a liar whose name is a path": {"false_shares": ["../site-b"]},
    "a liar whose name a terminal would obey": {"false_shares": ["\x1b[2J"]},
    "more liars than members can be": {"false_shares": [f"s{i:05}" for i in range(10_001)]},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_what_a_statement_may_not_say(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "said.json"
    statement_format.write(path, Statement("site-a", PLAN), KEYS)
    document = {**json.loads(path.read_text()), **change}
    kept = {key: value for key, value in document.items() if value is not ... and key != "signature"}
    write_document(path, sign(kept, KEYS), force=True)
    with pytest.raises(FormatError) as caught:
        statement_format.read(path, KEYS.public)
    assert caught.value.message.startswith("said.json: ")
    assert caught.value.hint
