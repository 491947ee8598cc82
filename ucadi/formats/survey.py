"""What an HDF5 file holds and where: `python -m ucadi.formats.survey FILE`, a process that may crash on a damaged file.

It alone lets the HDF5 library read a file, and says in lines of JSON, a group each, what it finds: attributes, and of
each array its type, its shape and the places of its bytes. The bytes themselves are read by who asked
(`ucadi.formats.hdf5`), without the library. Memory, and processor time from one line to the next, are limited.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s

from ucadi.formats.hdf5 import described

MEMORY_BYTES = 2 << 30

SECONDS = 4
"""Processor time for one group; a case with a thousand slices takes a hundredth."""

MAX_DEPTH = 4
MAX_ENTRIES = 200_000
"""Members of a group."""
MAX_ATTRIBUTES = 1000
MAX_TEXT = 4096
"""Longest text attribute, in bytes."""
MAX_PIECES = 10_000
"""Chunks of an array."""


def main() -> None:
    """Tells of the file that the command line names; its last line is `end`, or `error` with the reason."""
    _limit()
    try:
        with h5py.File(sys.argv[1], "r", locking=False) as file:
            _group(h5g.open(file.id, b"/"), "/", set(), MAX_DEPTH)
    except Exception as error:  # whatever the library raises: the file is not as it should be
        _tell(error=f"{type(error).__name__}: {error}"[:300])
    else:
        _tell(end=True)


def _group(group: h5g.GroupID, path: str, seen: set[int], depth: int) -> None:
    """Tells of a group, then of the groups in it."""
    _allow_time()
    place = h5o.get_info(group).addr
    if place in seen or depth == 0 or group.get_num_objs() > MAX_ENTRIES:
        raise ValueError(f"{path} is there twice, too deep or too large")
    seen.add(place)
    arrays: dict[str, Any] = {}
    groups: dict[str, h5g.GroupID] = {}
    for encoded in sorted(group):
        name = encoded.decode()
        if group.links.get_info(encoded).type != h5l.TYPE_HARD:
            arrays[name] = "is a link"
            continue
        match h5o.open(group, encoded):
            case h5g.GroupID() as found:
                groups[name] = found
            case h5d.DatasetID() as found:
                arrays[name] = _array(found)
    _tell(group=path, attributes=_attributes(group), arrays=arrays)
    for name, found in groups.items():
        _group(found, f"{path}{name}/", seen, depth - 1)


def _attributes(group: h5g.GroupID) -> dict[str, Any]:
    """Texts and numbers; null for what is neither."""
    count = h5a.get_num_attrs(group)
    if count > MAX_ATTRIBUTES:
        raise ValueError(f"{count} attributes")
    opened = (h5a.open(group, index=index) for index in range(count))
    return {stored.name.decode(): _value(stored) for stored in opened}


def _value(stored: h5a.AttrID) -> str | int | float | None:
    dtype = stored.dtype
    if stored.get_space().get_simple_extent_type() == h5s.NULL:
        return "" if dtype.kind == "S" else None
    if stored.shape != () or dtype.kind not in "Siuf" or dtype.itemsize > MAX_TEXT:
        return None
    value = np.empty((), dtype)
    stored.read(value)
    if dtype.kind == "S":
        with suppress(UnicodeDecodeError):
            return bytes(value[()]).decode()
        return None
    number: int | float = value.item()
    return number


def _array(found: h5d.DatasetID) -> dict[str, Any] | str:
    """What is known of an array, or what is wrong with it."""
    made, shape = found.get_create_plist(), found.shape
    layout, size = made.get_layout(), found.get_storage_size()
    if made.get_external_count() or shape is None:
        return "lies in another file, or nowhere"
    pieces: dict[int, tuple[int, int, int]] = {}
    if layout == h5d.CONTIGUOUS:
        if size:
            pieces[0] = found.get_offset(), size, 0
    elif layout == h5d.CHUNKED and made.get_chunk() == (1, *shape[1:]) and shape[0] <= MAX_PIECES:

        def note(stored: Any) -> None:
            pieces[stored.chunk_offset[0]] = stored.byte_offset, stored.size, stored.filter_mask

        found.chunk_iter(note)
    else:
        return "is not stored in one piece or slice by slice"
    return {
        "type": described(found.dtype),
        "shape": shape,
        "sliced": layout == h5d.CHUNKED,
        "filters": [made.get_filter(number)[0] for number in range(made.get_nfilters())],
        "pieces": [pieces[number] for number in sorted(pieces)],
    }


def _tell(**said: Any) -> None:
    sys.stdout.write(f"{json.dumps(said)}\n")


def _limit() -> None:
    try:
        import resource
    except ModuleNotFoundError:  # not on Windows
        return
    for what, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        with suppress(ValueError, OSError):  # a lower limit holds already
            resource.setrlimit(what, (most, most))


def _allow_time() -> None:
    """Some seconds more until the system ends this process."""
    try:
        import resource
    except ModuleNotFoundError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + 1 + SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
