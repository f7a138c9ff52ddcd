"""Read q-maps that people already have: APS q-map and result files (HDF5), pyFAI geometry files (.poni)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.qmap import QMap
from beamline_ml.errors import FileMissing, GeometryError
from beamline_ml.frames.hdf5 import open_hdf5
from beamline_ml.frames.hdf5_gate import contained_dataset, contains, links_in, read_numbers
from beamline_ml.frames.poni import rings_from_poni

_APS_GROUPS = ("qmap", "xpcs/qmap")
_MAX_BYTES = 2**30
_N_AXES = 2
_TEXTS = {"map_names", "map_units"}
_FIELDS = {
    *_TEXTS,
    *("mask", "blemish", "beam_center_x", "beam_center_y", "pixel_size", "detector_distance", "energy"),
    *(
        f"{kind}_{name}"
        for kind in ("dynamic", "static")
        for name in ("roi_map", "num_pts", "v_list_dim0", "v_list_dim1", "index_mapping")
    ),
}
_HDF5_SUFFIXES = {".h5", ".hdf", ".hdf5", ".nxs", ".qmap"}
_TO_INV_ANGSTROM = {"1/a": 1.0, "a^-1": 1.0, "1/å": 1.0, "å^-1": 1.0, "1/angstrom": 1.0, "1/nm": 0.1, "nm^-1": 0.1}


def load_qmap(path: str | Path, frame_shape: tuple[int, int] | None = None, n_q: int = 8) -> QMap:
    """Read which pixel belongs to which q bin.

    Parameters
    ----------
    path
        APS q-map file (group ``/qmap``), APS result file (``/xpcs/qmap``), or pyFAI geometry file (``.poni``).
    frame_shape
        (rows, cols) of the frames that the map must fit; required for a .poni file whose detector has no shape.
    n_q
        Rings of equal width to make from a .poni file; HDF5 files bring their own bins.

    Raises
    ------
    FileMissing
        When there is no such file.
    GeometryError
        When it is no q-map, contradicts itself, or does not fit the frames; both shapes are named.
    """
    file = Path(path)
    if not file.is_file():
        raise FileMissing(f"There is no q-map file {file}.", "Check the parameter qmap.")
    qmap = rings_from_poni(file, frame_shape, n_q) if file.suffix == ".poni" else _load_aps(file)
    if frame_shape is not None:
        qmap.check_frames(frame_shape)
    return qmap


def _load_aps(path: Path) -> QMap:
    if path.suffix.lower() not in _HDF5_SUFFIXES:
        raise GeometryError(
            f"{path.name} is no q-map file that can be read.", "Give an APS q-map (.hdf, .h5) or a pyFAI .poni file."
        )
    try:
        with h5py.File(path, "r") as file:
            return _read_aps(file, path)
    except OSError as error:
        raise GeometryError(f"{path} is no readable HDF5 file: {error}.", "Give an APS q-map file.") from error


def _read_aps(file: h5py.File, path: Path) -> QMap:
    group = next((name for name in _APS_GROUPS if contains(file, f"{name}/dynamic_roi_map")), None)
    if group is None:
        raise GeometryError(
            f"{path} has neither /qmap/dynamic_roi_map nor /xpcs/qmap/dynamic_roi_map.",
            "Give a q-map file of pySimpleMask or an APS XPCS result file.",
        )
    return read_aps_qmap(file, group)


def read_aps_qmap(file: h5py.File, group: str) -> QMap:
    """The q-map in a group of an open APS file.

    Raises
    ------
    GeometryError
        When it contradicts itself.
    """

    def read(name: str) -> NDArray[np.generic] | None:
        return read_numbers(file, f"{group}/{name}", _MAX_BYTES) if f"{group}/{name}" in file else None

    labels = read("dynamic_roi_map")
    assert labels is not None
    n_q = int(labels.max(initial=0))
    return QMap(labels, read("static_roi_map"), read("mask"), None, _q_values(file, group, n_q))


def aps_qmap_fields(path: Path) -> dict[str, Any]:
    """Fields of an APS q-map by name, numbers and texts, as they stand in the file; empty for any other file.

    Raises
    ------
    FileRefused
        When one of them lies outside the file or is far too large.
    """
    if path.suffix.lower() not in _HDF5_SUFFIXES:
        return {}
    with open_hdf5(path) as file:
        group = next((name for name in _APS_GROUPS if contains(file, f"{name}/dynamic_roi_map")), None)
        names = links_in(file, group) if group else {}
        return {name: _field(file, f"{group}/{name}") for name in names if name in _FIELDS}


def _field(file: h5py.File, name: str) -> Any:
    if name.rsplit("/", 1)[1] not in _TEXTS:
        return read_numbers(file, name, _MAX_BYTES)
    node = contained_dataset(file, name, numbers=False)
    if h5py.check_string_dtype(node.dtype) is None or node.size != _N_AXES:
        raise GeometryError(
            f"{name} in {file.filename} holds {node.dtype} of shape {node.shape}, not the names of two axes.",
            "Write the q-map file again.",
        )
    return [str(text) for text in node.asstr()[()].reshape(-1)]


def _q_values(file: h5py.File, group: str, n_q: int) -> NDArray[np.float64] | None:
    """q of each bin: the first partition axis, picked by the bins that hold pixels; None when the file has none."""
    axis = f"{group}/dynamic_v_list_dim0"
    if axis not in file:
        return None
    values = read_numbers(file, axis, _MAX_BYTES).astype(np.float64).reshape(-1) * _unit_factor(file, group)
    mapping = f"{group}/dynamic_index_mapping"
    if mapping not in file:
        return values if values.size == n_q else None
    index = read_numbers(file, mapping, _MAX_BYTES).astype(np.int64).reshape(-1)
    ring = index // max(1, _n_second_axis(file, group, values.size))
    if ring.size != n_q or ring.min(initial=0) < 0 or ring.max(initial=0) >= values.size:
        raise GeometryError(
            f"The q-map has {n_q} bins, but its index mapping names {index.size} of {values.size} q values.",
            "Write the q-map file again; it contradicts itself.",
        )
    return values[ring]


def _n_second_axis(file: h5py.File, group: str, n_first: int) -> int:
    if f"{group}/dynamic_num_pts" in file:
        counts = read_numbers(file, f"{group}/dynamic_num_pts", _MAX_BYTES).reshape(-1)
        return int(counts[1]) if counts.size > 1 else 1
    axis = f"{group}/dynamic_v_list_dim1"
    return int(read_numbers(file, axis, _MAX_BYTES).size) if axis in file else 1


def _unit_factor(file: h5py.File, group: str) -> float:
    unit = file[f"{group}/dynamic_v_list_dim0"].attrs.get("unit", "1/A")
    text = (unit.decode() if isinstance(unit, bytes) else str(unit)).strip().lower()
    if text not in _TO_INV_ANGSTROM:
        raise GeometryError(
            f"The first axis of the q-map is in {unit!r}, not in 1/angstrom or 1/nm.", "Partition the detector by q."
        )
    return _TO_INV_ANGSTROM[text]
