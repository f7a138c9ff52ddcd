"""Turn a run's documents into a checked :class:`~beamline_ml.records.RunDescription`, or say what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from beamline_ml.documents.fields import EXPOSURE, FIELDS, FRAME_PERIOD, GEOMETRY_FIELDS, Place
from beamline_ml.documents.gate import lookup_in, read_field, require_consistent_timing
from beamline_ml.documents.lookup import plain_container
from beamline_ml.errors import MetadataMissing, RunAborted, StreamMissing
from beamline_ml.records import Geometry, RunDescription

FEWEST_FRAMES = 2
"""A correlation needs at least two frames."""
FEWEST_FRAMES_OF_ABORTED_RUN = 32
"""An aborted run is analysed when it got this far; below, relaxation fits would not be trustworthy."""

PlacesByField = Mapping[str, tuple[Place, ...]]


class _Frames(NamedTuple):
    stream: str
    key: str
    device: str
    shape: tuple[int, ...]
    configuration: dict[str, Any]


def describe_run(
    run: Any, places: PlacesByField | None = None, fewest_frames: int = FEWEST_FRAMES_OF_ABORTED_RUN
) -> RunDescription:
    """Check what a run says about itself and put it into one record.

    Parameters
    ----------
    run
        Client of the run (:func:`beamline_ml.documents.find_run`).
    places
        Additional places of this beamline by field name, looked at before those of
        :data:`beamline_ml.documents.fields.FIELDS`.
    fewest_frames
        Fewest frames for which a run that was aborted or failed is still analysed.

    Raises
    ------
    StreamMissing
        When no stream holds area-detector frames.
    RunAborted
        When the run ended with abort or fail before ``fewest_frames``.
    MetadataMissing
        When energy, distance, pixel size, beam centre, frame period or exposure is missing or makes no sense.
    """
    start = run.metadata["start"]
    stop = run.metadata.get("stop") or {}
    name = run_name(start)
    frames = _detector_frames(run, start, stop, name)
    _require_frames(frames, stop, name, fewest_frames)
    values, warnings = _read_values(start, frames, name, places or {})
    sample = _sample(start)
    return RunDescription(
        uid=start["uid"],
        scan_id=start.get("scan_id"),
        sample_name=str(sample["name"]),
        sample=sample,
        geometry=Geometry(**{field.name: values[field.name] for field in GEOMETRY_FIELDS}),
        frame_period_s=values[FRAME_PERIOD.name],
        exposure_s=values[EXPOSURE.name],
        n_frames=frames.shape[0],
        frame_shape=(frames.shape[-2], frames.shape[-1]),
        started_at=float(start["time"]),
        finished=bool(stop),
        exit_status=stop.get("exit_status"),
        metadata=_plain(start),
        stream=frames.stream,
        detector=frames.key,
        warnings=(*warnings, *_exit_warning(stop, frames, start)),
    )


def run_name(start: Mapping[str, Any]) -> str:
    """How to call a run in a message: its scan id and the beginning of its uid."""
    scan = f"Scan {start['scan_id']} " if start.get("scan_id") is not None else "Run "
    return f"{scan}({str(start.get('uid', '?'))[:8]})"


def _plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    return node


def _sample(start: Mapping[str, Any]) -> dict[str, Any]:
    sample = start.get("sample")
    if isinstance(sample, Mapping) and sample.get("name"):
        return dict(_plain(sample))
    name = sample if isinstance(sample, str) and sample else start.get("sample_name", "unnamed")
    return {"name": str(name), **(dict(_plain(sample)) if isinstance(sample, Mapping) else {})}


def _detector_frames(run: Any, start: Mapping[str, Any], stop: Mapping[str, Any], name: str) -> _Frames:
    candidates = [frames for key, stream in run.items() for frames in _image_keys(stream, key)]
    wanted = _wanted_detector(start)
    chosen = [frames for frames in candidates if wanted in (frames.key, frames.device)] or candidates
    if not chosen:
        _refuse_run_without_frames(run, stop, name)
    return max(chosen, key=lambda frames: (frames.stream == "primary", frames.shape[0]))


def _refuse_run_without_frames(run: Any, stop: Mapping[str, Any], name: str) -> NoReturn:
    ending = f" It ended with {stop['exit_status']!r}: {stop.get('reason') or 'no reason given'}." if stop else ""
    announced = any("external" in key for stream in run for key in run[stream].metadata.get("data_keys", {}).values())
    if announced and stop.get("exit_status", "success") != "success":
        raise RunAborted(f"{name} delivered no frame.{ending}", "Nothing to analyse; take the run again.")
    raise StreamMissing(
        f"{name} has no stream with area-detector frames (streams: {', '.join(run) or 'none'}).{ending}",
        "Take it again with a plan that collects an area detector, for example xpcs_burst.",
    )


def _wanted_detector(start: Mapping[str, Any]) -> str | None:
    xpcs = start.get("xpcs")
    return xpcs.get("detector") if isinstance(xpcs, Mapping) else None


def _image_keys(stream: Any, stream_name: str) -> Iterator[_Frames]:
    external = {key: told for key, told in stream.metadata.get("data_keys", {}).items() if "external" in told}
    children = dict(plain_container(stream).items()) if external else {}
    for key, data_key in external.items():
        if key not in children:
            continue
        shape = tuple(int(n) for n in children[key].shape)
        if len(shape) >= 3 and all(n == 1 for n in shape[1:-2]):
            device = data_key.get("object_name", key)
            yield _Frames(stream_name, key, device, shape, _configuration(stream))


def _configuration(stream: Any) -> dict[str, Any]:
    readings: dict[str, Any] = {}
    for device in stream.metadata.get("configuration", {}).values():
        readings |= device.get("data", {})
    return readings


def _require_frames(frames: _Frames, stop: Mapping[str, Any], name: str, fewest: int) -> None:
    status = stop.get("exit_status", "success")
    if status != "success" and frames.shape[0] < fewest:
        raise RunAborted(
            f"{name} ended with {status!r} after {frames.shape[0]} frames: {stop.get('reason') or 'no reason given'}.",
            f"Nothing is wrong with the analysis; take the run again ({fewest} frames would have been enough).",
        )
    if frames.shape[0] < FEWEST_FRAMES or 0 in frames.shape:
        raise StreamMissing(
            f"{name} has {frames.shape[0]} frame(s) of shape {frames.shape[-2:]}.",
            "Take it again: a correlation needs at least two frames.",
        )


def _exit_warning(stop: Mapping[str, Any], frames: _Frames, start: Mapping[str, Any]) -> Iterator[str]:
    status = stop.get("exit_status", "success")
    if status != "success":
        yield f"The run ended with {status!r}; the {frames.shape[0]} frames taken until then were analysed."
    xpcs = start.get("xpcs")
    planned = xpcs.get("n_frames") if isinstance(xpcs, Mapping) else None
    if status == "success" and stop and isinstance(planned, int) and planned != frames.shape[0]:
        yield f"The plan announced {planned} frames; {frames.shape[0]} are in the catalogue."


def _read_values(
    start: Mapping[str, Any], frames: _Frames, name: str, places: PlacesByField
) -> tuple[dict[str, float], list[str]]:
    look_up = lookup_in(start, frames.configuration, frames.device)
    values: dict[str, float] = {}
    warnings: list[str] = []
    missing: list[MetadataMissing] = []
    for field in FIELDS:
        try:
            values[field.name], contradictions = read_field(field, look_up, name, places.get(field.name, ()))
            warnings += contradictions
        except MetadataMissing as error:
            missing.append(error)
    _raise_all(missing)
    require_consistent_timing(values[FRAME_PERIOD.name], values[EXPOSURE.name], name)
    return values, warnings


def _raise_all(missing: list[MetadataMissing]) -> None:
    """Say everything that is missing at once, so that one correction of the plan is enough."""
    if missing:
        remedies = list(dict.fromkeys(error.remedy for error in missing))
        raise MetadataMissing(" ".join(error.culprit for error in missing), " ".join(remedies))
