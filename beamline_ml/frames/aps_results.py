"""Read XPCS result files of APS 8-ID: the layout of today (``/xpcs/multitau``) and that before 2021 (``/exchange``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.qmap import QMap
from beamline_ml.errors import BudgetExceeded, FileMissing, ResultError
from beamline_ml.frames.hdf5 import open_hdf5
from beamline_ml.frames.hdf5_gate import contained_dataset, contains, links_in, read_numbers
from beamline_ml.frames.qmap_files import read_aps_qmap
from beamline_ml.frames.reader import GIB
from beamline_ml.frames.recorded import Recorded, recorded_in, single_number
from beamline_ml.records import G2, Float32Array, Float64Array, IntArray

_MAX_SMALL_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where one generation of files keeps what."""

    g2: str
    g2_err: str
    delay: str
    c2: str
    c2_bins: str
    config: str
    c2_config: str
    q: str
    frame_period: str | None
    """Where the frame period stands when not in the detector's group."""


_LAYOUTS = (
    _Layout(
        "xpcs/multitau/normalized_g2",
        "xpcs/multitau/normalized_g2_err",
        "xpcs/multitau/delay_list",
        "xpcs/twotime/correlation_map",
        "xpcs/twotime/processed_bins",
        "xpcs/multitau/config",
        "xpcs/twotime/config",
        "xpcs/qmap/dynamic_v_list_dim0",
        None,
    ),
    _Layout(
        "exchange/norm-0-g2",
        "exchange/norm-0-stderr",
        "exchange/tau",
        "exchange/C2T_all",
        "xpcs/qphi_bin_to_process",
        "xpcs",
        "xpcs",
        "xpcs/dqlist",
        "measurement/instrument/detector/exposure_period",
    ),
)


@dataclass(frozen=True)
class ApsResult:
    """What a result file holds."""

    g2: G2 | None
    """None when the file has two-time functions only."""
    c2: Float32Array | None
    """(n_maps, n_rows, n_rows) symmetric, the diagonal as the file has it; None when the file has none."""
    c2_bins: IntArray
    """(n_maps,) q bin of each map, from 1."""
    row_period_s: float
    """Time between two rows of ``c2``."""
    qmap: QMap | None
    """None in files that carry no map."""
    recorded: Recorded
    """What the file says of timing and geometry."""


def load_aps_result(path: str | Path, max_gib: float = 4.0) -> ApsResult:
    """Read an APS result file; what its generation did not write yet is None, never guessed.

    Parameters
    ----------
    path
        HDF5 file of boost_corr, xpcs-eigen, or our own export.
    max_gib
        Most memory for the two-time functions, in GiB.

    Raises
    ------
    FileMissing
        When there is no such file.
    FramesError
        When it is damaged, leads out of itself, or has no positive frame time.
    ResultError
        When it is no XPCS result, or its parts contradict each other.
    GeometryError
        When its q-map contradicts itself.
    BudgetExceeded
        When the two-time functions need more memory than allowed.
    """
    file_path = Path(path)
    if not file_path.is_file():
        raise FileMissing(f"There is no result file {file_path}.", "Check the path.")
    with open_hdf5(file_path) as file:
        layout = next((one for one in _LAYOUTS if contains(file, one.g2) or contains(file, one.c2)), None)
        if layout is None:
            raise ResultError(
                f"{file_path} holds neither {_LAYOUTS[0].g2} nor {_LAYOUTS[1].g2}, nor two-time functions.",
                "Give a result file of APS XPCS (boost_corr, xpcs-eigen) or one exported with --format aps.",
            )
        return _read(file, layout, int(max_gib * GIB))


def _read(file: h5py.File, layout: _Layout, max_bytes: int) -> ApsResult:
    recorded = _recorded(file, layout)
    period_s = recorded.frame_period_s
    if period_s is None:
        raise ResultError(f"{file.filename} does not say its frame time.", "Write frame_time (s) into the file.")
    qmap = read_aps_qmap(file, "xpcs/qmap") if contains(file, _map(layout)) else None
    c2, bins = _two_time(file, layout, max_bytes)
    g2 = _g2(file, layout, period_s * _frames_per_row(file, layout.config), qmap)
    return ApsResult(g2, c2, bins, period_s * _frames_per_row(file, layout.c2_config), qmap, recorded)


