"""Hostile and damaged files: each is an error that names it, at the command line too; and none stops honest sites."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from commandline import invoke
from datasets import write_dataset
from exchanges import Rounds
from federation import make_federation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from looping import Hub, make_hub
from places import CORPUS

from ucadi.commands.audit import audit
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.verify import verify
from ucadi.ct.reading import nifti
from ucadi.errors import FormatError, UcadiError
from ucadi.formats import caselist, container, dataset, hdf5, operating_point, schedules
from ucadi.formats import keys as key_format
from ucadi.formats.container import tensor_digest
from ucadi.formats.exchange import Exchange
from ucadi.formats.signed import sign
from ucadi.kinds import Kind
from ucadi.labels import Diagnosis
from ucadi.learn.networks.registry import restore

CORPUS = sorted(CORPUS.iterdir())

READERS: dict[str, Callable[[Path], object]] = {
    ".nii": nifti.read,
    ".labels.csv": caselist.read,
    ".recipe.toml": schedules.read_recipe,
    ".report.json": lambda path: operating_point.read(path, "a" * 64),
}
"""Of what `ucadi inspect` does not know."""

COMMANDS = {
    ".predictions": (["evaluate", "FILE"], ["histogram", "FILE", "-o", "OUTPUT"]),
    ".histogram": (["histogram", "FILE", "-o", "OUTPUT"],),
    ".h5": (["merge", "FILE", "-o", "OUTPUT"],),
    ".weights": (),
    ".plan.json": (),
    ".enc": (),
}
"""What is run on a file of the corpus beside `inspect`."""


def run(*arguments: object) -> tuple[int, str]:
    """A command's exit code and what it prints; an exception that is no UcadiError is not caught."""
    result = invoke(*arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout + result.stderr


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_each_file_of_the_corpus_is_an_error_that_names_it(path: Path, tmp_path: Path) -> None:
    """What fuzzing and attacks have found, kept so that it is never found again."""
    for suffix, read in READERS.items():
        if path.name.endswith(suffix):
            with pytest.raises(UcadiError):
                read(path)
            return
    commands = next(found for suffix, found in COMMANDS.items() if path.name.endswith(suffix))
    for command in commands:
        chosen = {"FILE": path, "OUTPUT": tmp_path / "output"}
        code, said = run(*(chosen.get(word, word) for word in command))
        assert code == 3, said
        assert path.name in said
        assert not list(tmp_path.iterdir())
    code, said = run("inspect", path)
    assert code in (0, 3), said
    assert all(line.isprintable() for line in said.splitlines())
    shown = ("crashes-the-library.h5", "words-that-a-terminal-obeys.weights", "a-network-beyond-memory.weights")
    assert (code == 0) == (path.name in shown), said


def test_a_network_beyond_memory_is_refused_before_it_is_built() -> None:
    path = next(path for path in CORPUS if path.name == "a-network-beyond-memory.weights")
    held = container.read(path)
    with pytest.raises(UcadiError):
        restore(held.metadata["architecture"], {})
    wide = {"name": "densenet3d", "width": 1000, "blocks": [9, 9, 9], "slices": 16, "size": 64, "classes": 4}
    with pytest.raises(UcadiError, match="do not fit the network"):
        restore(wide, held.tensors)


# --- HDF5 ---------------------------------------------------------------------------------------------------


def test_what_crashes_the_library_crashes_no_command() -> None:
    """The library alone dies of this file; so the process that reads it must be another one."""
    (path,) = (path for path in CORPUS if path.suffix == ".h5")
    reading = "[case[name][()] for case in file['cases'].values() for name in ('affine', 'volume')]"
    alone = f"import h5py, sys; file = h5py.File(sys.argv[1]); {reading}"
    assert subprocess.run([sys.executable, "-c", alone, path], capture_output=True).returncode != 0
    with dataset.open(path) as data:
        outcomes = [_outcome(data, index) for index in range(len(data))]
    assert "damaged" in " ".join(outcomes)


def _outcome(data: dataset.Dataset, index: int) -> str:
    try:
        data.case(index)
    except FormatError as error:
        return error.message
    return "read"


def test_reading_does_not_load_the_library() -> None:
    code = "import sys, ucadi.formats.hdf5; sys.exit('h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 99), shape=st.tuples(*[st.integers(1, 9)] * 3), spread=st.integers(0, 15))
def test_arrays_are_read_as_the_library_reads_them(
    tmp_path: Path, seed: int, shape: tuple[int, int, int], spread: int
) -> None:
    """Noise is stored undeflated, as deflating gains nothing; odd sizes leave the checksum half a word."""
    path = tmp_path / "a.h5"
    high = 1 << spread
    data = np.random.default_rng(seed).integers(-high, high, shape).astype("<i2")
    with h5py.File(path, "w") as file:
        options = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset("sliced", data=data, chunks=(1, *shape[1:]), **options)
        file.create_dataset("bytes", data=data.astype("u1"), chunks=(1, *shape[1:]), fletcher32=True)
        file.create_dataset("whole", data=data)
        file["text"] = np.zeros(3)
    with hdf5.opened_file(path) as root:
        assert (root.array("sliced", "<i2", 3).whole() == data).all()
        assert (root.array("bytes", "u1", 3).whole() == data.astype("u1")).all()
        assert (root.array("whole", "<i2", 3).whole() == data).all()
        assert (root.array("sliced", "<i2", 3).part(0) == data[0]).all()
        with pytest.raises(FormatError, match="whole"):
            root.array("whole", "<i4", 3)


def test_chunks_that_share_their_bytes_cannot_claim_memory(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "a.h5", [Diagnosis.COVID])

    def shared(place: Path) -> list[hdf5.Said]:
        said = list(hdf5.survey(place))
        for group in said:
            if "volume" in group["arrays"]:
                group["arrays"]["volume"]["pieces"] = [group["arrays"]["volume"]["pieces"][0]] * 20
        return said

    with hdf5.opened_file(path, lambda place: iter(shared(place))) as root:
        held = dataset.Dataset(path, root)
        with pytest.raises(FormatError, match="twice in one place"):
            held.volume(0)


def test_a_survey_that_does_not_come_to_its_end_is_an_error(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "a.h5", [Diagnosis.COVID])
    lines = [b'{"group": "/", "attributes": {}, "arrays": {}}\n', b'{"gro']
    for told in (lines, lines[:1], [], [b"[]\n"], [b'{"group": 1}\n', b'{"end": true}\n']):
        with (
            pytest.raises(FormatError, match=r"a\.h5"),
            hdf5.opened_file(
                path,
                lambda place, told=told: hdf5.understood(told, place.name),  # type: ignore[misc]
            ),
        ):
            pass


# --- exchange directories -----------------------------------------------------------------------------------


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


def a_folder(path: Path) -> None:
    (path / "x").mkdir(parents=True)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


ODD: dict[str, Callable[[Path], None]] = {f.__name__: f for f in (a_pipe, a_link, a_loop, a_folder, a_device)}


@pytest.fixture(scope="module")
def summed(tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    """A round whose uploads are here. Not to be changed."""
    folder = tmp_path_factory.mktemp("summed")
    rounds = Rounds.begin(make_federation(folder), folder / "exchange")
    rounds.open(1, quorum=2)
    for site in rounds.federation.sites:
        rounds.upload(1, site)
    return rounds


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_what_is_no_file_is_not_seen_and_stops_nobody(
    summed: Rounds, tmp_path: Path, odd: Callable[[Path], None]
) -> None:
    own = summed.copy(tmp_path / "own")
    round_folder = own.exchange.plan(1).parent
    own.exchange.path(Kind.UPLOAD, 1, "site-c").unlink()
    for name in ("receipt.json", "sum.enc", ".closing", "uploads/site-c.enc", "partials", "metrics", "handover"):
        odd(round_folder / name)
    odd(own.exchange.model(2))
    began = time.perf_counter()
    (standing,) = verify([own.exchange.root]).rounds
    assert (standing.state, standing.contributed) == ("open", ("site-a", "site-b"))
    (audited,) = audit(own.exchange.root).rounds
    assert audited.status == "open"
    assert own.close(1).sites == ("site-a", "site-b")
    assert own.exchange.has(Kind.RECEIPT, 1)
    assert (audit(own.exchange.root).rounds[0]).status == "closed"
    assert time.perf_counter() - began < 60
    aside = [path.name for path in round_folder.iterdir() if path.name.endswith(".aside")]
    assert len(aside) == 3, "moved out of the way, and kept"


def test_a_linked_folder_is_not_looked_into(summed: Rounds, tmp_path: Path) -> None:
    own = summed.copy(tmp_path / "own")
    uploads = own.exchange.uploads(1)
    uploads.rename(tmp_path / "elsewhere")
    uploads.symlink_to(tmp_path / "elsewhere")
    (standing,) = verify([own.exchange.root]).rounds
    assert (standing.contributed, standing.strays) == ((), ())
    assert not own.exchange.has(Kind.UPLOAD, 1, "site-a")
    place = own.exchange.make_place(Kind.UPLOAD, 1, "site-a")
    assert not place.parent.is_symlink()


def test_an_upload_without_values_of_a_huge_shape_is_refused_by_its_name(summed: Rounds, tmp_path: Path) -> None:
    own = summed.copy(tmp_path / "own")
    (bad,) = (path for path in CORPUS if path.suffix == ".enc")
    shutil.copy(bad, own.exchange.path(Kind.UPLOAD, 1, "site-c"))
    assert own.close(1).sites == ("site-a", "site-b")
    (standing,) = verify([own.exchange.root]).rounds
    assert list(standing.refused) == ["site-c.enc"]


@pytest.mark.slow
def test_in_a_federation_one_member_writes_hostile_files_of_every_kind(tmp_path: Path) -> None:
    """Round after round, in a shared folder: in the member's own places, and where others are about to write.

    The honest sites and the coordinator finish every round, and have the same model.
    """
    kinds = [*ODD.values(), _huge_shape, _junk, _signed_nonsense]
    everyone = make_hub(
        tmp_path / "hub", ("a", "b", "c", "d"), rounds=len(kinds), threshold=3, minimum_sites=3, quorum=3
    )
    honest = Hub(everyone.folder, ("a", "b", "c"))
    exchange = Exchange(honest.exchange)
    for number, hostile in enumerate(kinds, start=1):
        for kind in (Kind.UPLOAD, Kind.TAG, Kind.METRICS, Kind.HANDOVER, Kind.OPENED):
            _plant(hostile, exchange.path(kind, number, "d"))
        for kind in (Kind.UPLOAD, Kind.TAG, Kind.PARTIAL, Kind.METRICS):
            _plant(hostile, exchange.path(kind, number, "a"))
        if hostile in ODD.values():
            for path in (exchange.receipt(number), exchange.sum(number), exchange.plan(number + 1).parent):
                _plant(hostile, path)
        for site in honest.sites:
            honest.site(site)
        honest.coordinate(deadline=0)
        _answer_badly(everyone, number, hostile)
        for _ in range(3):
            for site in honest.sites:
                honest.site(site)
        result = honest.coordinate(deadline=1e9)
    assert set(result.rounds.values()) == {"closed"}
    assert result.waiting_for is None
    assert result.model is not None
    for site in honest.sites:
        assert (honest.work(site) / f"{result.model}.weights").exists()
    assert [set(missing) for missing in result.missing.values()] == [{"d"}] * len(kinds)
    assert {one.status for one in audit(honest.exchange).rounds} == {"closed"}


def _plant(hostile: Callable[[Path], None], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    hostile(path)


def _huge_shape(path: Path) -> None:
    (bad,) = (file for file in CORPUS if file.suffix == ".enc")
    shutil.copy(bad, path)


def _junk(path: Path) -> None:
    path.write_bytes(b"{" * 999)


def _signed_nonsense(path: Path) -> None:
    """Something of another kind than its place is for, where nothing can be signed yet."""
    shutil.copy(path.parents[3] / "federation.json", path)


def _answer_badly(hub: Hub, number: int, hostile: Callable[[Path], None]) -> None:
    """The member's answer for the sum: what its other files are, or one that it signs, and that opens for nobody."""
    exchange = Exchange(hub.exchange)
    path = exchange.path(Kind.PARTIAL, number, "d")
    if hostile is not _signed_nonsense:
        _plant(hostile, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    documents = {"plan": exchange.plan(number), "roster": exchange.roster(number), "key": hub.key("d")}
    partial_decrypt(exchange.sum(number), output=path, **documents)
    held = container.read(path)
    tensors = {name: np.zeros_like(tensor) for name, tensor in held.tensors.items()}
    digests = {name: tensor_digest(tensor) for name, tensor in tensors.items()}
    container.write(
        path, tensors, sign({**held.metadata, "digests": digests}, key_format.read_key(hub.key("d"))), force=True
    )
