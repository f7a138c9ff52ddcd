"""Correlate a detector file without a run: frames or photon events and a q-map in, an APS result file out."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation import (
    MultiTauAccumulator,
    QMap,
    TwoTimeAccumulator,
    bad_pixels,
    multi_tau_events,
)
from beamline_ml.errors import BudgetExceeded, GeometryError, SettingsError
from beamline_ml.frames import FrameReader, load_mask, load_qmap, open_file
from beamline_ml.frames.qmap_files import aps_qmap_fields
from beamline_ml.frames.recorded import Recorded
from beamline_ml.frames.sparse import EventFrames
from beamline_ml.records import G2, BoolArray, FrameBlock, TwoTime
from beamline_ml.results.aps import aps_bytes
from beamline_ml.results.nexus_fields import replace_file

MOST_ROWS = 2048
"""Longer runs get g2 only: their two-time functions would make files that no viewer opens."""
_BYTES_PER_PAIR = 12
_BYTES_PER_BIN_AND_FRAME = 80
"""Of photon events: the counts of a frame, and their products at the lags of a level, in int64."""
_FRAMES_FOR_BAD_PIXELS = 400
_TOLERANCE = 0.01
_OF_QMAP = {
    "photon_energy_kev": "energy",
    "detector_distance_m": "detector_distance",
    "pixel_size_m": "pixel_size",
    "beam_center_row_px": "beam_center_y",
    "beam_center_column_px": "beam_center_x",
}
"""Geometry by our name, and what an APS q-map calls it."""


@dataclass(frozen=True)
class FileRequest:
    """Which file, with which map, and what the file itself does not say."""

    file: Path
    qmap: Path
    out: Path | None = None
    """Result file. None: ``<name>_results.hdf`` in the current folder."""
    mask: Path | None = None
    frame_period_s: float | None = None
    n_frames: int | None = None
    photon_at: str = "centroid"
    normalization: str = "plain"
    max_gib: float = 4.0


@dataclass(frozen=True)
class _Found:
    """What the frames say."""

    g2: G2
    two_time: TwoTime | None
    static_intensity: NDArray[np.float64]
    """(n_static, n_frames) mean counts per pixel."""
    average_frame: NDArray[np.float64]
    """(rows, cols)."""


@dataclass(frozen=True)
class _Task:
    reader: FrameReader
    qmap: QMap
    period_s: float
    experiment: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def correlate_file(request: FileRequest) -> dict[str, Any]:
    """Correlate and write; what was done comes back as plain data.

    Raises
    ------
    SettingsError
        When the frame time is unknown, or the result would replace the detector file.
    GeometryError
        When q-map or mask do not fit, or neither file says energy, distance, pixel size and beam centre.
    FramesError, CorrelationError
        As :func:`beamline_ml.frames.open_file` and the correlators say.
    """
    out = request.out or Path(f"{request.file.name.split('.')[0]}_results.hdf")
    if out.resolve() in (request.file.resolve(), request.qmap.resolve()):
        raise SettingsError(f"The result would replace {out}.", "Give another --out.")
    with open_file(
        request.file,
        frame_period_s=request.frame_period_s,
        n_frames=request.n_frames,
        photon_at=request.photon_at,
        max_gib=request.max_gib,
    ) as reader:
        task = _task(request, reader)
        if isinstance(reader, EventFrames) and reader.shape[0] > MOST_ROWS:
            found = _from_events(task, reader)
        else:
            found = _from_frames(task, request)
    fields = _fields_that_still_hold(aps_qmap_fields(request.qmap), task.qmap)
    replace_file(out, aps_bytes(_metadata(request, task), _arrays(task, found), fields))
    return _report(request, task, found, out)


def _fields_that_still_hold(fields: dict[str, Any], used: QMap) -> dict[str, Any]:
    """The q-map as its file has it, unless bad pixels emptied a static bin, which would leave a gap in its lists."""
    static = fields.get("static_roi_map", fields.get("dynamic_roi_map"))
    return fields if static is not None and int(static.max()) == used.n_static else {}


def _task(request: FileRequest, reader: FrameReader) -> _Task:
    period_s = reader.recorded.frame_period_s
    if period_s is None:
        raise SettingsError(
            f"{request.file.name} does not say the time between two frames.", "Give it in s: --frame-period-s."
        )
    frame_shape = (reader.shape[1], reader.shape[2])
    qmap = load_qmap(request.qmap, frame_shape)
    notes = list(reader.recorded.notes)
    bad = _bad(reader)
    if request.mask is not None:
        bad |= ~load_mask(request.mask, frame_shape)
    experiment = _experiment(reader, aps_qmap_fields(request.qmap), request, notes)
    return _Task(reader, qmap.without(bad), period_s, experiment, notes)


def _bad(reader: FrameReader) -> BoolArray:
    """Pixels that the file marks and those that do not count photons; sparse photons are too few to judge by."""
    marked = np.zeros(reader.shape[1:], np.bool_) if reader.unusable is None else reader.unusable.copy()
    if isinstance(reader, EventFrames):
        return marked
    most = max(1, min(_FRAMES_FOR_BAD_PIXELS, reader.shape[0], reader.max_bytes // max(1, reader.frame_bytes)))
    return marked | bad_pixels(reader.read(0, most).frames)


def _experiment(reader: FrameReader, fields: dict[str, Any], request: FileRequest, notes: list[str]) -> dict[str, Any]:
    recorded = reader.recorded
    known = {name: _agreed(name, recorded, fields, notes) for name in _OF_QMAP}
    missing = [name for name, value in known.items() if value is None]
    if missing:
        raise GeometryError(
            f"Neither {request.file.name} nor {request.qmap.name} says {', '.join(missing)}.",
            "Use an APS q-map with its geometry, or write the values into the detector file.",
        )
    timing = {"frame_period_s": recorded.frame_period_s, "exposure_s": recorded.exposure_s or recorded.frame_period_s}
    return {**known, **timing, "n_frames": reader.shape[0], "frame_shape": list(reader.shape[1:])}


def _agreed(name: str, recorded: Recorded, fields: dict[str, Any], notes: list[str]) -> float | None:
    """The q-map's value, with which its q were computed; else the detector file's."""
    said: float | None = getattr(recorded, name)
    if _OF_QMAP[name] not in fields:
        return said
    value = float(np.asarray(fields[_OF_QMAP[name]]).reshape(-1)[0])
    if said is not None and not np.isclose(said, value, rtol=_TOLERANCE):
        notes.append(f"The q-map says {name} = {value:.6g}, the detector file {said:.6g}; that of the q-map was used.")
    return value


def _from_events(task: _Task, reader: EventFrames) -> _Found:
    """g2 of a long run of photons, without making its frames."""
    n, qmap = reader.shape[0], task.qmap
    _require_room_for_lags(n, qmap.n_static, reader.max_bytes)
    events = reader.events()
    task.notes.append(f"No two-time functions: the run has {n} frames (at most {MOST_ROWS}).")
    g2 = multi_tau_events(events.frame, events.pixel, qmap, n, task.period_s, count=events.count)
    place = qmap.static_labels.ravel()[events.pixel] * n + events.frame
    sums = np.bincount(place, events.count, (qmap.n_static + 1) * n).reshape(-1, n)[1:]
    image = np.bincount(events.pixel, events.count, qmap.labels.size).reshape(qmap.frame_shape) / n
    return _Found(g2, None, sums / qmap.n_static_pixels[:, None], image)


def _require_room_for_lags(n_frames: int, n_static: int, max_bytes: int) -> None:
    """One damaged event can put the end of a run anywhere, and the sums of each frame are kept for every lag."""
    needed = n_frames * n_static * _BYTES_PER_BIN_AND_FRAME
    if needed > max_bytes:
        raise BudgetExceeded(
            f"The sums of {n_frames} frames in {n_static} static bins need {needed / 2**30:.3g} GiB; "
            f"{max_bytes / 2**30:.3g} GiB are allowed.",
            "If the run is that long, raise --max-gib or use fewer static bins; if not, the file is damaged.",
        )


def _from_frames(task: _Task, request: FileRequest) -> _Found:
    n = task.reader.shape[0]
    one = MultiTauAccumulator(task.qmap, task.period_s)
    two = _two_time_accumulator(task, request, n)
    means = _Means(task.qmap, n)
    for block in task.reader.blocks():
        means.add(block)
        one.add(block.frames, block.first_index)
        if two is not None:
            two.add(block.frames, block.first_index)
    two_time = None if two is None else two.result()
    return _Found(one.result(), two_time, means.static, means.image / n)


def _two_time_accumulator(task: _Task, request: FileRequest, n: int) -> TwoTimeAccumulator | None:
    if n > MOST_ROWS or task.qmap.n_q * n**2 * _BYTES_PER_PAIR > task.reader.max_bytes:
        task.notes.append(f"No two-time functions: the run has {n} frames (at most {MOST_ROWS}, and max_gib holds).")
        return None
    return TwoTimeAccumulator(task.qmap, task.period_s, n, request.normalization)


class _Means:
    """Mean counts of each static bin and frame, and the sum of all frames."""

    def __init__(self, qmap: QMap, n_frames: int) -> None:
        self._qmap = qmap
        self._labels = qmap.static_labels.ravel()
        self.static: NDArray[np.float64] = np.zeros((qmap.n_static, n_frames))
        self.image: NDArray[np.float64] = np.zeros(qmap.frame_shape)

    def add(self, block: FrameBlock) -> None:
        used = self._labels > 0
        for i, frame in enumerate(block.frames, block.first_index):
            counts = np.where(used, frame.ravel(), 0)
            sums = np.bincount(self._labels, counts, self._qmap.n_static + 1)[1:]
            self.static[:, i] = sums / self._qmap.n_static_pixels
            self.image += counts.reshape(self.image.shape)


def _arrays(task: _Task, found: _Found) -> dict[str, NDArray[Any]]:
    return dict(_named(task, found))


def _named(task: _Task, found: _Found) -> Iterator[tuple[str, NDArray[Any]]]:
    qmap = task.qmap
    weight = qmap.n_static_pixels[:, None]
    owner = qmap.dynamic_of_static
    sums = np.stack([(found.static_intensity * weight)[owner == q].sum(axis=0) for q in range(qmap.n_q)])
    yield "g2", found.g2.g2
    yield "g2_err", found.g2.g2_err
    yield "delay_s", found.g2.delay_s
    yield "q_inv_angstrom", qmap.q_inv_angstrom
    yield "intensity", sums / qmap.n_pixels[:, None]
    yield "roi_map", qmap.labels
    yield "static_roi_map", qmap.static_labels
    yield "static_intensity", found.static_intensity
    yield "mask", qmap.mask
    yield "average_frame", found.average_frame
    if found.two_time is not None:
        yield "c2", found.two_time.c2


def _metadata(request: FileRequest, task: _Task) -> dict[str, Any]:
    return {
        "status": "complete",
        "scan_uid": str(uuid.uuid5(uuid.NAMESPACE_URL, request.file.resolve().as_uri())),
        "scan_id": None,
        "run_time": request.file.stat().st_mtime,
        "technique": "xpcs",
        "sample": {"name": request.file.name.split(".")[0]},
        "experiment": task.experiment,
        "settings": {
            "qmap": request.qmap.name,
            "qmap_sha256": hashlib.sha256(request.qmap.read_bytes()).hexdigest(),
            "normalization": request.normalization,
            "photon_at": request.photon_at,
        },
        "provenance": {"path": str(request.file.resolve())},
        "quality": {"time_binning": 1},
    }


def _report(request: FileRequest, task: _Task, found: _Found, out: Path) -> dict[str, Any]:
    return {
        "file": str(request.file),
        "result": str(out),
        "n_frames": task.reader.shape[0],
        "frame_shape": list(task.reader.shape[1:]),
        "frame_period_s": task.period_s,
        "q_bins": task.qmap.n_q,
        "bad_pixels": task.qmap.n_bad_pixels,
        "two_time": found.two_time is not None,
        "longest_delay_s": float(found.g2.delay_s[-1]),
        "mean_counts_per_pixel": float(
            np.average(found.static_intensity.mean(axis=1), weights=task.qmap.n_static_pixels)
        ),
        "notes": task.notes,
    }
