"""The container: what it writes others can read, and what it did not write it refuses."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ucadi.errors import FormatError, OutputError
from ucadi.formats import container
from ucadi.formats.container import Stream, canonical_json, parse_canonical_json, tensor_digest

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


@pytest.mark.parametrize(
    "header",
    [
        {"a": ENTRY},
        {"__metadata__": {}, "a": ENTRY},
        {"__metadata__": {**GOOD_METADATA, "more": ""}, "a": ENTRY},
        {"__metadata__": {"ucadi": '{"b":1,"a":2}'}, "a": ENTRY},
        {"__metadata__": {"ucadi": '{"a":1,"a":1}'}, "a": ENTRY},
        {"__metadata__": {"ucadi": '{"a":NaN}'}, "a": ENTRY},
        {"__metadata__": {"ucadi": "[]"}, "a": ENTRY},
        {"__metadata__": GOOD_METADATA, "a": {**ENTRY, "dtype": "F16"}},
        {"__metadata__": GOOD_METADATA, "a": {**ENTRY, "shape": [1 << 62, 1 << 62]}},
        {"__metadata__": GOOD_METADATA, "a": {**ENTRY, "shape": [-8]}},
        {"__metadata__": GOOD_METADATA, "a": {**ENTRY, "shape": [8.0]}},
        {"__metadata__": GOOD_METADATA, "a": {**ENTRY, "shape": [True, 8]}},
        {"__metadata__": GOOD_METADATA, "a": {**ENTRY, "data_offsets": [0, 9]}},
        {"__metadata__": GOOD_METADATA, "a": {**ENTRY, "data_offsets": [1, 9]}},
        {"__metadata__": GOOD_METADATA, "a": {**ENTRY, "more": 0}},
        {"__metadata__": GOOD_METADATA, "a": ENTRY, "b": ENTRY},
        b'{"__metadata__":{"ucadi":"{}"},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
    ],
    ids=range(19),
)
def test_headers_that_others_accept(tmp_path: Path, header: Any) -> None:
    with pytest.raises(FormatError):
        container.read(raw(tmp_path / "file", header, bytes(8)))


def test_a_header_of_many_tensors_or_of_great_length_is_refused_at_once(tmp_path: Path) -> None:
    many = {f"t{i:05}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(10_001)}
    with pytest.raises(FormatError, match="10001 tensors"):
        container.read(raw(tmp_path / "many", {"__metadata__": GOOD_METADATA, **many}))
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
