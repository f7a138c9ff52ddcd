"""Write a result as a NeXus file of the contributed application definition NXxpcs, for viewers and for the archive.

The definition leaves every g2 field optional, so that an empty file would validate; this writer always writes g2, its
error, the lags and the two-time functions. NXprocess stands outside the NXentry, where the definition puts it.
"""

from __future__ import annotations

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

if TYPE_CHECKING:
    import h5py

    from beamline_ml.results.client import XPCSFit

MIMETYPE = "application/x-nxxpcs"
"""Media type under which tiled exports results in this format."""

REQUIRED = ("c2", "g2", "g2_err", "delay_s", "q_inv_angstrom", "intensity", "age_s")
"""Arrays without which no file is written."""

_OPTIONAL = ("average_frame", "roi_map")

Arrays = Mapping[str, NDArray[Any]]


def export_nxxpcs(result: XPCSFit, path: str | Path) -> Path:
    """Write a complete result to a file and return its path; an existing file is replaced when the new one is whole.

    Raises
    ------
    ResultError
        When the result is not complete.
    """
    arrays = {name: np.asarray(getattr(result, name)) for name in REQUIRED}
    arrays |= {name: np.asarray(result[name].read()) for name in _OPTIONAL if name in result}
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.partial")
    unfinished.write_bytes(nxxpcs_bytes(dict(result.metadata), arrays))
    unfinished.replace(target)
    return target


async def serve_nxxpcs(mimetype: str, adapter: Any, metadata: Mapping[str, Any], filter_for_access: Any) -> bytes:
    """Exporter for tiled's ``media_types`` configuration: ``XPCSFit: {application/x-nxxpcs: ...:serve_nxxpcs}``."""
    arrays: dict[str, NDArray[Any]] = {}
    for key, child in await adapter.items_range(offset=0, limit=None):
        if key in (*REQUIRED, *_OPTIONAL):
            arrays[key] = np.asarray(await child.read())
    return nxxpcs_bytes(metadata, arrays)


def nxxpcs_bytes(metadata: Mapping[str, Any], arrays: Arrays) -> bytes:
    """The file as bytes.

    Parameters
    ----------
    metadata
        Metadata of the result.
    arrays
        Its arrays by name, at least :data:`REQUIRED`.

    Raises
    ------
    ResultError
        When the result is not complete or an array is missing.
    """
    import h5py

    missing = [name for name in REQUIRED if name not in arrays]
    if missing or metadata.get("status") != "complete":
        raise ResultError(
            f"The result of run {str(metadata.get('scan_uid'))[:8]} is not complete (missing: {', '.join(missing)}).",
            "Export it when its status is complete.",
        )
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["default"] = "entry"
        entry = _group(file, "entry", "NXentry")
        _write_entry(entry, metadata)
        _write_instrument(entry, metadata["experiment"])
        _write_data(entry, arrays, metadata)
        _write_two_time(entry, arrays)
        _write_masks(entry, arrays)
        _write_process(file, metadata)
    return buffer.getvalue()


