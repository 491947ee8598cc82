"""The container: what it writes others can read, and what it did not write it refuses."""

from __future__ import annotations

import json
import os
import re
import resource
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hints import raises_with_hint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ucadi.errors import FormatError, OutputError
from ucadi.formats import container
from ucadi.formats.container import GET_AGAIN, Stream, canonical_json, parse_canonical_json, tensor_digest

METADATA = {"format": "ucadi-test", "version": 1, "né": [1, 2.5, None]}

tensors = st.dictionaries(
    st.text("abc._0", min_size=1, max_size=6),
    st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.uint64]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    ),
    max_size=4,
)

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(content=tensors)
def test_read_gives_what_was_written_and_so_does_the_reference_library(
    tmp_path: Path, content: dict[str, np.ndarray]
) -> None:
    path = tmp_path / "file"
    container.write(path, content, METADATA, force=True)
    held = container.read(path, "ucadi-test")
    assert held.metadata == METADATA
    reference = safetensors.numpy.load_file(path)
    for name in content.keys() | held.tensors.keys() | reference.keys():
        for found in (held.tensors[name], reference[name]):
            assert (found.dtype, found.shape) == (content[name].dtype, content[name].shape)
            assert found.tobytes() == content[name].tobytes()
    first = path.read_bytes()
    container.write(path, dict(reversed(content.items())), METADATA, force=True)
    assert path.read_bytes() == first


