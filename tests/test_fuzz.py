"""Every reader of files against mutants of sound ones, for a second each; `python tests/fuzz.py` goes on for hours."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz_targets import make_targets
from fuzzing import Outcome, Target, fuzz, try_one
from surveys import surveyor

INPUTS = 100
"""Of each reader, in the default suite."""

MEMORY_BYTES = 1 << 29
"""Most that the process may grow by; it may have run other tests before."""


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    with surveyor() as running:
        yield make_targets(tmp_path_factory.mktemp("fuzz"), running)


def test_readers_read_or_refuse_whatever_they_are_given(targets: dict[str, Target], tmp_path: Path) -> None:
    before = _peak()
    for target in targets.values():
        sound = tmp_path / f"{target.name}.sound"
        sound.touch(0o600)
        for seed in target.seeds:
            sound.write_bytes(seed)
            outcome = Outcome()
            try_one(target, sound, outcome)
            assert outcome.accepted == 1, (target.name, outcome.refused)
        outcome = fuzz(target, range(INPUTS), tmp_path)
        assert outcome.refused, target.name
    assert _peak() - before < MEMORY_BYTES


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
