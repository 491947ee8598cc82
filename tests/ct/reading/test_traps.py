"""Every trap of docs/preprocess.md: the volume is right, or it is refused or flagged in as many words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from traps import TRAPS, Trap, stack, verdict

from ucadi.ct.reading.parallel import ReadJob, read_one
from ucadi.ct.reading.refusals import RefusedError
from ucadi.ct.reading.scan import Scan

UNREMARKABLE = {"little-lung", "lung-cut-off-feet", "lung-cut-off-head", "short-extent", "units-doubtful"}
"""What is observed in the field of the traps, which is no chest."""


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_trap(trap: Trap, tmp_path: Path) -> None:
    outcome = read_one(ReadJob(trap.build(tmp_path), None, 15))
    if trap.reason:
        assert isinstance(outcome, RefusedError)
        assert outcome.reason.value == trap.reason
        return
    assert isinstance(outcome, Scan), outcome
    if trap.flag:
        assert trap.flag in outcome.flags
    else:
        assert set(outcome.flags) <= UNREMARKABLE
    if trap.extent is not None:
        assert verdict(trap, outcome.volume.hu, outcome.volume.affine) == ""


def test_the_judge_sees_what_is_wrong(tmp_path: Path) -> None:
    """Of a right volume moved, stretched, mirrored, turned over, shortened or brightened."""
    trap = TRAPS[1]
    scan = read_one(ReadJob(trap.build(tmp_path), None, 15))
    assert isinstance(scan, Scan)
    hu, affine = scan.volume.hu, scan.volume.affine
    moved, stretched = affine.copy(), affine.copy()
    moved[2, 3] += 1
    stretched[2, 0] *= 1.1
    for wrong in ((hu, moved), (hu, stretched), (hu[:, :, ::-1], affine), (hu[::-1], affine), (hu[:50], affine)):
        assert verdict(trap, *wrong) != ""
    assert verdict(trap, np.where(hu > 0, hu + 3, hu), affine) != ""


def test_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    """A whole study: every series that is not used stands in the list, with its reason."""
    scan = read_one(ReadJob(TRAPS[0].build(tmp_path), None, 10))
    assert isinstance(scan, Scan)
    assert {(s.uid, s.reason.value, s.slices) for s in scan.set_aside} == {
        ("1.2.3.0", "localizer", 1),
        ("1.2.3.1", "reformatted", 40),
        ("1.2.3.2", "not-chosen", 15),
        ("1.2.3.3", "not-chosen", 60),
        ("1.2.3.9", "secondary-capture", 1),
    }
    assert scan.uid == "1.2.3.4"


def test_the_localizer_inside_is_counted(tmp_path: Path) -> None:
    (trap,) = (trap for trap in TRAPS if "localizer inside" in trap.name)
    scan = read_one(ReadJob(trap.build(tmp_path), None, 15))
    assert isinstance(scan, Scan)
    assert [(s.reason.value, s.slices) for s in scan.set_aside] == [("not-axial", 1)]


@pytest.mark.parametrize("name", ["two slices truncated", "two slices in an unknown private transfer syntax"])
def test_what_cannot_be_read_is_named_and_interpolated(tmp_path: Path, name: str) -> None:
    (trap,) = (trap for trap in TRAPS if trap.name == name)
    scan = read_one(ReadJob(trap.build(tmp_path), None, 15))
    assert isinstance(scan, Scan)
    named = {*scan.unreadable, *(f"{s.slices} {s.reason.value}" for s in scan.set_aside)}
    assert named in ({"0020.dcm", "0040.dcm"}, {"2 no-decoder"})
    assert scan.interpolated == 2


def test_nothing_climbs_out_of_a_zip(tmp_path: Path) -> None:
    (trap,) = (trap for trap in TRAPS if trap.name.startswith("zip"))
    read_one(ReadJob(trap.build(tmp_path / "a" / "b"), None, 15))
    assert not list(tmp_path.parent.rglob("climbed*"))


def test_a_folder_of_two_patients_is_flagged(tmp_path: Path) -> None:
    from series import save

    save(tmp_path / "a", stack(range(20), PatientID="1", SeriesInstanceUID="1.2.1"))
    save(tmp_path / "a", stack(range(15), PatientID="2", SeriesInstanceUID="1.2.2"))
    scan = read_one(ReadJob(tmp_path / "a", None, 10))
    assert isinstance(scan, Scan)
    assert "several-patients" in scan.flags