@quick
@given(data=st.data())
def test_a_changed_or_cut_header_is_never_accepted(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "file"
    container.write(path, {"a": np.arange(6, dtype=np.int32), "b": np.zeros((2, 2))}, METADATA, force=True)
    good = path.read_bytes()
    header_end = 8 + struct.unpack("<Q", good[:8])[0]
    position = data.draw(st.integers(0, header_end - 1))
    replacement = data.draw(st.integers(0, 255).filter(lambda byte: byte != good[position]))
    changed = good[:position] + bytes([replacement]) + good[position + 1 :]
    path.write_bytes(changed)
    try:
        held = container.read(path, "ucadi-test")
    except FormatError:
        return
    # a name, a shape of equal size or the metadata's own text may differ, but never what the file says of itself
    rewritten = tmp_path / "again"
    container.write(rewritten, held.tensors, held.metadata, force=True)
    assert rewritten.read_bytes() == changed


@quick
@given(st.binary(max_size=200))
def test_garbage_is_refused(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(garbage)
    with pytest.raises(FormatError):
        container.read(path)


@quick
@given(data=st.data())
def test_a_truncated_or_longer_file_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "file"
    container.write(path, {"a": np.arange(6, dtype=np.int32)}, METADATA, force=True)
    good = path.read_bytes()
    path.write_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
    with pytest.raises(FormatError):
        container.read(path)
    path.write_bytes(good + bytes(data.draw(st.integers(1, 20))))
    with pytest.raises(FormatError):
        container.read(path)


def raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else canonical_json(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


GOOD_METADATA = {"ucadi": canonical_json({"format": "x", "version": 1})}
ENTRY = {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}


FOREIGN = ("safetensors file of another program", "ucadi init")
NOT_CANONICAL = ("JSON, but not in canonical form", "edited or made by another program")


def odd(message: str) -> tuple[str, str]:
    """How a file is refused that nobody writes."""
    return f"^file: {message}", re.escape(GET_AGAIN)


NOT_JSON, DESCRIBED, PLACED = (
    odd("(header|metadata): not JSON"),
    odd("tensor a is described"),
    odd("tensor . does not lie"),
)


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        ({"a": ENTRY}, FOREIGN),
        ({"__metadata__": {}, "a": ENTRY}, FOREIGN),
        ({"__metadata__": {**GOOD_METADATA, "more": ""}, "a": ENTRY}, FOREIGN),
        ({"__metadata__": {"ucadi": 5}, "a": ENTRY}, FOREIGN),
        ({"__metadata__": "ucadi", "ucadi": ENTRY}, FOREIGN),
        (["ucadi"], FOREIGN),
        ({"__metadata__": {"ucadi": '{"b":1,"a":2}'}, "a": ENTRY}, NOT_CANONICAL),
        ({"__metadata__": {"ucadi": '{"a":1,"a":1}'}, "a": ENTRY}, NOT_CANONICAL),
        ({"__metadata__": {"ucadi": '{"a":NaN}'}, "a": ENTRY}, NOT_JSON),
        ({"__metadata__": {"ucadi": "[]"}, "a": ENTRY}, odd("metadata is not an object")),
        *(
            ({"__metadata__": GOOD_METADATA, "a": {**ENTRY, **change}}, DESCRIBED)
            for change in (
                *({"dtype": dtype} for dtype in ("F16", "f32", 8, None)),
                *({"shape": shape} for shape in ([1 << 62, 1 << 62], [-8], [8.0], [True, 8], [1] * 9, 8, [0, 1 << 48])),
                *({"shape": [0, (1 << 45) + 1], "dtype": dtype} for dtype in ("F64", "I64", "U64")),
                *(
                    {"data_offsets": offsets}
                    for offsets in ([0], [0, 8, 8], [-8, 0], [0.0, 8], [0, True], [0, 1 << 48])
                ),
                {"more": 0},
            )
        ),
        ({"__metadata__": GOOD_METADATA, "a": {"dtype": "U8", "shape": [8]}}, DESCRIBED),
        *(
            ({"__metadata__": GOOD_METADATA, "a": {**ENTRY, "data_offsets": offsets}}, PLACED)
            for offsets in ([0, 9], [1, 9], [0, 7], [8, 16])
        ),
        ({"__metadata__": GOOD_METADATA, "a": {**ENTRY, "shape": [16], "data_offsets": [0, 16]}}, PLACED),
        ({"__metadata__": GOOD_METADATA, "a": ENTRY, "b": ENTRY}, PLACED),
        (
            {"__metadata__": GOOD_METADATA, "a": {**ENTRY, "shape": [7], "data_offsets": [0, 7]}},
            odd("8 bytes of tensors, .* 7$"),
        ),
        ({"__metadata__": GOOD_METADATA}, odd("8 bytes of tensors, .* 0$")),
        ({"__metadata__": GOOD_METADATA, "a\n": ENTRY}, odd("a tensor's name is not printable")),
        ({"__metadata__": GOOD_METADATA, "a" * 201: ENTRY}, odd("a tensor's name is not printable, or too long")),
        (b'{"__metadata__":{"ucadi":"{}"},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}', NOT_CANONICAL),
        (b"[" * 100_000, NOT_JSON),
        (b'{"a":' * 50_000, FOREIGN),
        (b"{\xff}", NOT_JSON),
    ],
)
def test_headers_that_others_accept(tmp_path: Path, header: Any, refusal: tuple[str, str]) -> None:
    with raises_with_hint(FormatError, *refusal):
        container.read(raw(tmp_path / "file", header, bytes(8)))


def test_what_is_at_its_limits_is_read(tmp_path: Path) -> None:
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    entries = {
        "a" * container.MAX_NAME: {**empty, "shape": [1, 1, 1, 1, 1, 1, 1, 0]},
        "b": {**empty, "shape": [0, (1 << 48) - 1]},
        "c": {**empty, "shape": [0, 1 << 45], "dtype": "F64"},
        "d": ENTRY,
        "e": {**empty, "data_offsets": [8, 8]},
    }
    metadata = {"ucadi": canonical_json({"format": "x" * container.MAX_NAME, "version": 1})}
    held = container.read(raw(tmp_path / "file", {"__metadata__": metadata, **entries}, bytes(range(8))))
    assert {name: tensor.shape for name, tensor in held.tensors.items()} == {
        name: tuple(entry["shape"]) for name, entry in entries.items()
    }
    assert held.tensors["d"].tolist() == list(range(8))


def test_a_header_that_is_cut_is_called_so(tmp_path: Path) -> None:
    container.write(tmp_path / "file", {}, METADATA)
    data = (tmp_path / "file").read_bytes()
    for length in (len(data) - 1, len(data) - 8):
        (tmp_path / "file").write_bytes(data[:length])
        with raises_with_hint(FormatError, "^file: truncated$", re.escape(GET_AGAIN)):
            container.read(tmp_path / "file", "ucadi-test")


def test_what_is_no_container_is_told_from_what_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("1234567")
    (tmp_path / "folder").mkdir()
    for name, message, hint in (
        ("text", "text is text, not an update", "made by ucadi train"),
        ("folder", "folder is a folder, not an update", "name the file in it"),
        ("absent", "No such file", "an update is wanted here"),
    ):
        with raises_with_hint(FormatError, message, hint):
            container.read(tmp_path / name, "ucadi-update")


@pytest.mark.parametrize("padding", [b"", b" " * 8, b" " * 3, b"\n" * 8, b"\n"])
@pytest.mark.parametrize("spare", range(8))
def test_a_header_is_padded_in_one_way(tmp_path: Path, padding: bytes, spare: int) -> None:
    metadata = {"ucadi": canonical_json({"format": "x" * (1 + spare), "version": 1})}
    text = canonical_json({"__metadata__": metadata}).encode()
    text += b" " * (-len(text) % 8)
    for padded in (text + padding, text[:-1] + padding):
        path = tmp_path / "file"
        path.write_bytes(struct.pack("<Q", len(padded)) + padded)
        if padded == text:
            assert container.read(path).tensors == {}
        else:
            with raises_with_hint(FormatError, "^file: (header with wrong padding|header: )", "fresh copy|edited"):
                container.read(path)


def test_the_longest_header_is_read_and_no_longer_one_is_written(tmp_path: Path) -> None:
    rest = len(canonical_json({"__metadata__": {"ucadi": canonical_json({**METADATA, "text": ""})}}))
    longest = container.MAX_HEADER - rest
    container.write(tmp_path / "file", {}, {**METADATA, "text": "x" * longest})
    assert (tmp_path / "file").stat().st_size == 8 + container.MAX_HEADER
    assert len(container.read(tmp_path / "file").metadata["text"]) == longest
    with pytest.raises(
        FormatError, match=f"header of {container.MAX_HEADER + 8} bytes; at most {container.MAX_HEADER}"
    ):
        container.write(tmp_path / "other", {}, {**METADATA, "text": "x" * (longest + 1)})
    data = (tmp_path / "file").read_bytes()
    (tmp_path / "long").write_bytes(struct.pack("<Q", container.MAX_HEADER + 8) + data[8:] + b" " * 8)
    with pytest.raises(FormatError):
        container.read(tmp_path / "long")


def test_json_lies_within_itself_so_often() -> None:
    for kind in ("list", "object"):
        value: Any = 1
        for _ in range(container.MAX_DEPTH):
            value = [0, value] if kind == "list" else {"a": 0, "b": value}
        assert parse_canonical_json(canonical_json(value), "x") == value
        with raises_with_hint(FormatError, f"^x: JSON of more than {container.MAX_DEPTH} levels", re.escape(GET_AGAIN)):
            parse_canonical_json(canonical_json([value]), "x")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le"])
def test_json_in_another_encoding_is_not_canonical(encoding: str) -> None:
    """Python's json reads it."""
    with raises_with_hint(FormatError, "^x: JSON, but not in canonical form", "edited"):
        parse_canonical_json('{"a":1}'.encode(encoding), "x")


def test_what_is_written_to_a_file_is_what_it_was_told(tmp_path: Path) -> None:
    whole = np.arange(24, dtype=np.int64).reshape(4, 6)
    container.write(tmp_path / "file", {"turned": whole.T, "every": whole[::2]}, METADATA)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    held = container.read(tmp_path / "file").tensors
    np.testing.assert_array_equal(held["turned"], whole.T)
    np.testing.assert_array_equal(held["every"], whole[::2])
    assert not held["turned"].flags.writeable
    for dtype in (np.float16, ">f4", bool):
        with pytest.raises(TypeError, match=f"a tensor of {np.dtype(dtype)} has no place"):
            container.write(tmp_path / "other", {"a": whole.astype(dtype)}, METADATA)
    with pytest.raises(ValueError, match="changed its length"):
        container.write(tmp_path / "other", {"a": whole}, lambda d: {**METADATA, "d": d["a"].lstrip("0")})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_where_no_more_files_can_be_open_the_hint_says_so(tmp_path: Path) -> None:
    """A map is one open file more than its file, which is the last that this process may open."""
    container.write(tmp_path / "file", {"a": np.arange(6)}, METADATA)
    next_one = os.open(tmp_path, os.O_RDONLY)
    os.close(next_one)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one + 1, hard))
    try:
        with raises_with_hint(FormatError, "^file: cannot be mapped: Too many open files", "ulimit -n"):
            container.read(tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("metadata", "message", "hint"),
    [
        *(({"format": f, "version": 1}, "does not say what it is", "fresh copy") for f in (5, "a\nb", "x" * 201, None)),
        ({"version": 1}, "does not say what it is", "fresh copy"),
        *(
            (
                {"format": "ucadi-test", "version": version},
                f"version {re.escape(repr(version))[:40]}.* of ucadi-test",
                "same release",
            )
            for version in (0, 2, True, "1", 1.0, None, "x" * 100)
        ),
        ({"format": "ucadi-test"}, "version None of ucadi-test; this program reads version 1", "same release"),
    ],
)
def test_metadata_say_what_a_file_is(tmp_path: Path, metadata: dict[str, Any], message: str, hint: str) -> None:
    path = raw(tmp_path / "file", {"__metadata__": {"ucadi": canonical_json(metadata)}})
    for expected in ((), ("ucadi-test", "ucadi-other")):
        with raises_with_hint(FormatError, f"^file: {message}", hint):
            container.read(path, *expected)


