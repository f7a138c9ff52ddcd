"""Groups and fields of the HDF5 files that results are exported to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import h5py


def add_group(parent: h5py.Group, name: str, nexus_class: str) -> h5py.Group:
    """A new group of a NeXus class; groups on the way are made."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = nexus_class
    return group


def add_field(group: h5py.Group, name: str, value: Any, units: str | None = None, **attributes: Any) -> None:
    """A new dataset: text (or a list of texts), a number, or an array; with its unit and attributes."""
    import h5py

    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], str)):
        group.create_dataset(name, data=value, dtype=h5py.string_dtype())
    else:
        array = np.asarray(value)
        group.create_dataset(name, data=array, dtype=array.dtype)
    group[name].attrs.update({**attributes, **({"units": units} if units else {})})


def replace_file(path: Path, content: bytes) -> Path:
    """Write a file that is whole or not there; an existing one is replaced."""
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.write_bytes(content)
    unfinished.replace(path)
    return path
