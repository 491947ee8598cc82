"""Carrying a round by hand: a courier's file brings what a site needs, twice if need be, and nothing hostile."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from exchanges import Rounds
from federation import make_federation

from ucadi.commands.courier import courier_pack, courier_unpack
from ucadi.commands.keygen import keygen
from ucadi.commands.roster import roster_add
from ucadi.errors import FormatError, MismatchError, OutputError, SignatureError, UcadiError
from ucadi.formats.container import canonical_json
from ucadi.formats.exchange import Exchange
from ucadi.kinds import Kind, Place

SITES = ("site-a", "site-b", "site-c")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    """Threshold mode, three of three; round 1 is closed and two holders have answered. Not to be changed."""
    folder = tmp_path_factory.mktemp("federation")
    rounds = Rounds.begin(make_federation(folder, SITES, minimum_sites=3, threshold=3), folder / "exchange")
    rounds.open(1)
    for site in SITES:
        rounds.upload(1, site)
    rounds.close(1)
    for site in SITES[:2]:
        rounds.answer(1, site)
    return rounds


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The empty exchange directory of a site."""
    path = tmp_path / "site-c"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def stick(made: Rounds, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What site-c is brought. Not to be changed."""
    path = tmp_path_factory.mktemp("stick") / "site-c.tar"
    courier_pack(made.exchange.root, receiver="site-c", output=path)
    return path


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def unpack(made: Rounds, stick: Path, exchange: Path) -> tuple[str, ...]:
    return courier_unpack(stick, exchange, roster=made.federation.roster).unpacked


# --- what travels -----------------------------------------------------------------------------------


def test_a_site_gets_what_it_needs_and_nobodys_upload(made: Rounds, stick: Path, site: Path) -> None:
    names = [
        "consents/site-a-0001.json",
        "consents/site-b-0001.json",
        "federation.json",
        "models/0001.weights",
        "rounds/0001/partials/site-a.partial",
        "rounds/0001/partials/site-b.partial",
        "rounds/0001/plan.json",
        "rounds/0001/receipt.json",
        "rounds/0001/sum.enc",
    ]
    assert list(unpack(made, stick, site)) == names
    assert files(site) == {name: (made.exchange.root / name).read_bytes() for name in names}


def test_air_gapped_a_site_opens_the_sum_and_the_coordinator_gets_what_it_made(
    made: Rounds, stick: Path, site: Path, tmp_path: Path
) -> None:
    unpack(made, stick, site)
    own_consent = Place(Kind.CONSENT, 1, "site-c").name
    shutil.copy(made.exchange.root / own_consent, site / own_consent)  # made there
    away = Rounds(made.federation, Exchange(site))
    away.answer(1, "site-c")
    away.lead_on(1, "site-c")
    back = tmp_path / "back.tar"
    packed = courier_pack(site, receiver="coordinator", output=back)
    assert packed.left_out == ("rounds/0001/opened/site-c.aggregate",), "no statement of the site names it"
    assert packed.files == (
        "consents/site-a-0001.json",
        "consents/site-b-0001.json",
        "consents/site-c-0001.json",
        "rounds/0001/partials/site-a.partial",
        "rounds/0001/partials/site-b.partial",
        "rounds/0001/partials/site-c.partial",
    )
    own = made.copy(tmp_path / "coordinator")
    assert unpack(made, back, own.exchange.root) == ("rounds/0001/partials/site-c.partial",)


def test_the_same_files_are_the_same_bytes_and_an_ordinary_tar(made: Rounds, stick: Path, tmp_path: Path) -> None:
    own = made.copy(tmp_path / "copy")
    for path in own.exchange.root.rglob("*"):
        os.utime(path, (1, 1))
    courier_pack(own.exchange.root, receiver="site-c", output=tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == stick.read_bytes()
    with tarfile.open(stick) as tar:
        assert tar.getnames()[0] == "manifest.json"
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in tar} == {(0, 0, "", 0o644)}
    listed = subprocess.run(["tar", "tf", str(stick)], capture_output=True, text=True, check=True)
    assert (listed.stdout.splitlines()[3], listed.stderr) == ("federation.json", "")


def test_a_sum_without_a_receipt_and_a_model_without_a_plan_stay(made: Rounds, tmp_path: Path) -> None:
    own = made.copy(tmp_path / "copy")
    own.exchange.receipt(1).unlink()
    shutil.copy(own.exchange.model(1), own.exchange.model(2))
    packed = courier_pack(own.exchange.root, receiver="site-c", output=tmp_path / "x.tar")
    consents = ("consents/site-a-0001.json", "consents/site-b-0001.json")
    assert packed.files == (*consents, "federation.json", "models/0001.weights", "rounds/0001/plan.json")


def test_a_site_that_has_just_joined(made: Rounds, tmp_path: Path) -> None:
    own = made.copy(tmp_path / "copy")
    keygen("site-d", output=tmp_path)
    joined, key = own.exchange.root / "federation-0002.json", made.federation.key("coordinator")
    roster_add([tmp_path / "site-d.card"], roster=own.exchange.roster(1), key=key, output=joined)
    packed = courier_pack(own.exchange.root, receiver="site-d", output=tmp_path / "x.tar")
    (tmp_path / "site-d").mkdir()
    assert courier_unpack(tmp_path / "x.tar", tmp_path / "site-d", roster=joined).unpacked == packed.files


def test_packing_for_a_stranger(made: Rounds, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="site-z is not in the roster"):
        courier_pack(made.exchange.root, receiver="site-z", output=tmp_path / "x.tar")
    assert not list(tmp_path.iterdir())


# --- bringing it ------------------------------------------------------------------------------------


def test_a_stick_brought_twice_and_an_older_one_add_nothing(
    made: Rounds, stick: Path, site: Path, tmp_path: Path
) -> None:
    own = made.copy(tmp_path / "copy")
    shutil.rmtree(own.exchange.root / "rounds/0001/partials")
    courier_pack(own.exchange.root, receiver="site-c", output=tmp_path / "older.tar")
    assert len(unpack(made, tmp_path / "older.tar", site)) == 7
    assert len(unpack(made, stick, site)) == 2
    before = files(site)
    assert unpack(made, stick, site) == unpack(made, tmp_path / "older.tar", site) == ()
    assert files(site) == before


def test_another_receipt_of_the_coordinators_is_named_and_nothing_is_written(
    made: Rounds, stick: Path, tmp_path: Path
) -> None:
    own = made.copy(tmp_path / "copy")
    for name in ("sum.enc", "receipt.json", "uploads/site-c.enc"):
        (own.exchange.root / "rounds/0001" / name).unlink()
    with pytest.raises(MismatchError, match="round 1 is void"):
        own.close(1)
    before = files(own.exchange.root)
    with pytest.raises(MismatchError, match=r"rounds/0001/receipt.json is here already, with other content"):
        unpack(made, stick, own.exchange.root)
    assert files(own.exchange.root) == before


@pytest.mark.parametrize("name", ["federation.json", "rounds/0001/plan.json", "rounds/0001/receipt.json"])
def test_what_nobody_signed_gives_way(made: Rounds, stick: Path, site: Path, name: str) -> None:
    (site / name).parent.mkdir(parents=True, exist_ok=True)
    (site / name).write_text("mine")
    assert len(unpack(made, stick, site)) == 9
    assert (site / name).read_bytes() == (made.exchange.root / name).read_bytes()
    assert [data for name, data in files(site).items() if ".aside" in name] == [b"mine"]


@pytest.mark.parametrize("name", ["rounds", "rounds/0001", "rounds/0001/plan.json"])
def test_links_in_the_exchange_lead_nowhere(made: Rounds, stick: Path, site: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (site / name).parent.mkdir(parents=True, exist_ok=True)
    (site / name).symlink_to(tmp_path / "elsewhere")
    assert len(unpack(made, stick, site)) == 9
    assert not list((tmp_path / "elsewhere").iterdir())
    assert not (site / name).is_symlink()


def test_no_room(made: Rounds, stick: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OutputError, match="no room for"):
        unpack(made, stick, site)
    assert not files(site)


UNPACK = """
import sys
from pathlib import Path
from ucadi.commands.courier import courier_unpack
print("ready", flush=True)
courier_unpack(Path(sys.argv[1]), Path(sys.argv[2]), roster=Path(sys.argv[3]))
"""


def test_killed_at_any_moment_unpacking_is_done_again(made: Rounds, stick: Path, tmp_path: Path) -> None:
    chance = random.Random(3)
    expected = None
    for attempt in range(6):
        exchange = tmp_path / str(attempt)
        exchange.mkdir()
        command = [sys.executable, "-c", UNPACK, str(stick), str(exchange), str(made.federation.roster)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.08))
            process.send_signal(signal.SIGKILL)
        landed = {name: data for name, data in files(exchange).items() if not Path(name).name.startswith(".")}
        unpack(made, stick, exchange)
        complete = {name: data for name, data in files(exchange).items() if not Path(name).name.startswith(".")}
        expected = expected or complete
        assert complete == expected
        assert landed.items() <= complete.items()


# --- whose it is ------------------------------------------------------------------------------------


def build(path: Path, contents: dict[str, bytes], **changed: object) -> Path:
    """A well-formed courier's file of any contents, as who forges one would make it."""
    described = [
        {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(contents.items())
    ]
    manifest = {"format": "ucadi-courier", "version": 1, "for": "site-c", "files": described, **changed}
    return pack_members(path, [("manifest.json", canonical_json(manifest).encode() + b"\n"), *sorted(contents.items())])


def pack_members(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with path.open("wb") as file:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.write(entry.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
        file.write(bytes(1024))
    return path


def contents(stick: Path) -> dict[str, bytes]:
    with tarfile.open(stick) as tar:
        read = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    del read["manifest.json"]
    return read


def test_building_by_hand_makes_the_same_file(stick: Path, tmp_path: Path) -> None:
    assert build(tmp_path / "x.tar", contents(stick)).read_bytes() == stick.read_bytes()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("models/0001.weights", MismatchError, "not the weights that the plan"),
        ("rounds/0001/sum.enc", MismatchError, "not the sum that a receipt"),
        ("rounds/0001/partials/site-a.partial", UcadiError, r"site-a\.partial"),
        ("rounds/0001/plan.json", SignatureError, "signature"),
        ("rounds/0001/receipt.json", SignatureError, "signature"),
        ("federation.json", SignatureError, "signature"),
    ],
)
def test_a_changed_file_with_a_fitting_manifest_is_refused(
    made: Rounds, stick: Path, site: Path, tmp_path: Path, name: str, error: type[UcadiError], message: str
) -> None:
    held = contents(stick)
    data = held[name]
    if name.endswith(".json"):
        document = json.loads(data)
        changed = {**document, "federation": "tess"}
        held[name] = canonical_json(changed).encode() + b"\n"
    else:
        held[name] = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(error, match=message):
        unpack(made, build(tmp_path / "x.tar", held), site)
    assert not files(site)


def test_anothers_answer_and_a_strangers_upload_are_refused(
    made: Rounds, stick: Path, site: Path, tmp_path: Path
) -> None:
    held = contents(stick)
    held["rounds/0001/partials/site-b.partial"] = held["rounds/0001/partials/site-a.partial"]
    with pytest.raises(MismatchError, match="the partial decryption of site-a"):
        unpack(made, build(tmp_path / "x.tar", held), site)
    held = {**contents(stick), "rounds/0001/uploads/site-z.enc": b"x"}
    with pytest.raises(MismatchError, match="site-z is no member"):
        unpack(made, build(tmp_path / "y.tar", held), site)
    held = {"rounds/0009/uploads/site-a.enc": b"x"}
    with pytest.raises(MismatchError, match="round 9: no plan"):
        unpack(made, build(tmp_path / "z.tar", held), site)
    assert not files(site)


def test_the_stick_of_another_federation_with_the_same_names(stick: Path, site: Path, tmp_path: Path) -> None:
    other = make_federation(tmp_path, SITES, minimum_sites=3, threshold=3)
    with pytest.raises(MismatchError, match="the trusted roster is of test, coordinator"):
        courier_unpack(stick, site, roster=other.roster)
    assert not files(site)


def test_a_directory_that_is_not_there_is_made_and_goes_if_nothing_is_let_in(
    made: Rounds, stick: Path, tmp_path: Path
) -> None:
    other = make_federation(tmp_path, SITES, minimum_sites=3, threshold=3)
    before = set(tmp_path.iterdir())
    with pytest.raises(MismatchError, match="the trusted roster is of test, coordinator"):
        courier_unpack(stick, tmp_path / "new", roster=other.roster)
    assert set(tmp_path.iterdir()) == before
    assert set(unpack(made, stick, tmp_path / "much/newer")) == set(files(tmp_path / "much/newer"))
    (tmp_path / "file").touch()
    for taken in ("file", "file/below"):
        with pytest.raises(UcadiError, match="file"):
            unpack(made, stick, tmp_path / taken)


# --- hostile files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../federation.json",
        "rounds/../federation.json",
        "rounds/0001/uploads/../plan.json",
        "rounds/0001/plan.json/",
        "rounds//0001/plan.json",
        "models/0001.pkl",
        "manifest.json",
        ".ssh/authorized_keys",
        "x" * 90,
    ],
)
def test_names_outside_the_layout(made: Rounds, site: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="no file of an exchange directory"):
        unpack(made, build(tmp_path / "x.tar", {name: b"x"}), site)
    assert not files(site)