def _group(parent: h5py.Group, name: str, nexus_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nexus_class
    return group


def _put(group: h5py.Group, name: str, value: Any, units: str | None = None, **attributes: Any) -> None:
    if isinstance(value, str):
        import h5py

        group.create_dataset(name, data=value, dtype=h5py.string_dtype())
    else:
        array = np.asarray(value)
        group.create_dataset(name, data=array, dtype=array.dtype)
    group[name].attrs.update({**attributes, **({"units": units} if units else {})})


def _write_entry(entry: h5py.Group, metadata: Mapping[str, Any]) -> None:
    started = datetime.fromtimestamp(float(metadata.get("run_time") or 0.0), UTC)
    entry.attrs["default"] = "data"
    _put(entry, "definition", "NXxpcs")
    _put(entry, "entry_identifier", str(metadata["scan_uid"])[:8])
    _put(entry, "entry_identifier_uuid", str(metadata["scan_uid"]))
    _put(entry, "scan_number", int(metadata.get("scan_id") or 0))
    _put(entry, "start_time", started.isoformat())
    sample = _group(entry, "sample", "NXsample")
    described = metadata.get("sample", {})
    _put(sample, "name", str(described.get("name", "unnamed")))
    if described.get("composition"):
        _put(sample, "chemical_formula", str(described["composition"]))


def _write_instrument(entry: h5py.Group, experiment: Mapping[str, Any]) -> None:
    instrument = _group(entry, "instrument", "NXinstrument")
    beam = _group(instrument, "incident_beam", "NXbeam")
    _put(beam, "incident_energy", float(experiment["photon_energy_kev"]), "keV")
    detector = _group(instrument, "detector", "NXdetector")
    _put(detector, "count_time", float(experiment["exposure_s"]), "s")
    _put(detector, "frame_time", float(experiment["frame_period_s"]), "s")
    _put(detector, "distance", float(experiment["detector_distance_m"]), "m")
    _put(detector, "beam_center_x", float(experiment["beam_center_column_px"]), "pixel")
    _put(detector, "beam_center_y", float(experiment["beam_center_row_px"]), "pixel")
    for axis in ("x", "y"):
        _put(detector, f"{axis}_pixel_size", float(experiment["pixel_size_m"]), "m")


def _write_data(entry: h5py.Group, arrays: Arrays, metadata: Mapping[str, Any]) -> None:
    data = _group(entry, "data", "NXdata")
    data.attrs["signal"] = "g2"
    data.attrs["axes"] = ["delay_difference", "."]
    frames = arrays["delay_s"] / float(metadata["experiment"]["frame_period_s"])
    _put(data, "delay_difference", np.rint(frames).astype(np.int64), "frames")
    # The definition's one_array: delays along the first axis, bins along the second.
    _put(data, "g2", arrays["g2"].T, storage_mode="one_array")
    _put(data, "g2_derr", arrays["g2_err"].T, storage_mode="one_array")
    _put(data, "frame_sum", np.nansum(arrays["intensity"], axis=0), "counts")
    if "average_frame" in arrays:
        _put(data, "frame_average", arrays["average_frame"], "counts")


def _write_two_time(entry: h5py.Group, arrays: Arrays) -> None:
    group = _group(entry, "twotime", "NXdata")
    group.attrs["signal"] = "two_time_corr_func"
    attributes: dict[str, Any] = {
        "baseline_reference": 1,
        "time_origin_location": "upper_left",
        "populated_elements": "all",
    }
    _put(group, "two_time_corr_func", arrays["c2"], storage_mode="one_array_q_first", **attributes)
    _put(group, "age", arrays["age_s"], "s")
    ages: dict[str, Any] = {"storage_mode": "one_array", "baseline_reference": 1, "first_point_for_fit": 0}
    _put(group, "g2_from_two_time_corr_func", arrays["g2"].T, **ages)
    _put(group, "g2_err_from_two_time_corr_func", arrays["g2_err"].T, storage_mode="one_array")


def _write_masks(entry: h5py.Group, arrays: Arrays) -> None:
    if "roi_map" not in arrays:
        return
    masks = _group(entry["instrument"], "masks", "NXnote")
    _put(masks, "dynamic_roi_map", arrays["roi_map"], "au")
    _put(masks, "dynamic_q_list", arrays["q_inv_angstrom"], "1/angstrom")


def _write_process(file: h5py.File, metadata: Mapping[str, Any]) -> None:
    process = _group(file, "process", "NXprocess")
    _put(process, "program", "beamline-ml")
    _put(process, "version", str(metadata.get("versions", {}).get("beamline_ml", ANALYSIS_VERSION)))
    _put(process, "settings", json.dumps(metadata.get("settings", {}), sort_keys=True))
    _put(process, "result_id", str(metadata.get("result_id", "")))
