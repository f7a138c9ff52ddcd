"""From the records of an analysis to what is published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import G2, Forecast, PowerLaw, RelaxationFits, RunDescription, TwoTime
from beamline_ml.results.content import ResultArray, ResultContent, ResultTable
from beamline_ml.results.headline import headline, sentences
from beamline_ml.results.identity import ANALYSIS_VERSION, json_safe, request_id, result_id, result_key

LARGEST_IMAGE_BYTES = 32 * 2**20
"""Average frames beyond this are left out: publishing must not take longer than the analysis."""


class Kernel(Protocol):
    """What publication needs of a dynamics fit (:class:`beamline_ml.dynamics.DynamicsFit`)."""

    diffusion_um2_per_s: float
    diffusion_um2_per_s_err: float
    chi2: float
    describes_data: bool
    warnings: tuple[str, ...]
    mode: str

    @property
    def resolution_um(self) -> float:
        """Distance in um below which the force is not determined."""
        ...

    def kernel(self, r_um: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the radial force at ``r_um``."""
        ...


@dataclass(frozen=True)
class Analysis:
    """Everything that one analysis of one run found out."""

    description: RunDescription
    settings: Mapping[str, Any]
    """Every setting that changes numbers, with the defaults filled in."""
    two_time: TwoTime
    """As it is published: rows may be binned."""
    time_binning: int
    """Frames per published row of C2."""
    g2: G2
    relaxation: RelaxationFits
    power_law: PowerLaw | None
    dynamics: Kernel | None = None
    kernel_r_um: NDArray[np.float64] | None = None
    """Distances at which the force is published."""
    forecast: Forecast | None = None
    refusal: str | None = None
    """Why there is no dynamics fit or no forecast, in words."""
    average_frame: NDArray[np.float32] | None = None
    """(rows, cols) mean counts of a frame."""
    roi_map: NDArray[Any] | None = None
    """(rows, cols) q bin of each pixel, 0 = unused."""
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Flow run, versions, source of the frames, machine."""
    timings_s: Mapping[str, float] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    """The settings that were asked for by name; a failure of the same request is settled by this result."""


def assemble(analysis: Analysis) -> ResultContent:
    """Put an analysis into arrays, tables and searchable metadata."""
    run = analysis.description
    return ResultContent(
        result_id=result_id(run.uid, analysis.settings),
        key=result_key(run.scan_id, run.sample_name, run.uid),
        metadata=_metadata(analysis),
        arrays=tuple(_arrays(analysis)),
        tables=tuple(_tables(analysis)),
    )


def _metadata(analysis: Analysis) -> dict[str, Any]:
    run = analysis.description
    numbers, forecast = headline(analysis), analysis.forecast
    return dict(
        json_safe(
            {
                **run_metadata(run.metadata, run.uid, run.scan_id, run.sample),
                "result_id": result_id(run.uid, analysis.settings),
                "request_id": request_id(run.uid, analysis.asked),
                "flow_run_id": analysis.provenance.get("flow_run_id"),
                "versions": {"analysis": ANALYSIS_VERSION, **analysis.provenance.get("versions", {})},
                "experiment": _experiment(run),
                "forecast_q_inv_angstrom": None if forecast is None else forecast.q_inv_angstrom,
                "quality": _quality(analysis),
                "headline": numbers,
                "summary": sentences(numbers),
                "definitions": {"g2": analysis.g2.definition, "g2_err": analysis.g2.error_method},
                "settings": dict(analysis.settings),
                "warnings": list(dict.fromkeys(analysis.warnings)),
                "provenance": {k: v for k, v in analysis.provenance.items() if k != "versions"},
                "timings_s": dict(analysis.timings_s),
            }
        )
    )


def run_metadata(start: Mapping[str, Any], uid: str, scan_id: int | None, sample: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the metadata that says which run this is about; results and failures share it."""
    return {
        "scan_uid": uid,
        "scan_id": scan_id,
        "sample": dict(sample),
        "technique": start.get("technique", "xpcs"),
        "plan_name": start.get("plan_name"),
        "run_time": start.get("time"),
    }


def _experiment(run: RunDescription) -> dict[str, Any]:
    return {
        **asdict(run.geometry),
        "frame_period_s": run.frame_period_s,
        "exposure_s": run.exposure_s,
        "n_frames": run.n_frames,
        "frame_shape": list(run.frame_shape),
        "exit_status": run.exit_status,
    }


def _quality(analysis: Analysis) -> dict[str, Any]:
    quality = analysis.two_time.quality
    counts = {f"{name}_rows": int(getattr(quality, name).sum()) for name in ("missing", "zero", "saturated", "outlier")}
    fitted = [reason is None for reason in analysis.relaxation.refused]
    return {
        **counts,
        "masked_pixels": quality.n_masked_pixels,
        "time_binning": analysis.time_binning,
        "q_bins_fitted": sum(fitted),
        "q_bins": len(fitted),
    }