def test_a_header_of_many_tensors_or_of_great_length_is_refused_at_once(tmp_path: Path) -> None:
    many = {f"{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(container.MAX_TENSORS + 1)}
    with raises_with_hint(FormatError, "^many: 10001 tensors; at most 10000 are read", "fresh copy"):
        container.read(raw(tmp_path / "many", {"__metadata__": GOOD_METADATA, **many}))
    del many["0"]
    assert len(container.read(raw(tmp_path / "many", {"__metadata__": GOOD_METADATA, **many})).tensors) == 10_000
    long = tmp_path / "long"
    long.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    with pytest.raises(FormatError, match="long is of an unknown kind"):
        container.read(long)


def test_a_stream_is_written_as_the_tensor_that_it_makes(tmp_path: Path) -> None:
    whole = np.arange(1000, dtype=np.uint64).reshape(10, 100)
    blocks = (whole[i : i + 3] for i in range(0, 10, 3))
    container.write(
        tmp_path / "stream", {"a": Stream("U64", whole.shape, blocks)}, lambda d: {**METADATA, "d": dict(d)}
    )
    container.write(tmp_path / "whole", {"a": whole}, {**METADATA, "d": {"a": tensor_digest(whole)}})
    assert (tmp_path / "stream").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_streams_blocks_are_made_what_it_says_they_are(tmp_path: Path) -> None:
    container.write(tmp_path / "file", {"a": Stream("I32", (3,), [np.array([1, 2]), np.array([-3.0])])}, METADATA)
    assert container.read(tmp_path / "file").tensors["a"].tolist() == [1, 2, -3]


def test_another_format_or_version_is_refused_with_a_way_out(tmp_path: Path) -> None:
    container.write(tmp_path / "file", {}, {"format": "ucadi-test", "version": 2})
    with pytest.raises(FormatError, match="file is a ucadi-test file, not an update"):
        container.read(tmp_path / "file", "ucadi-update")
    with pytest.raises(FormatError, match="version 2"):
        container.read(tmp_path / "file", "ucadi-test")
    with pytest.raises(FormatError, match="No such file"):
        container.read(tmp_path / "absent")


def test_an_existing_file_is_kept_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    container.write(path, {}, METADATA)
    with pytest.raises(OutputError, match="exists"):
        container.write(path, {}, METADATA)

    def failing() -> Any:
        yield np.zeros(4, np.uint8)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        container.write(tmp_path / "new", {"a": Stream("U8", (8,), failing())}, METADATA)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@quick
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)
def test_canonical_json_is_read_back_and_has_one_form(value: Any) -> None:
    text = canonical_json(value)
    assert parse_canonical_json(text, "test") == value
    for other in (json.dumps(value, indent=1), " " + text):
        if other != text:
            with pytest.raises(FormatError):
                parse_canonical_json(other, "test")
