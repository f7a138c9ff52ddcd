"""Reach a dataset inside an HDF5 file without following it out of the file.

HDF5 can pull in bytes from elsewhere in three ways: external links, external raw storage and virtual datasets. A file
that a document names could use each of them to read any file that this process may read, so all three are refused.
"""

from __future__ import annotations

import math

import h5py
import numpy as np

from beamline_ml.errors import FileRefused, FramesError

_DEEPEST_SOFT_LINK = 8


def contained_dataset(file: h5py.File, name: str, numbers: bool = True) -> h5py.Dataset:
    """The dataset called ``name``, when everything on the way to it lies in this file; ``numbers`` False allows texts.

    Raises
    ------
    FramesError
        When there is no such dataset.
    FileRefused
        When an external link, external storage or a virtual dataset lies on the way, or its elements are no numbers.
    """
    node = _follow(file, name, file.filename, _DEEPEST_SOFT_LINK)
    if not isinstance(node, h5py.Dataset):
        raise FramesError(f"{name} in {file.filename} is no dataset.", "Check the dataset name in the run's documents.")
    _refuse_foreign_bytes(node, file.filename)
    if numbers:
        _require_numbers(node, file.filename)
    return node


def contains(file: h5py.File, name: str) -> bool:
    """Whether something called ``name`` lies in this file. h5py's own ``in`` would open the target of a link.

    Raises
    ------
    FileRefused
        When a link on the way leads out of the file.
    """
    return _inside(file, name) is not None


def links_in(file: h5py.File, name: str) -> dict[str, h5py.HardLink | h5py.SoftLink | h5py.ExternalLink]:
    """The links of a group by name, none of them followed; empty when there is no such group in this file.

    Raises
    ------
    FileRefused
        When a link on the way to the group leads out of the file.
    """
    node = _inside(file, name)
    return {str(key): node.get(key, getlink=True) for key in node} if isinstance(node, h5py.Group) else {}


def _inside(file: h5py.File, name: str) -> h5py.Group | h5py.Dataset | None:
    try:
        return _follow(file, name, file.filename, _DEEPEST_SOFT_LINK)
    except FileRefused:
        raise
    except FramesError:
        return None


def _follow(file: h5py.File, name: str, path: str, depth: int) -> h5py.Group | h5py.Dataset:
    node: h5py.Group | h5py.Dataset = file
    for part in [part for part in name.split("/") if part not in ("", ".")]:
        there = isinstance(node, h5py.Group) and node.id.links.exists(part.encode())
        link = node.get(part, getlink=True) if there else None
        if link is None:
            raise FramesError(
                f"There is no {name} in {path}.", "Check the dataset name in the run's documents against the file."
            )
        node = _step(file, node, part, link, path, depth)
    return node


def _step(
    file: h5py.File, group: h5py.Group, part: str, link: object, path: str, depth: int
) -> h5py.Group | h5py.Dataset:
    if isinstance(link, h5py.HardLink):
        return group[part]
    if isinstance(link, h5py.SoftLink) and depth > 0:
        target = link.path if link.path.startswith("/") else f"{group.name}/{link.path}"
        return _follow(file, target, path, depth - 1)
    raise FileRefused(
        f"{group.name.rstrip('/')}/{part} in {path} is a link out of the file.",
        "Name the file that holds the frames in the run's documents, or let tiled read it (leave its folder out of "
        "data.allowed_roots).",
    )


def _refuse_foreign_bytes(dataset: h5py.Dataset, path: str) -> None:
    for what, found in (("a virtual dataset", dataset.is_virtual), ("externally stored", bool(dataset.external))):
        if found:
            raise FileRefused(
                f"{dataset.name} in {path} is {what}: its bytes come from other files.",
                "Name the files that hold the frames in the run's documents, or let tiled read it (leave its folder "
                "out of data.allowed_roots).",
            )


def _require_numbers(dataset: h5py.Dataset, path: str) -> None:
    if dataset.dtype.kind not in "uifb" or dataset.dtype.hasobject:
        raise FileRefused(
            f"{dataset.name} in {path} holds {dataset.dtype}, not plain numbers.",
            "Point the run to the dataset with the frames.",
        )


def read_numbers(file: h5py.File, name: str, max_bytes: int) -> np.ndarray:
    """A whole small dataset, after the same checks and a look at its size.

    Raises
    ------
    FramesError
        When there is no such dataset.
    FileRefused
        When its bytes come from elsewhere, it holds no numbers, or it is larger than ``max_bytes``.
    """
    dataset = contained_dataset(file, name)
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    if size > max_bytes:
        raise FileRefused(
            f"{name} in {file.filename} has shape {dataset.shape}, {size / 2**30:.3g} GiB.",
            "Give a file made for this detector.",
        )
    return np.asarray(dataset[()])
