"""Commands that run at once and write to one place: one of them wins, whatever the file system can do."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from federation import Federation, make_federation

from ucadi.commands.encrypt import encrypt
from ucadi.commands.keygen import keygen
from ucadi.errors import OutputError
from ucadi.files import claim_file, new_folder, write_file
from ucadi.formats import keys as key_format

RACERS = 4
PROCESSES = multiprocessing.get_context("fork")

Racer = Callable[[int], object]


def race(racer: Racer, folder: Path) -> list[int]:
    """Those of the processes, by number, that say they succeeded; the others must have failed with an OutputError."""
    barrier = PROCESSES.Barrier(RACERS)
    processes = [PROCESSES.Process(target=_run, args=(racer, number, barrier, folder)) for number in range(RACERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert {process.exitcode for process in processes} <= {0, OutputError.exit_code}
    return [number for number, process in enumerate(processes) if process.exitcode == 0]


def _run(racer: Racer, number: int, barrier: Barrier, folder: Path) -> None:
    os.chdir(folder)
    barrier.wait()
    try:
        racer(number)
    except OutputError as error:
        os._exit(OutputError.exit_code if "exists already" in error.message else 1)
    os._exit(0)


@pytest.fixture(params=["links", "no links"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one of this machine, and one whose files have one name each, as a stick's."""
    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse_links)


def refuse_links(source: Path, target: Path, **_: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(target))


@pytest.mark.usefixtures("file_system")
def test_of_two_key_makers_one_wins_and_its_card_fits(tmp_path: Path) -> None:
    for attempt in range(25):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        won = race(lambda _, here=folder: keygen("site-a", output=here), folder)  # type: ignore[misc]
        assert len(won) == 1
        keys = key_format.read_key(folder / "site-a.key")
        assert key_format.read_card(folder / "site-a.card").keys == keys.public
        assert sorted(path.name for path in folder.iterdir()) == ["site-a.card", "site-a.key", "site-a.ledger"]


@pytest.mark.usefixtures("file_system")
def test_of_writers_to_one_place_one_wins(tmp_path: Path) -> None:
    for attempt in range(25):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        (winner,) = race(lambda number, x=folder / "x": write_file(x, b"%d" % number * 1000), folder)  # type: ignore[misc]
        assert (folder / "x").read_bytes() == b"%d" % winner * 1000
        assert [path.name for path in folder.iterdir()] == ["x"]


@pytest.mark.usefixtures("file_system")
def test_of_claims_one_is_heard(tmp_path: Path) -> None:
    def claim(number: int) -> None:
        if not claim_file(tmp_path / f"{attempt}", b"%d" % number):
            raise OutputError("exists already")

    for attempt in range(25):
        (winner,) = race(claim, tmp_path)
        assert (tmp_path / f"{attempt}").read_bytes() == b"%d" % winner


def test_of_folders_one_is_made(tmp_path: Path) -> None:
    def make(number: int) -> None:
        with new_folder(tmp_path / f"{attempt}") as part:
            (part / "page").write_bytes(b"%d" % number)

    for attempt in range(25):
        (winner,) = race(make, tmp_path)
        assert (tmp_path / f"{attempt}" / "page").read_bytes() == b"%d" % winner
    assert len(list(tmp_path.iterdir())) == 25


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return make_federation(tmp_path_factory.mktemp("federation"))


def test_of_two_encryptions_one_is_written(federation: Federation, tmp_path: Path) -> None:
    options = {"plan": federation.plan, "roster": federation.roster, "key": federation.key("site-a")}
    for attempt in range(8):
        output = tmp_path / f"{attempt}.enc"
        won = race(lambda _, o=output: encrypt(federation.update("site-a"), output=o, **options), tmp_path)  # type: ignore[misc]
        assert len(won) == 1


@pytest.mark.usefixtures("file_system")
def test_with_force_the_last_one_stays(tmp_path: Path) -> None:
    won = race(lambda number: write_file(tmp_path / "x", b"%d" % number, force=True), tmp_path)
    assert won == list(range(RACERS))
    assert int((tmp_path / "x").read_bytes()) in won


@pytest.mark.usefixtures("file_system")
def test_a_link_that_leads_nowhere_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")
    for write in (write_file, claim_or_refuse):
        with pytest.raises(OutputError, match="exists already"):
            write(tmp_path / "x", b"mine")
    assert not (tmp_path / "elsewhere").exists()


def claim_or_refuse(path: Path, data: bytes) -> None:
    if not claim_file(path, data):
        raise OutputError("exists already")


def test_whoever_holds_a_folder_and_dies_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse_links)

    def die(_source: Path, _target: Path) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying() -> None:
        Path.rename = die  # type: ignore[assignment,method-assign]
        write_file(tmp_path / "x", b"dead")

    process = PROCESSES.Process(target=dying)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    write_file(tmp_path / "x", b"alive")
    assert (tmp_path / "x").read_bytes() == b"alive"


def test_a_card_that_cannot_be_made_leaves_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next keygen of that name would be refused, for a key that nobody has the card of."""
    link = os.link

    def quicker(source: Path, target: Path, **options: object) -> None:
        if Path(target).suffix == ".card":
            Path(target).write_text("somebody else's")
        link(source, target, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", quicker)
    with pytest.raises(OutputError, match=r"site-a\.card: exists already"):
        keygen("site-a", output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["site-a.card"]
