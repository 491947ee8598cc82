"""Zip files of scans: read like folders, and harmless whatever is in them."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest
from series import save, series

from ucadi.ct.reading import archive
from ucadi.ct.reading.archive import unpacked
from ucadi.ct.reading.refusals import Reason, RefusedError
from ucadi.ct.reading.scan import read_scan


def zip_of(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in sorted(folder.rglob("*.dcm")):
            file.write(member, f"study/{member.relative_to(folder)}")
    return path


def refused(path: Path) -> RefusedError:
    with pytest.raises(RefusedError) as caught, unpacked(path):
        pass
    return caught.value


def test_a_zip_is_read_like_its_folder(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", series())
    zipped = read_scan(zip_of(folder, tmp_path / "a.zip"), min_slices=4)
    plain = read_scan(folder, min_slices=4)
    assert (zipped.volume.hu == plain.volume.hu).all()
    assert (zipped.digest, zipped.flags) == (plain.digest, plain.flags)


def test_series_without_uid_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    save(tmp_path / "a" / "one", series(SeriesInstanceUID=""))
    save(tmp_path / "a" / "two", series(seed=1, SeriesInstanceUID=""))
    scan = read_scan(zip_of(tmp_path / "a", tmp_path / "a.zip"), min_slices=4)
    assert [s.reason for s in scan.set_aside] == [Reason.NOT_CHOSEN]


@pytest.mark.parametrize(
    "name", ["../../escaped.dcm", "/tmp/escaped.dcm", "C:\\escaped.dcm", "a/../../../escaped.dcm", "..", "\x01"]
)
def test_paths_have_no_effect(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(name, b"data" * 10)
    with unpacked(tmp_path / "a.zip") as folder:
        (found,) = (path for path in folder.rglob("*") if path.is_file())
        assert found.parent.parent == folder
        assert found.read_bytes() == b"data" * 10
        assert ".." not in found.parts
    assert not folder.exists()
    assert not list(tmp_path.parent.rglob("escaped*"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_left_out(tmp_path: Path, kind: int) -> None:
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with unpacked(tmp_path / "a.zip") as folder:
        assert not list(folder.rglob("*"))


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.dcm", bytes(30_000_000))
    assert refused(tmp_path / "a.zip").reason is Reason.BAD_ARCHIVE


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for number in range(4):
            file.writestr(f"{number}", b"")
    assert refused(tmp_path / "a.zip").detail == "4 members"


def test_broken_and_encrypted_archives_are_refused(tmp_path: Path) -> None:
    path = zip_of(save(tmp_path / "a", series()), tmp_path / "a.zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert refused(path).reason is Reason.BAD_ARCHIVE
    path.write_bytes(whole[:200] + bytes(50) + whole[250:])
    assert refused(path).reason is Reason.BAD_ARCHIVE
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.dcm", b"data")
    encrypted = bytearray(path.read_bytes())
    encrypted[6] |= 1  # the flag in the local header
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    path.write_bytes(encrypted)
    assert "encrypted" in refused(path).detail
