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
from beamline_ml.results.nexus_fields import add_field, add_group, replace_file

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
    return replace_file(Path(path), nxxpcs_bytes(dict(result.metadata), arrays))


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
        entry = add_group(file, "entry", "NXentry")
        _write_entry(entry, metadata)
        _write_instrument(entry, metadata["experiment"])
        _write_data(entry, arrays, metadata)
        _write_two_time(entry, arrays)
        _write_masks(entry, arrays)
        _write_process(file, metadata)
    return buffer.getvalue()


def _write_entry(entry: h5py.Group, metadata: Mapping[str, Any]) -> None:
    started = datetime.fromtimestamp(float(metadata.get("run_time") or 0.0), UTC)
    entry.attrs["default"] = "data"
    add_field(entry, "definition", "NXxpcs")
    # Of a bluesky run, the scan id; the uid follows.
    add_field(entry, "entry_identifier", str(metadata.get("scan_id") or metadata["scan_uid"][:8]))
    add_field(entry, "entry_identifier_uuid", str(metadata["scan_uid"]))
    add_field(entry, "scan_number", int(metadata.get("scan_id") or 0))
    add_field(entry, "start_time", started.isoformat())
    sample = add_group(entry, "sample", "NXsample")
    described = metadata.get("sample", {})
    add_field(sample, "name", str(described.get("name", "unnamed")))
    if described.get("composition"):
        add_field(sample, "chemical_formula", str(described["composition"]))


def _write_instrument(entry: h5py.Group, experiment: Mapping[str, Any]) -> None:
    instrument = add_group(entry, "instrument", "NXinstrument")
    beam = add_group(instrument, "incident_beam", "NXbeam")
    add_field(beam, "incident_energy", float(experiment["photon_energy_kev"]), "keV")
    detector = add_group(instrument, "detector", "NXdetector")
    add_field(detector, "count_time", float(experiment["exposure_s"]), "s")
    add_field(detector, "frame_time", float(experiment["frame_period_s"]), "s")
    add_field(detector, "distance", float(experiment["detector_distance_m"]), "m")
    add_field(detector, "beam_center_x", float(experiment["beam_center_column_px"]), "pixel")
    add_field(detector, "beam_center_y", float(experiment["beam_center_row_px"]), "pixel")
    for axis in ("x", "y"):
        add_field(detector, f"{axis}_pixel_size", float(experiment["pixel_size_m"]), "m")


def _write_data(entry: h5py.Group, arrays: Arrays, metadata: Mapping[str, Any]) -> None:
    data = add_group(entry, "data", "NXdata")
    data.attrs["signal"] = "g2"
    data.attrs["axes"] = ["delay_difference", "."]
    frames = arrays["delay_s"] / float(metadata["experiment"]["frame_period_s"])
    add_field(data, "delay_difference", np.rint(frames).astype(np.int64), "frames", storage_mode="one_array")
    # The definition's one_array: delays along the first axis, bins along the second.
    add_field(data, "g2", arrays["g2"].T, storage_mode="one_array")
    add_field(data, "g2_derr", arrays["g2_err"].T, storage_mode="one_array")
    add_field(data, "frame_sum", np.nansum(arrays["intensity"], axis=0), "counts")
    if "average_frame" in arrays:
        add_field(data, "frame_average", arrays["average_frame"], "counts")


def _write_two_time(entry: h5py.Group, arrays: Arrays) -> None:
    group = add_group(entry, "twotime", "NXdata")
    group.attrs["signal"] = "two_time_corr_func"
    attributes: dict[str, Any] = {
        "baseline_reference": 1,
        "time_origin_location": "upper_left",
        "populated_elements": "all",
    }
    add_field(group, "two_time_corr_func", arrays["c2"], storage_mode="one_array_q_first", **attributes)
    add_field(group, "age", arrays["age_s"], "s")
    # The first point is the first lag, which holds no shot noise: it belongs to the fit.
    ages: dict[str, Any] = {"storage_mode": "one_array_q_last", "baseline_reference": 1, "first_point_for_fit": 1}
    add_field(group, "g2_from_two_time_corr_func", arrays["g2"].T, **ages)
    add_field(group, "g2_err_from_two_time_corr_func", arrays["g2_err"].T, storage_mode="one_array_q_last")


def _write_masks(entry: h5py.Group, arrays: Arrays) -> None:
    if "roi_map" not in arrays:
        return
    masks = add_group(entry["instrument"], "masks", "NXnote")
    add_field(masks, "dynamic_roi_map", arrays["roi_map"], "au")
    add_field(masks, "dynamic_q_list", arrays["q_inv_angstrom"], "1/angstrom")
    # Static bins are a refinement that results do not publish: the dynamic bins are the coarsest of them.
    add_field(masks, "static_roi_map", arrays["roi_map"], "au")
    add_field(masks, "static_q_list", arrays["q_inv_angstrom"], "1/angstrom")


def _write_process(file: h5py.File, metadata: Mapping[str, Any]) -> None:
    process = add_group(file, "process", "NXprocess")
    add_field(process, "program", "beamline-ml")
    add_field(process, "version", str(metadata.get("versions", {}).get("beamline_ml", ANALYSIS_VERSION)))
    published = datetime.fromtimestamp(float(metadata.get("published_at") or 0.0), UTC)
    add_field(process, "date", published.isoformat())
    add_field(process, "sequence_index", 1)
    add_field(process, "settings", json.dumps(metadata.get("settings", {}), sort_keys=True))
    add_field(process, "result_id", str(metadata.get("result_id", "")))
