"""The dataset format: what is written is read, equal inputs give equal bytes, hostile files are refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from datasets import REJECTIONS, SIZE, noise_case

from ucadi.errors import FormatError, OutputError
from ucadi.formats import dataset
from ucadi.formats.dataset import Case, Rejection
from ucadi.labels import Diagnosis


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "a.h5"
    cases = [noise_case(4), noise_case(2, None), noise_case(3, Diagnosis.HEALTHY, slices=7)]
    dataset.write(target, cases, REJECTIONS, size=SIZE, attributes={"min_slices": 4, "window": "-1200 600"})
    return target


def test_what_is_written_is_read(path: Path) -> None:
    with dataset.open(path) as data:
        assert len(data) == 3
        assert data.size == SIZE
        assert data.ids == [f"{n:016x}" for n in (2, 3, 4)]
        assert data.patients == [f"{n:016x}" for n in (1, 1, 2)]
        assert data.labels == [None, Diagnosis.HEALTHY, Diagnosis.COVID]
        assert data.attributes == {"min_slices": 4, "window": "-1200 600"}
        assert data.rejections == sorted(REJECTIONS, key=lambda r: r.case)
        for index, number in enumerate((2, 3, 4)):
            read, written = data.case(index), noise_case(number, data.labels[index], slices=7 if number == 3 else 5)
            assert (read.volume.hu == written.volume.hu).all()
            assert (read.volume.affine == written.volume.affine).all()
            assert (read.positions_mm == written.positions_mm).all()
            assert (
                replace(read, volume=0, positions_mm=0).__dict__ == replace(written, volume=0, positions_mm=0).__dict__
            )  # type: ignore[arg-type]
            assert (data.volume(index).hu == written.volume.hu).all()


def test_the_digest_is_of_the_file(path: Path) -> None:
    from ucadi.formats.container import file_digest

    with dataset.open(path) as data:
        assert data.digest == file_digest(path)


def test_equal_inputs_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again" / "b.h5"
    again.parent.mkdir()
    cases = [noise_case(4), noise_case(2, None), noise_case(3, Diagnosis.HEALTHY, slices=7)]
    dataset.write(again, cases, REJECTIONS[::-1], size=SIZE, attributes={"window": "-1200 600", "min_slices": 4})
    assert again.read_bytes() == path.read_bytes()


def test_an_empty_dataset(tmp_path: Path) -> None:
    dataset.write(tmp_path / "a.h5", [], [], size=SIZE)
    with dataset.open(tmp_path / "a.h5") as data:
        assert (len(data), data.rejections) == (0, [])


def test_rejections_may_grow_while_cases_are_made(tmp_path: Path) -> None:
    rejections: list[Rejection] = []

    def cases() -> Iterator[Case]:
        yield noise_case(1)
        rejections.append(REJECTIONS[0])

    dataset.write(tmp_path / "a.h5", cases(), rejections, size=SIZE)
    with dataset.open(tmp_path / "a.h5") as data:
        assert data.rejections == rejections


def test_nothing_is_left_after_a_failure(tmp_path: Path) -> None:
    def cases() -> Iterator[Case]:
        yield noise_case(1)
        raise KeyError

    with pytest.raises(KeyError):
        dataset.write(tmp_path / "a.h5", cases(), [], size=SIZE)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(OutputError):
        dataset.write(path, [], [], size=SIZE)
    assert path.read_bytes() == before
    dataset.write(path, [], [], size=SIZE, force=True)
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    "change", [{"id": "Jane Doe"}, {"patient": "1.2.840"}, {"id": "AB" * 8}, {"positions_mm": np.zeros(3)}]
)
def test_writing_refuses_ids_that_are_not_hashes(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"hex|positions"):
        dataset.write(tmp_path / "a.h5", [replace(noise_case(1), **change)], [], size=SIZE)  # type: ignore[arg-type]


CASE = f"cases/{2:016x}"


def external_link(file: h5py.File) -> None:
    with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
        other["volume"] = np.zeros((5, SIZE, SIZE), "<i2")
    del file[CASE]["volume"]
    file[CASE]["volume"] = h5py.ExternalLink("other.h5", "volume")


def soft_link(file: h5py.File) -> None:
    del file[CASE]["volume"]
    file[CASE]["volume"] = h5py.SoftLink(f"/cases/{3:016x}/volume")


def dangling_link(file: h5py.File) -> None:
    del file[CASE]["volume"]
    file[CASE]["volume"] = h5py.SoftLink("/nowhere")


def linked_case(file: h5py.File) -> None:
    file["cases"]["00" * 8] = h5py.SoftLink(f"/cases/{3:016x}")


def external_storage(file: h5py.File) -> None:
    del file[CASE]["affine"]
    file[CASE].create_dataset("affine", (4, 4), "<f8", external=[("/etc/passwd", 0, 128)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((5, SIZE, SIZE), "<i2")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (5, SIZE, SIZE))
    del file[CASE]["volume"]
    file[CASE].create_virtual_dataset("volume", layout)


def volume(**options: object) -> Callable[[h5py.File], None]:
    def replace_volume(file: h5py.File) -> None:
        del file[CASE]["volume"]
        file[CASE].create_dataset("volume", **options)

    return replace_volume


def damaged(file: h5py.File) -> None:
    offset = file[CASE]["volume"].id.get_chunk_info(2).byte_offset
    name = file.filename
    file.close()
    with Path(name).open("r+b") as raw:
        raw.seek(offset + 20)
        raw.write(b"\xff\x00\xff")


def attribute(where: str, name: str, value: object) -> Callable[[h5py.File], None]:
    def set_attribute(file: h5py.File) -> None:
        file[where].attrs[name] = value

    return set_attribute


def without(where: str, name: str) -> Callable[[h5py.File], None]:
    def remove(file: h5py.File) -> None:
        del file[where][name]

    return remove


ATTACKS: dict[str, Callable[[h5py.File], None]] = {
    "external link": external_link,
    "soft link": soft_link,
    "dangling link": dangling_link,
    "linked case": linked_case,
    "external storage": external_storage,
    "virtual storage": virtual,
    "8 GiB in 1 KB": volume(shape=(1 << 19, SIZE, SIZE), dtype="<i2", chunks=(1, SIZE, SIZE), compression="gzip"),
    "unwritten chunks": volume(shape=(5, SIZE, SIZE), dtype="<i2", chunks=(1, SIZE, SIZE)),
    "contiguous": volume(data=np.zeros((5, SIZE, SIZE), "<i2")),
    "another size": volume(data=np.zeros((5, 8, 8), "<i2"), chunks=(1, 8, 8)),
    "another type": volume(data=np.zeros((5, SIZE, SIZE)), chunks=(1, SIZE, SIZE)),
    "no slices": volume(shape=(0, SIZE, SIZE), dtype="<i2", chunks=(1, SIZE, SIZE), maxshape=(None, SIZE, SIZE)),
    "damaged": damaged,
    "no volume": without(CASE, "volume"),
    "no affine": without(CASE, "affine"),
    "no positions": without(CASE, "positions_mm"),
    "no tags": without(CASE, "tags"),
    "no rejections": without("/", "rejections"),
    "group for array": lambda file: (without(CASE, "affine")(file), file[CASE].create_group("affine"))[0],
    "foreign format": attribute("/", "format", np.bytes_("photographs")),
    "format of variable length": attribute("/", "format", "ucadi-dataset"),
    "later version": attribute("/", "version", np.int64(3)),
    "version in words": attribute("/", "version", np.bytes_("1")),
    "absurd size": attribute("/", "size", np.int64(10**9)),
    "size with a fraction": attribute("/", "size", np.float64(16.5)),
    "unknown label": attribute(CASE, "label", np.bytes_("measles")),
    "patient by name": attribute(CASE, "patient", np.bytes_("Jane Doe")),
    "many numbers": attribute(CASE + "/tags", "KVP", np.zeros(100)),
    "no text": attribute(CASE, "flags", np.bytes_(b"\xff\xfe")),
}


def read_all(path: Path) -> None:
    with dataset.open(path) as data:
        for index in range(len(data)):
            data.case(index)


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_files_are_refused(path: Path, attack: str) -> None:
    with h5py.File(path, "r+") as file:
        ATTACKS[attack](file)
    with pytest.raises(FormatError) as caught:
        read_all(path)
    assert re.match(r"a\.h5(:| is )", caught.value.message)


def test_an_affine_that_maps_nowhere(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file[CASE]["affine"][()] = np.nan
    with dataset.open(path) as data, pytest.raises(FormatError, match="nowhere"):
        data.volume(0)


@pytest.mark.parametrize("length", [0, 7, 500, 3000])
def test_truncated_files_are_refused(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FormatError):
        read_all(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError), dataset.open(tmp_path / "absent.h5"):
        pass
    with pytest.raises(FormatError), dataset.open(tmp_path):
        pass
    with h5py.File(tmp_path / "plain.h5", "w"):
        pass
    with pytest.raises(FormatError, match="not a dataset"), dataset.open(tmp_path / "plain.h5"):
        pass