def _arrays(analysis: Analysis) -> Iterator[ResultArray]:
    two_time, g2 = analysis.two_time, analysis.g2
    every = f", averaged over {analysis.time_binning} frames" if analysis.time_binning > 1 else ""
    yield ResultArray("c2", two_time.c2, ("q", "t1", "t2"), "1", f"two-time correlation{every}")
    yield ResultArray("age_s", two_time.age_s, ("t1",), "s", "time of each row of c2 since the start of the run")
    yield ResultArray("q_inv_angstrom", two_time.q_inv_angstrom, ("q",), "1/angstrom", "mean momentum transfer")
    intensity = two_time.frame_sum / two_time.n_pixels[:, None] / analysis.time_binning
    yield ResultArray("intensity", intensity.astype(np.float32), ("q", "t1"), "counts", "mean counts per pixel")
    yield ResultArray("g2", g2.g2, ("q", "delay"), "1", f"intensity correlation function ({g2.definition})")
    yield ResultArray("g2_err", g2.g2_err, ("q", "delay"), "1", f"standard error of g2 ({g2.error_method})")
    yield ResultArray("delay_s", g2.delay_s, ("delay",), "s", "lag time of g2")
    yield from _forecast_arrays(analysis.forecast)
    yield from _images(analysis)


def _forecast_arrays(forecast: Forecast | None) -> Iterator[ResultArray]:
    """Value and band of C2 and S(q, t); few arrays, because each costs tiled two requests."""
    if forecast is None:
        return
    said = f"forecast by {forecast.method}; rows after {forecast.observed_until_s:g} s were not observed"
    band = f"95 % band (lower edge, upper edge), {said}"
    c2_band = np.stack([forecast.lower, forecast.upper])
    s_q_band = np.stack([forecast.s_q_lower, forecast.s_q_upper])
    c2_dims, s_q_dims = ("q_forecast", "time_1", "time_2"), ("q_forecast", "time")
    yield ResultArray("forecast_times_s", forecast.times_s, ("time",), "s", "age of each row of the forecast")
    yield ResultArray("forecast_c2", forecast.c2, c2_dims, "1", f"two-time correlation, {said}")
    yield ResultArray("forecast_c2_band", c2_band, ("lower_upper", *c2_dims), "1", f"two-time correlation, {band}")
    yield ResultArray("forecast_s_q", np.asarray(forecast.s_q), s_q_dims, "relative", f"structure factor, {said}")
    yield ResultArray("forecast_s_q_band", s_q_band, ("lower_upper", *s_q_dims), "relative", f"structure, {band}")


def _images(analysis: Analysis) -> Iterator[ResultArray]:
    frame, roi = analysis.average_frame, analysis.roi_map
    if frame is not None and frame.nbytes <= LARGEST_IMAGE_BYTES:
        yield ResultArray("average_frame", frame, ("row", "column"), "counts", "mean of all frames used")
    if roi is not None and roi.size * 2 <= LARGEST_IMAGE_BYTES:
        yield ResultArray("roi_map", roi.astype(np.uint16), ("row", "column"), "1", "q bin of each pixel, 0 = unused")


def _tables(analysis: Analysis) -> Iterator[ResultTable]:
    fits = analysis.relaxation
    names = ("q_inv_angstrom", "relaxation_time_s", "contrast", "stretching", "baseline")
    columns: dict[str, Any] = {}
    for name in names:
        columns[name] = getattr(fits, name)
        if name != "q_inv_angstrom":
            columns[f"{name}_err"] = getattr(fits, f"{name}_err")
    columns["reduced_chi2"] = fits.reduced_chi2
    columns["refused"] = [reason or "" for reason in fits.refused]
    yield ResultTable("relaxation", columns, "KWW fit of g2 for each q bin; NaN where it was refused, and why")
    if analysis.dynamics is not None and analysis.kernel_r_um is not None:
        force, deviation = analysis.dynamics.kernel(analysis.kernel_r_um)
        yield ResultTable(
            "kernel",
            {
                "r_um": analysis.kernel_r_um,
                "mean_um_per_s": force,
                "std_um_per_s": deviation,
                "resolved": analysis.kernel_r_um >= analysis.dynamics.resolution_um,
            },
            "radial drift velocity that a neighbour at distance r causes; positive pushes apart; where it is not "
            "resolved (closer than pi / q_max), rings hardly see the force: mean and deviation cannot be relied on",
        )
    if analysis.forecast is not None and analysis.forecast.contest:
        ranked = sorted(analysis.forecast.contest.items(), key=lambda entry: entry[1])
        yield ResultTable(
            "contest",
            {
                "method": [name for name, _ in ranked],
                "rmse": np.array([score for _, score in ranked], np.float64),
                "published": [name == analysis.forecast.method for name, _ in ranked],
            },
            "rolling-origin RMSE of (C2 - baseline)/contrast of every forecaster on this run; smaller is better, and "
            "what is within chance of the best goes to the force law, then to curves with a law of ageing",
        )
