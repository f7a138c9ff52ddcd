"""Write a result in the layout of APS 8-ID (boost_corr 0.1, 2025), which pyXpcsViewer opens.

Not written, because results do not publish them: G2 per pixel, and g2 of parts of the run by multi-tau. Static bins are
the dynamic ones, unless the arrays bring a static map of their own.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import ResultError
from beamline_ml.results.identity import ANALYSIS_VERSION
from beamline_ml.results.nexus_fields import add_field, add_group, replace_file

if TYPE_CHECKING:
    import h5py

    from beamline_ml.results.client import XPCSFit

Arrays = Mapping[str, NDArray[Any]]

REQUIRED = ("g2", "g2_err", "delay_s", "q_inv_angstrom", "intensity", "roi_map")
"""Arrays without which no file is written: as published, see :mod:`beamline_ml.results.assembly`."""

OPTIONAL = ("c2", "average_frame", "static_roi_map", "static_intensity", "mask")
"""Arrays that are written when there: ``static_intensity`` (n_static, n_rows) belongs to ``static_roi_map``."""

_SCHEMA_VERSION = "1.0"
_C2_PARTS = 5
"""Equal blocks along the diagonal of C2, each with a g2 of its own."""
_INTENSITY_PARTS = 10


def export_aps(result: XPCSFit, path: str | Path) -> Path:
    """Write a complete result to a file and return its path; an existing file is replaced when the new one is whole.

    Raises
    ------
    ResultError
        When the result is not complete, or holds no map of its q bins.
    """
    arrays = {name: np.asarray(result[name].read()) for name in (*REQUIRED, *OPTIONAL) if name in result}
    return replace_file(Path(path), aps_bytes(dict(result.metadata), arrays))


def aps_bytes(metadata: Mapping[str, Any], arrays: Arrays, qmap: Mapping[str, Any] | None = None) -> bytes:
    """The file as bytes.

    Parameters
    ----------
    metadata
        Metadata of the result.
    arrays
        Its arrays by name: :data:`REQUIRED`, and some of :data:`OPTIONAL`.
    qmap
        Fields of the q-map file that was used, to stand in ``/xpcs/qmap`` as they are. None: made from the arrays.

    Raises
    ------
    ResultError
        When the result is not complete or an array is missing.
    """
    import h5py

    _require_complete(metadata, arrays)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["default"] = "entry"
        _write_entry(add_group(file, "entry", "NXentry"), metadata)
        xpcs = add_group(file, "xpcs", "NXprocess")
        _write_process(xpcs, metadata)
        _write_qmap(xpcs, metadata, arrays, qmap or {})
        _write_multitau(xpcs, metadata, arrays)
        _write_means(xpcs, arrays)
        if "c2" in arrays:
            _write_two_time(xpcs, metadata, arrays["c2"])
    return buffer.getvalue()


def _require_complete(metadata: Mapping[str, Any], arrays: Arrays) -> None:
    missing = [name for name in REQUIRED if name not in arrays]
    name = str(metadata.get("scan_uid"))[:8]
    if metadata.get("status") != "complete":
        raise ResultError(f"The result of {name} is not complete.", "Export it when its status is complete.")
    if missing:
        raise ResultError(
            f"The result of {name} lacks {', '.join(missing)}, which an APS file needs.",
            "Very large detectors publish no map of their q bins; export NXxpcs instead, or reprocess the run.",
        )


def _write_entry(entry: h5py.Group, metadata: Mapping[str, Any]) -> None:
    experiment = metadata["experiment"]
    began = float(metadata.get("run_time") or 0.0)
    duration_s = float(experiment["n_frames"]) * float(experiment["frame_period_s"])
    add_field(entry, "definition", "NXxpcs")
    add_field(entry, "schema_version", _SCHEMA_VERSION)
    add_field(entry, "start_time", datetime.fromtimestamp(began, UTC).isoformat())
    add_field(entry, "end_time", datetime.fromtimestamp(began + duration_s, UTC).isoformat())
    add_field(entry, "entry_identifier", str(metadata["scan_uid"])[:8])
    add_field(entry, "entry_identifier_uuid", str(metadata["scan_uid"]))
    add_field(entry, "scan_number", int(metadata.get("scan_id") or 0))
    instrument = add_group(entry, "instrument", "NXinstrument")
    _write_detector(instrument, experiment)
    bluesky = add_group(instrument, "bluesky", "NXnote")
    described = add_group(bluesky, "metadata", "NXnote")
    for name in ("scan_uid", "plan_name", "technique"):
        add_field(described, name, str(metadata.get(name) or ""))
    sample = add_group(entry, "sample", "NXsample")
    add_field(sample, "name", str(metadata.get("sample", {}).get("name", "unnamed")))
    add_group(entry, "user", "NXuser")


def _write_detector(instrument: h5py.Group, experiment: Mapping[str, Any]) -> None:
    beam = add_group(instrument, "incident_beam", "NXbeam")
    add_field(beam, "incident_energy", float(experiment["photon_energy_kev"]), "keV")
    detector = add_group(instrument, "detector_1", "NXdetector")
    fields = (
        ("frame_time", "frame_period_s", "s"),
        ("count_time", "exposure_s", "s"),
        ("distance", "detector_distance_m", "m"),
        ("beam_center_x", "beam_center_column_px", "pixel"),
        ("beam_center_y", "beam_center_row_px", "pixel"),
        ("x_pixel_size", "pixel_size_m", "m"),
        ("y_pixel_size", "pixel_size_m", "m"),
    )
    for name, ours, unit in fields:
        add_field(detector, name, float(experiment[ours]), unit)


def _write_process(xpcs: h5py.Group, metadata: Mapping[str, Any]) -> None:
    add_field(xpcs, "program", "beamline-ml")
    add_field(xpcs, "version", str(metadata.get("versions", {}).get("beamline_ml", ANALYSIS_VERSION)))
    add_field(xpcs, "settings", json.dumps(metadata.get("settings", {}), sort_keys=True))
    add_field(xpcs, "rawdata_path", str(metadata.get("provenance", {}).get("path", "")))


def _write_qmap(xpcs: h5py.Group, metadata: Mapping[str, Any], arrays: Arrays, known: Mapping[str, Any]) -> None:
    experiment = metadata["experiment"]
    roi = arrays["roi_map"].astype(np.uint32)
    fields: dict[str, Any] = {
        "mask": arrays.get("mask", roi > 0),
        "beam_center_x": float(experiment["beam_center_column_px"]),
        "beam_center_y": float(experiment["beam_center_row_px"]),
        "pixel_size": float(experiment["pixel_size_m"]),
        "detector_distance": float(experiment["detector_distance_m"]),
        "energy": float(experiment["photon_energy_kev"]),
        "map_names": ["q", "phi"],
        "map_units": ["1/A", "deg"],
        **_partition("dynamic", roi, arrays["q_inv_angstrom"]),
        **_partition("static", *_static(arrays)),
        **known,
    }
    qmap = add_group(xpcs, "qmap", "NXcollection")
    for name, value in fields.items():
        add_field(qmap, name, value)
    for kind in ("dynamic", "static"):
        for axis, (name, unit) in enumerate(zip(fields["map_names"], fields["map_units"], strict=True)):
            qmap[f"{kind}_v_list_dim{axis}"].attrs.update({"name": name, "unit": unit})
    maps = (np.ascontiguousarray(fields[f"{kind}_roi_map"]).tobytes() for kind in ("dynamic", "static"))
    qmap.attrs.update({"hash": hashlib.sha256(b"".join(maps)).hexdigest(), "version": _SCHEMA_VERSION})


def _static(arrays: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
    """Map of the static bins and the q of each."""
    dynamic, q = arrays["roi_map"], arrays["q_inv_angstrom"]
    static = arrays.get("static_roi_map", dynamic)
    owner = np.zeros(int(static.max()) + 1, np.int64)
    owner[static.ravel()] = dynamic.ravel()
    return static, q[owner[1:] - 1]


def _partition(kind: str, labels: NDArray[Any], q_inv_angstrom: NDArray[Any]) -> dict[str, Any]:
    n = len(q_inv_angstrom)
    return {
        f"{kind}_roi_map": labels.astype(np.uint32),
        f"{kind}_v_list_dim0": np.asarray(q_inv_angstrom, np.float64),
        f"{kind}_v_list_dim1": np.zeros(1),
        f"{kind}_num_pts": np.array([n, 1], np.int64),
        f"{kind}_index_mapping": np.arange(n, dtype=np.int64),
    }


def _write_multitau(xpcs: h5py.Group, metadata: Mapping[str, Any], arrays: Arrays) -> None:
    group = add_group(xpcs, "multitau", "NXdata")
    delay_frames = np.rint(arrays["delay_s"] / float(metadata["experiment"]["frame_period_s"])).astype(np.int64)
    add_field(group, "delay_list", delay_frames, "frames")
    add_field(group, "normalized_g2", arrays["g2"].T.astype(np.float32))
    add_field(group, "normalized_g2_err", arrays["g2_err"].T.astype(np.float32))
    _write_config(group, 1)


def _write_config(group: h5py.Group, frames_per_row: int) -> None:
    config = add_group(group, "config", "NXcollection")
    add_field(config, "stride_frame", 1)
    add_field(config, "avg_frame", frames_per_row)


def _write_means(xpcs: h5py.Group, arrays: Arrays) -> None:
    intensity = arrays["intensity"].astype(np.float64)
    n_pixels = np.bincount(arrays["roi_map"].ravel())[1:]
    over_time = np.stack([np.arange(intensity.shape[1]), n_pixels @ intensity / n_pixels.sum()])
    add_field(add_group(xpcs, "spatial_mean", "NXdata"), "intensity_vs_time", over_time.astype(np.float32))
    static = arrays.get("static_intensity", intensity) if "static_roi_map" in arrays else intensity
    n_parts = min(_INTENSITY_PARTS, static.shape[1])
    parts = [_known_mean(part, 1) for part in np.array_split(static, n_parts, axis=1)]
    group = add_group(xpcs, "temporal_mean", "NXdata")
    add_field(group, "scattering_1d", _known_mean(static, 1)[None].astype(np.float32))
    add_field(group, "scattering_1d_segments", np.stack(parts).astype(np.float32))
    if "average_frame" in arrays:
        add_field(group, "scattering_2d", arrays["average_frame"][None].astype(np.float32))


def _known_mean(values: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """Mean of what is not NaN; NaN where nothing is known."""
    known = np.isfinite(values)
    n_known = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis, dtype=np.float64)
    return np.where(n_known > 0, total / np.maximum(n_known, 1), np.nan)


def _write_two_time(xpcs: h5py.Group, metadata: Mapping[str, Any], c2: NDArray[Any]) -> None:
    group = add_group(xpcs, "twotime", "NXdata")
    maps = add_group(group, "correlation_map", "NXcollection")
    for number, one in enumerate(c2, 1):
        upper = np.triu(one).astype(np.float32)
        maps.create_dataset(f"c2_{number:05d}", data=upper, compression="gzip", compression_opts=1, shuffle=True)
    n = c2.shape[1]
    size = n // _C2_PARTS
    parts = [c2[:, k * size : (k + 1) * size, k * size : (k + 1) * size] for k in range(_C2_PARTS)]
    add_field(group, "normalized_g2", _diagonal_means(c2).astype(np.float32))
    segments = np.stack([_diagonal_means(part) for part in parts], axis=1)
    add_field(group, "normalized_g2_segments", segments.astype(np.float32))
    add_field(group, "processed_bins", np.arange(1, len(c2) + 1))
    add_field(group, "delay_list", np.arange(n), "rows")
    _write_config(group, int(metadata.get("quality", {}).get("time_binning", 1)))


def _diagonal_means(c2: NDArray[Any]) -> NDArray[np.float64]:
    """(n_lags, n_q) mean of C2 along each diagonal, lag 0 included."""
    n = c2.shape[1]
    return np.stack([_known_mean(np.diagonal(c2, lag, 1, 2), 1) for lag in range(n)]) if n else np.zeros((0, len(c2)))
