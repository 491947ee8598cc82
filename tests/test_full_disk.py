"""Disks that are full, files that may not grow, folders that cannot be written to: an error, and nothing is left."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from datasets import make_case, write_dataset
from series import save, series

from ucadi.commands.init import init
from ucadi.commands.merge import merge
from ucadi.commands.split import split
from ucadi.ct.reading.parallel import ReadJob, read_one
from ucadi.errors import OutputError
from ucadi.files import new_file, new_folder, write_file
from ucadi.formats import dataset, salt
from ucadi.formats.unfailing import Unfailing
from ucadi.labels import Diagnosis
from ucadi.learn.state import EpochRecord
from ucadi.learn.tensorboard import Board

UCADI = [sys.executable, "-c", "from ucadi.cli import main; main()"]


@contextmanager
def no_file_longer_than(most: int) -> Iterator[None]:
    """What the system does where a disk is full, for this process's files: writing fails from there on."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_dataset_that_does_not_fit_leaves_nothing_and_the_library_unharmed(tmp_path: Path, share: float) -> None:
    """HDF5 itself would fail on closing, print from its destructors, and crash at the interpreter's end."""
    whole = write_dataset(tmp_path / "whole.h5", [Diagnosis.COVID] * 8, size=32)
    asked = []

    def cases() -> Iterator[dataset.Case]:
        for number in range(8):
            asked.append(number)
            yield make_case(number, Diagnosis.COVID, 32)

    with (
        no_file_longer_than(int(share * whole.stat().st_size)),
        pytest.raises(OutputError, match=r"b\.h5: not written: File too large"),
    ):
        dataset.write(tmp_path / "b.h5", cases(), [], size=32)
    assert len(asked) <= 2 + 8 * share, "no scan is read for a disk that is full"
    assert [path.name for path in tmp_path.iterdir()] == ["whole.h5"]
    dataset.write(tmp_path / "b.h5", cases(), [], size=32)
    assert (tmp_path / "b.h5").read_bytes() == whole.read_bytes()


def test_preprocess_ends_at_once_with_one_error(tmp_path: Path) -> None:
    for case in "abcdef":
        save(tmp_path / "scans" / case, series(12, seed=ord(case)))
    (tmp_path / "out").mkdir()
    options = ["scans", "--unlabelled", "--min-slices", "5", "--size", "128", "-o", "out/d.h5", "--salt", "salt"]
    command = f"ulimit -f 40; exec {' '.join(map(repr, UCADI))} preprocess {' '.join(options)}"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 7, ended.stderr
    assert "out/d.h5: not written: File too large" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) <= 3
    assert list((tmp_path / "out").iterdir()) == []


WRITERS: dict[str, Callable[[Path, Path], object]] = {
    "init": lambda _, output: init(seed=1, width=8, size=32, output=output),
    "merge": lambda data, output: merge([data], output=output),
    "split": lambda data, output: split(data, output=output, folds=2, test=0.25),
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("most", [0, 100])
def test_a_command_whose_output_does_not_fit(tmp_path: Path, writer: Callable[[Path, Path], object], most: int) -> None:
    data = write_dataset(tmp_path / "data.h5", [Diagnosis(n % 4) for n in range(8)])
    with no_file_longer_than(most), pytest.raises(OutputError, match=r"output: not written: File too large") as caught:
        writer(data, tmp_path / "output")
    assert caught.value.hint == "nothing was left behind; make room and run again"
    assert [path.name for path in tmp_path.iterdir()] == ["data.h5"]


def test_folders_and_secrets_that_do_not_fit(tmp_path: Path) -> None:
    with (
        no_file_longer_than(10),
        pytest.raises(OutputError, match="folder: not written"),
        new_folder(tmp_path / "folder") as part,
    ):
        (part / "page").write_bytes(bytes(100))
    with no_file_longer_than(10), pytest.raises(OutputError, match="salt: not written"):
        salt.read_or_make(tmp_path / "salt")
    assert list(tmp_path.iterdir()) == [], "a salt cut short would be taken for the site's secret"
    assert salt.read_or_make(tmp_path / "salt") == salt.read_or_make(tmp_path / "salt")


def test_a_zip_file_that_cannot_be_unpacked_is_no_bad_scan(tmp_path: Path) -> None:
    """Refused, it would be missing from the dataset, for a temporary folder that was full."""
    import zipfile

    folder = save(tmp_path / "scan", series(4))
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as made:
        for file in folder.iterdir():
            made.write(file, file.name)
    with no_file_longer_than(100), pytest.raises(OutputError, match="File too large") as caught:
        read_one(ReadJob(tmp_path / "scan.zip", 16, 2))
    assert "TMPDIR" in (caught.value.hint or "")


@pytest.mark.parametrize("place", ["/proc/output", "/sys/output", "/dev/null/output", "x" * 300])
def test_places_that_cannot_be_written_to(tmp_path: Path, place: str) -> None:
    with pytest.raises(OutputError) as caught:
        write_file(tmp_path / place, b"x")
    assert caught.value.hint
    with pytest.raises(OutputError), new_folder(tmp_path / place):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_output_s_place_is_kept(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    with pytest.raises(OutputError, match="is a folder: not replaced by a file"):
        write_file(tmp_path / "output", b"x", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_an_error_of_the_block_itself_is_not_taken_for_the_outputs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "output"):
        (tmp_path / "input").read_bytes()


def test_standard_output_that_is_full_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    init(seed=1, width=8, size=32, output=tmp_path / "w")
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([*UCADI, "inspect", tmp_path / "w"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 7
    assert "standard output: not written: No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_what_cannot_be_read_at_all_is_an_error_without_a_traceback() -> None:
    ended = subprocess.run([*UCADI, "roster", "show", "/proc/self/mem"], capture_output=True, text=True)
    assert ended.returncode in (3, 7)
    assert "Traceback" not in ended.stderr


def test_the_file_that_never_fails_keeps_the_first_failure(tmp_path: Path) -> None:
    with no_file_longer_than(3000), Unfailing(tmp_path / "f") as target:
        with h5py.File(target, "w") as file:
            file["a"] = np.arange(1000)
            file["b"] = np.arange(1000)
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                target.check()
    with Unfailing(tmp_path / "f") as target:
        with h5py.File(target, "w") as file:
            file["a"] = np.arange(1000)
            assert (file["a"][()] == np.arange(1000)).all()
        target.check()


def test_tensorboard_s_thread_prints_no_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    record = EpochRecord(0, 1.0, 0.5, None, 0.01)
    with no_file_longer_than(0), pytest.raises(OutputError, match="board: not written: File too large"):
        Board(tmp_path / "board").show([record])
    assert "Traceback" not in capfd.readouterr().err


def test_a_forced_folder_never_takes_other_files_with_it(tmp_path: Path) -> None:
    place = tmp_path / "results"
    with new_folder(place) as part:
        (part / "case-0001").mkdir()
        (part / "case-0002").mkdir()
    with new_folder(place, force=True) as part:  # the same kind of folder, with fewer cases
        (part / "case-0007").mkdir()
    (place / "thesis.docx").write_bytes(b"years of work")
    said = r"results: not replaced, as it also holds thesis\.docx"
    with pytest.raises(OutputError, match=said), new_folder(place, force=True) as part:
        (part / "case-0007").mkdir()
    assert (place / "thesis.docx").read_bytes() == b"years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
