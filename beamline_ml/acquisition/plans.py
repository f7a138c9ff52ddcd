"""The XPCS burst: one uninterrupted series of frames at a fixed rate, with everything that its analysis needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator
from ophyd_async.core import SignalR, StandardDetector, TriggerInfo

from beamline_ml.acquisition.failure import Explained
from beamline_ml.acquisition.playback import FLUSH_PERIOD_S
from beamline_ml.errors import AcquisitionError
from beamline_ml.records import Geometry

_LEAST_DEADTIME_S = 1e-9
"""ophyd-async leaves the detector's old frame period where it is told no dead time at all."""

_TIMING_TOLERANCE = 1e-3
"""Largest difference between asked and kept times that no analysis would notice, as a part of the time."""
_TIMING_LOOKS = 20
_TIMING_LOOK_S = 0.1


def start_metadata(
    n_frames: int,
    exposure_s: float,
    period_s: float,
    sample: str | Mapping[str, Any],
    detector: str,
    geometry: Geometry,
) -> dict[str, Any]:
    """What the start document of an XPCS run says, beside uid and time.

    Raises
    ------
    AcquisitionError
        When there would be no frame, or the exposure is longer than the period.
    """
    if n_frames < 1 or not 0 < exposure_s <= period_s:
        raise AcquisitionError(
            f"{n_frames} frames of {exposure_s:g} s every {period_s:g} s make no burst.",
            "Ask for at least one frame, with an exposure longer than zero and not longer than the period.",
        )
    return {
        "plan_name": "xpcs_burst",
        "technique": "xpcs",
        "sample": {"name": sample} if isinstance(sample, str) else dict(sample),
        "xpcs": {
            **asdict(geometry),
            "exposure_s": exposure_s,
            "frame_period_s": period_s,
            "n_frames": n_frames,
            "detector": detector,
        },
    }


def require_timing(detector: StandardDetector, exposure_s: float, period_s: float) -> MsgGenerator[None]:
    """Refuse a burst that an areaDetector driver would take with another exposure or frame period than was asked for.

    Drivers change what they cannot do, and a put that the IOC refuses raises nothing in ophyd-async 0.21. Detectors
    without a driver are left to themselves.

    Raises
    ------
    AcquisitionError
        When the driver reads back another time; every rate of the run would be wrong.
    """
    driver = getattr(detector, "driver", None)
    for name, asked_s in (("acquire_time", exposure_s), ("acquire_period", period_s)):
        if (signal := getattr(driver, name, None)) is None:
            continue
        kept_s = yield from _settled(signal, asked_s)
        if not _is_kept(kept_s, asked_s):
            raise AcquisitionError(
                f"{detector.name} was asked for a {name} of {asked_s:g} s and keeps {kept_s:g} s.",
                "Ask for times that it can keep, and look whether this account may write to its records.",
            )


def _settled(signal: SignalR[float], asked_s: float) -> MsgGenerator[float]:
    """What a read-back says; some drivers are a while behind the put."""
    kept_s = yield from bps.rd(signal)
    for _ in range(_TIMING_LOOKS):
        if _is_kept(kept_s, asked_s):
            break
        yield from bps.sleep(_TIMING_LOOK_S)
        kept_s = yield from bps.rd(signal)
    return float(kept_s)


def _is_kept(kept_s: float, asked_s: float) -> bool:
    return abs(kept_s - asked_s) <= _TIMING_TOLERANCE * asked_s


def xpcs_burst(
    n_frames: int,
    exposure_s: float,
    period_s: float,
    *,
    sample: str | Mapping[str, Any],
    detector: StandardDetector,
    geometry: Geometry,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take ``n_frames`` frames and stream them to the catalogue while they are taken.

    Parameters
    ----------
    n_frames
        Number of frames; each is one event.
    exposure_s, period_s
        Exposure of a frame, and time between the starts of two frames, in s.
    sample
        Name, or a mapping with ``name``, ``composition`` and, where known, ``number_density_per_um2`` and
        ``unordered_counts_per_pixel`` (one number per ring: what the same particles without order would scatter) and
        ``age_at_start_s`` (how long before the run the sample was without order).
    detector
        Detector that times itself.
    geometry
        How the detector sees the sample.
    md
        More entries for the start document; they do not replace those that the analysis needs.

    Returns
    -------
    str
        The run's uid.

    Raises
    ------
    AcquisitionError
        When the burst makes no sense, the detector refuses it, its files have nowhere to go, or it stops answering.
    """
    start = start_metadata(n_frames, exposure_s, period_s, sample, detector.name, geometry)
    deadtime_s = max(period_s - exposure_s, _LEAST_DEADTIME_S)
    trigger = TriggerInfo(number_of_events=n_frames, livetime=exposure_s, deadtime=deadtime_s)
    explained = Explained(detector.name)

    @bpp.stage_decorator([detector])
    @bpp.run_decorator(md={**(md or {}), **start})
    def burst() -> MsgGenerator[None]:
        with explained:  # here, so that the stop document says it too
            yield from bps.prepare(detector, trigger, wait=True)
            yield from require_timing(detector, exposure_s, period_s)
            yield from bps.declare_stream(detector, name="primary", collect=True)
            yield from bps.kickoff(detector, wait=True)
            yield from bps.collect_while_completing(
                [detector], [detector], flush_period=FLUSH_PERIOD_S, stream_name="primary"
            )

    with explained:  # and here, for what staging and unstaging raise
        return (yield from burst())
