"""Untrusting access to an HDF5 file: links, external or virtual storage, and sizes that it cannot hold are refused."""

from __future__ import annotations

import math

import h5py
import numpy as np

from ucadi.errors import FormatError

MAX_TEXT = 4096
"""Longest text attribute, in bytes."""

Attribute = str | int | float

MAX_RATIO = 1100
"""More than deflate can shrink anything (1032)."""


class Reader:
    """Reads groups, arrays and attributes of the file `name`; FormatError says where one is not as it should be."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _hard_link(self, group: h5py.Group, name: str) -> h5py.HLObject:
        """The object of that name, if it lies in this very file."""
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise self._error(group, f"{name} is " + ("missing" if link is None else "a link"))
        return group[name]

    def _group(self, group: h5py.Group, name: str) -> h5py.Group:
        found = self._hard_link(group, name)
        if not isinstance(found, h5py.Group):
            raise self._error(group, f"{name} is not a group")
        return found

    def _array(self, group: h5py.Group, name: str, dtype: str | None, dimensions: int) -> h5py.Dataset:
        """The array of that name, with its data in this file; nothing of it is read yet."""
        found = self._hard_link(group, name)
        if not isinstance(found, h5py.Dataset) or found.shape is None or len(found.shape) != dimensions:
            raise self._error(group, f"{name} is not an array of {dimensions} dimensions")
        if dtype is not None and found.dtype != np.dtype(dtype):
            raise self._error(group, f"{name} holds {found.dtype}, not {np.dtype(dtype)}")
        if found.external or found.is_virtual:
            raise self._error(group, f"{name} lies in another file")
        stored = found.id.get_storage_size()
        if math.prod(found.shape) * found.dtype.itemsize > max(1, stored) * MAX_RATIO:
            raise self._error(group, f"{name} claims {found.shape}, which its {stored} bytes cannot hold")
        return found

    def _attributes(self, group: h5py.Group) -> dict[str, Attribute]:
        values: dict[str, Attribute] = {}
        for name in sorted(group.attrs):
            dtype = group.attrs.get_id(name).dtype
            if dtype.kind == "S":
                values[name] = self._text(group, name)
            else:
                values[name] = self._number(group, name)
        return values

    def _text(self, group: h5py.Group, name: str, default: str | None = None) -> str:
        if name not in group.attrs:
            if default is not None:
                return default
            raise self._error(group, f"{name} is missing")
        stored = group.attrs.get_id(name)
        if stored.shape not in ((), None) or stored.dtype.kind != "S" or stored.dtype.itemsize > MAX_TEXT:
            raise self._error(group, f"{name} is not a text")
        value = group.attrs[name]
        if isinstance(value, h5py.Empty):
            return ""
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise self._error(group, f"{name} is not a text") from None

    def _number(self, group: h5py.Group, name: str) -> int | float:
        if name not in group.attrs:
            raise self._error(group, f"{name} is missing")
        stored = group.attrs.get_id(name)
        if stored.shape != () or stored.dtype.kind not in "iuf":
            raise self._error(group, f"{name} is not a number")
        number: int | float = group.attrs[name].item()
        return number

    def _integer(self, group: h5py.Group, name: str) -> int:
        number = self._number(group, name)
        if not isinstance(number, int):
            raise self._error(group, f"{name} is not a whole number")
        return number

    def _error(self, group: h5py.Group, what: str) -> FormatError:
        return FormatError(f"{self._name}: {group.name}: {what}"[:500])