def tar_with(*entries: tarfile.TarInfo) -> Callable[[bytes], bytes]:
    """A tar as ordinary programs make it: the manifest is sound, the entries that follow are hostile."""

    def make(_: bytes) -> bytes:
        data = b"x" * 512
        item = {"name": "federation.json", "size": 512, "sha256": hashlib.sha256(data).hexdigest()}
        manifest = {"format": "ucadi-courier", "version": 1, "for": "site-c", "files": [item]}
        text = canonical_json(manifest).encode() + b"\n"
        stream = io.BytesIO()
        first = tarfile.TarInfo("manifest.json")
        first.size = len(text)
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            tar.addfile(first, io.BytesIO(text))
            for entry in entries:
                tar.addfile(entry, io.BytesIO(data) if entry.isreg() else None)
        sound = 512 + len(text) + -len(text) % 512 + 512 + 512 + 1024
        return stream.getvalue().ljust(sound, b"\0")[:sound]  # as long as the manifest says, to get past the size

    return make


def entry(name: str = "federation.json", **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def huge_manifest(_: bytes) -> bytes:
    return entry("manifest.json", size=(1 << 33) - 1).tobuf(tarfile.USTAR_FORMAT) + b"{}\n"


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "symbolic link": tar_with(entry(type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "hard link": tar_with(entry(type=tarfile.LNKTYPE, linkname="manifest.json")),
    "character device": tar_with(entry(type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "block device": tar_with(entry(type=tarfile.BLKTYPE, devmajor=8, devminor=0)),
    "pipe": tar_with(entry(type=tarfile.FIFOTYPE)),
    "folder": tar_with(entry(type=tarfile.DIRTYPE)),
    "long name": tar_with(entry(type=tarfile.GNUTYPE_LONGNAME, size=512)),
    "extended header": tar_with(entry(type=tarfile.XHDTYPE, size=512)),
    "another name": tar_with(entry("../federation.json", size=512)),
    "executable": tar_with(entry(size=512, mode=0o4755)),
    "somebody's": tar_with(entry(size=512, uid=1000, uname="me")),
    "of some time": tar_with(entry(size=512, mtime=1)),
    "another size": tar_with(entry(size=0)),
    "empty": lambda _: b"",
    "no tar": lambda _: b"PK\x03\x04" + bytes(2000),
    "zeros": lambda _: bytes(10240),
    "huge manifest": huge_manifest,
    "no end": lambda data: data[:-1],
    "an end too long": lambda data: data + bytes(512),
    "a second file after the end": lambda data: data[:-1024] + entry("x").tobuf() + bytes(512),
    "a byte in the padding": lambda data: data[:-1025] + b"x" + data[-1024:],
    "a byte in the end": lambda data: data[:-1] + b"x",
    "a byte in a file": lambda data: data.replace(b"ucadi-roster", b"ucadi-rooster"[:12]),
    "a byte in a checksum": lambda data: data[:150] + bytes([data[150] ^ 1]) + data[151:],
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_tars(made: Rounds, stick: Path, site: Path, tmp_path: Path, attack: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(HOSTILE[attack](stick.read_bytes()))
    with pytest.raises(FormatError):
        unpack(made, path, site)
    assert not files(site)


def test_truncated_anywhere(made: Rounds, stick: Path, site: Path, tmp_path: Path) -> None:
    whole, path = stick.read_bytes(), tmp_path / "x.tar"
    for length in [*range(0, 4096, 256), *range(4096, len(whole), 50_000), len(whole) - 512]:
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            unpack(made, path, site)
    assert not files(site)


@pytest.mark.parametrize(
    "files_",
    [
        [{"name": "federation.json", "size": 1 << 60, "sha256": "0" * 64}],
        [{"name": "federation.json", "size": 1 << 32, "sha256": "0" * 64}],
        [{"name": "federation.json", "size": -1, "sha256": "0" * 64}],
        [{"name": "federation.json", "size": 1.0, "sha256": "0" * 64}],
        [{"name": "federation.json", "size": 0, "sha256": "0" * 64}] * 2,
        [{"name": name, "size": 0, "sha256": "0" * 64} for name in ("rounds/0001/plan.json", "federation.json")],
        [{"name": "federation.json", "size": 0, "sha256": "0" * 64, "mode": 7}],
        [{"name": "federation.json", "size": 0}],
        ["federation.json"],
        {},
    ],
)
def test_hostile_manifests(made: Rounds, site: Path, tmp_path: Path, files_: object) -> None:
    with pytest.raises(FormatError):
        unpack(made, build(tmp_path / "x.tar", {}, files=files_), site)
    with pytest.raises(FormatError):
        unpack(made, build(tmp_path / "y.tar", {}, version=2), site)
    with pytest.raises(FormatError):
        unpack(made, build(tmp_path / "z.tar", {}, more=files_), site)
    assert not files(site)


def test_what_is_no_file_is_not_waited_for(made: Rounds, site: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "nowhere", tmp_path, Path("/dev/zero")):
        with pytest.raises(FormatError):
            unpack(made, path, site)
