"""The page on security says what the code computes."""

from __future__ import annotations

import pytest
from places import ROOT

from ucadi.lwe.parameters import NOISE_BOUND, Packing

PAGE = (ROOT / "docs" / "security.md").read_text()

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("| sites K |")[2].partition("## ")[0].splitlines()
    if line.startswith("| ") and line[2].isdigit()
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_failure_probabilities(row: list[str]) -> None:
    packing = Packing(int(row[0]))
    bounds = [f"{packing.failure_bound(values):.1f}" for values in (730_000, 100_000_000)]
    assert row[1:] == [str(packing.noise_bits), str(packing.value_bits), *bounds]


def test_the_page_has_its_table_and_parameters() -> None:
    assert len(ROWS) >= 5
    assert f"most {NOISE_BOUND}." in PAGE