def _map(layout: _Layout) -> str:
    return f"{layout.q.rsplit('/', 1)[0]}/dynamic_roi_map"


def _recorded(file: h5py.File, layout: _Layout) -> Recorded:
    where = layout.frame_period
    return recorded_in(file, single_number(file, where) if where is not None and contains(file, where) else None)


def _frames_per_row(file: h5py.File, config: str) -> float:
    """Frames that were averaged or skipped to make one; older files do not say and did neither."""
    names = [f"{config}/{name}" for name in ("stride_frame", "avg_frame")]
    return float(np.prod([single_number(file, name) for name in names if contains(file, name)]))


def _g2(file: h5py.File, layout: _Layout, period_s: float, qmap: QMap | None) -> G2 | None:
    if not contains(file, layout.g2):
        return None
    values = _numbers(file, layout.g2)
    delay = _numbers(file, layout.delay).reshape(-1)
    errors = _numbers(file, layout.g2_err) if contains(file, layout.g2_err) else np.full(values.shape, np.nan)
    if values.ndim != 2 or len(delay) != len(values) or errors.shape != values.shape:
        raise ResultError(
            f"In {file.filename} g2 has shape {values.shape}, its error {errors.shape}, and there are {delay.size} "
            "delays.",
            "g2 and its error are (n_delays, n_q); write the file again.",
        )
    return G2(
        delay_s=delay * period_s,
        delay_frames=delay.astype(np.int64),
        g2=values.T,
        g2_err=errors.T,
        q_inv_angstrom=_q(file, layout, values.shape[1], qmap),
        definition="symmetric",
        error_method="pixel_std",
    )


def _q(file: h5py.File, layout: _Layout, n_q: int, qmap: QMap | None) -> Float64Array:
    """q of each bin: from the map, else from the list where it has one value a bin; else unknown (NaN)."""
    if qmap is not None and qmap.n_q == n_q:
        return qmap.q_inv_angstrom
    listed = _numbers(file, layout.q).reshape(-1) if contains(file, layout.q) else np.zeros(0)
    return listed if listed.size == n_q else np.full(n_q, np.nan)


def _numbers(file: h5py.File, name: str) -> NDArray[np.float64]:
    return read_numbers(file, name, _MAX_SMALL_BYTES).astype(np.float64)


def _two_time(file: h5py.File, layout: _Layout, max_bytes: int) -> tuple[Float32Array | None, IntArray]:
    names = [f"{layout.c2}/{name}" for name in sorted(links_in(file, layout.c2))]
    if not names:
        return None, np.zeros(0, np.int64)
    shape = _common_shape(file, names)
    needed = 4 * len(names) * shape[0] ** 2
    if needed > max_bytes:
        raise BudgetExceeded(
            f"{len(names)} two-time functions of {shape[0]} rows need {needed / GIB:.3g} GiB; "
            f"{max_bytes / GIB:.3g} GiB are allowed.",
            "Raise max_gib.",
        )
    maps = np.stack([_symmetric(read_numbers(file, name, max_bytes)) for name in names])
    bins = np.arange(1, len(names) + 1)
    if contains(file, layout.c2_bins):
        bins = read_numbers(file, layout.c2_bins, _MAX_SMALL_BYTES).reshape(-1).astype(np.int64)
    if bins.size != len(names):
        raise ResultError(
            f"{file.filename} has {len(names)} two-time functions but names {bins.size} bins.", "Write it again."
        )
    return maps, bins


def _common_shape(file: h5py.File, names: list[str]) -> tuple[int, ...]:
    def shapes() -> Iterator[tuple[int, ...]]:
        for name in names:
            yield tuple(int(n) for n in contained_dataset(file, name).shape)

    found = set(shapes())
    if len(found) > 1 or any(len(shape) != 2 or shape[0] != shape[1] for shape in found):
        raise ResultError(
            f"The two-time functions in {file.filename} have shapes {sorted(found)}.",
            "They should all be (n_rows, n_rows); write the file again.",
        )
    return found.pop()


def _symmetric(c2: NDArray[Any]) -> Float32Array:
    """Files hold the upper triangle; one that is full stays as it is."""
    values = c2.astype(np.float32)
    if np.tril(values, -1).any():
        return values
    return np.asarray(values + np.triu(values, 1).T, np.float32)
