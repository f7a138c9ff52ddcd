"""The steps of an analysis, each from records to records; the flow ``xpcs-fit`` is their table of contents."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from beamline_ml.correlation import (
    QMap,
    UnusablePixels,
    coarser_rows,
    fit_power_law,
    fit_relaxation,
    g2_from_two_time,
    register_beam_center,
    two_time,
)
from beamline_ml.correlation.partition import momentum_transfer, polar_pixels
from beamline_ml.documents import beamline_places, describe_run, find_run
from beamline_ml.errors import BudgetExceeded, FitRefused, RunError, SettingsError
from beamline_ml.frames import FrameReader, load_mask, load_qmap, open_frames
from beamline_ml.records import G2, Forecast, FrameBlock, Geometry, PowerLaw, RelaxationFits, RunDescription, TwoTime
from beamline_ml.settings import AnalysisSettings, MetadataSettings, Settings

MOST_ROWS_PUBLISHED = 1024
_FRAMES_FOR_BAD_PIXELS = 400
_STATIC_BINS_PER_RING = 4
_LARGEST_HEAD_BYTES = 64 * 2**20
"""Frames read for the search of bad pixels are correlated as one block up to this size, and read again beyond it."""
_FEWEST_FRAMES = 16
_BYTES_PER_PAIR = 12
"""Of a pair of frames in one q bin: the exact sum in int64 and C2 in float32."""
_Q_TOLERANCE = 0.02
_BEAM_CENTER_TOLERANCE_PX = 1.0


@dataclass(frozen=True)
class Subject:
    """The run under analysis."""

    run: Any
    """tiled's client of the run."""
    description: RunDescription
    first: int
    """First frame used."""
    last: int
    """One past the last frame used."""


@dataclass(frozen=True)
class Correlated:
    """What the frames say."""

    qmap: QMap
    two_time: TwoTime
    g2: G2
    relaxation: RelaxationFits
    power_law: PowerLaw
    average_frame: NDArray[np.float32]
    """(rows, cols) mean counts."""
    source: str
    """Where the frames were read: 'file' or 'tiled'."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explained:
    """What the dynamics fit says; or why there is none."""

    fit: Any | None
    """:class:`beamline_ml.dynamics.DynamicsFit`."""
    forecast: Forecast | None
    refusal: str | None
    warnings: tuple[str, ...] = ()


def analysis_settings(settings: Settings, asked: Mapping[str, Any]) -> AnalysisSettings:
    """Settings of one analysis: the profile's, overridden by what was asked for (None asks for nothing).

    Raises
    ------
    SettingsError
        When a value makes no sense; the message names it.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    try:
        return AnalysisSettings(**{**settings.analysis.model_dump(), **given})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"The parameters do not make sense: {wrong}.", "Correct them and ask again.") from error


def identity_settings(analysis: AnalysisSettings) -> dict[str, Any]:
    """Every setting that changes numbers, files by their content: an edited mask gives another result."""
    numbers = analysis.model_dump()
    for name in ("qmap", "mask"):
        path = numbers[name]
        if path is not None and Path(path).is_file():
            numbers[f"{name}_sha256"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return numbers


def look_up(raw: Any, run_uid: str, analysis: AnalysisSettings, metadata: MetadataSettings | None = None) -> Subject:
    """Find the run and check what it says about itself.

    Raises
    ------
    RunError
        As :func:`~beamline_ml.documents.find_run` and :func:`~beamline_ml.documents.describe_run`; also when the frame
        range leaves too few frames.
    SettingsError
        When the profile names a place for something that the analysis does not ask for.
    """
    run = find_run(raw, run_uid)
    description = describe_run(run, beamline_places(metadata or MetadataSettings()))
    last = description.n_frames if analysis.last_frame is None else min(analysis.last_frame, description.n_frames)
    if last - analysis.first_frame < _FEWEST_FRAMES:
        raise RunError(
            f"Frames {analysis.first_frame} to {last} of run {description.uid[:8]} are fewer than {_FEWEST_FRAMES}.",
            "Widen the frame range, or take a longer burst.",
        )
    return Subject(run, description, analysis.first_frame, last)


def read_frames(subject: Subject, settings: Settings) -> FrameReader:
    """Open the run's frames: the file itself where that is allowed, else through tiled."""
    return open_frames(
        subject.run,
        subject.description,
        allowed_roots=settings.allowed_roots,
        max_gib=settings.data.max_gib,
        missing_file_wait_s=settings.data.missing_file_wait_s,
    )


def choose_qmap(subject: Subject, analysis: AnalysisSettings) -> QMap:
    """The q-map that was asked for, or rings from the run's geometry; with the mask taken out."""
    shape = subject.description.frame_shape
    mask = None if analysis.mask is None else load_mask(analysis.mask, shape)
    if analysis.qmap is not None:
        qmap = _with_q(load_qmap(analysis.qmap, shape, analysis.n_q), subject.description.geometry)
        return qmap if mask is None else qmap.without(~mask)
    n_static = _STATIC_BINS_PER_RING * analysis.n_q if analysis.normalization == "static" else None
    return QMap.from_geometry(subject.description.geometry, shape, n_q=analysis.n_q, n_static=n_static, mask=mask)


def _with_q(qmap: QMap, geometry: Geometry) -> QMap:
    """The same map with the q of the run's geometry, where the file does not say its q."""
    if np.isfinite(qmap.q_inv_angstrom).all():
        return qmap
    return QMap(qmap.labels, qmap.static_labels, qmap.mask, qmap.flatfield, _mean_q(qmap, geometry))


def _mean_q(qmap: QMap, geometry: Geometry) -> NDArray[np.float64]:
    radius_px, _ = polar_pixels(geometry, qmap.frame_shape)
    q = momentum_transfer(geometry, radius_px)
    return np.bincount(qmap.labels.ravel(), q.ravel(), qmap.n_q + 1)[1:] / qmap.n_pixels


def _q_warnings(qmap: QMap, geometry: Geometry) -> tuple[str, ...]:
    """Whether the q-map says another q than the run's geometry: one of the two belongs to another experiment."""
    expected = _mean_q(qmap, geometry)
    off = np.nanmax(np.abs(qmap.q_inv_angstrom / expected - 1))
    if off <= _Q_TOLERANCE:
        return ()
    return (
        f"The q values of the q-map differ by up to {off:.0%} from those of the run's geometry (energy, distance, beam "
        "centre); those of the q-map were used.",
    )


def _beam_center_warnings(
    average: NDArray[np.float32], usable: NDArray[np.bool_], geometry: Geometry
) -> tuple[str, ...]:
    """Whether the scattering is centred elsewhere than the run says: its q would be wrong."""
    row_px, column_px = geometry.beam_center_row_px, geometry.beam_center_column_px
    found = register_beam_center(average, usable, row_px, column_px)
    if found is None or found.distance_px(row_px, column_px) <= max(_BEAM_CENTER_TOLERANCE_PX, 4 * found.err_px):
        return ()
    return (
        f"The scattering is centred at row {found.row_px:.1f}, column {found.column_px:.1f} (+- {found.err_px:.1f} "
        f"pixels), {found.distance_px(row_px, column_px):.1f} pixels from the run's beam centre (row {row_px:.1f}, "
        f"column {column_px:.1f}), which was used; if the scattering is right, q is wrong by as many pixels.",
    )


def _file_warnings(description: RunDescription, reader: FrameReader) -> tuple[str, ...]:
    """What the detector file says twice, or otherwise than the run."""
    return (*reader.recorded.notes, *reader.recorded.disagreements(description.geometry, description.exposure_s))


def correlate(subject: Subject, reader: FrameReader, qmap: QMap, normalization: str) -> Correlated:
    """Two-time functions, g2, relaxation fits and their power law, without the pixels that are bad.

    Raises
    ------
    BudgetExceeded
        When the two-time functions of so many frames would not fit into the memory that is allowed.
    """
    _require_room(subject, reader, qmap)
    sample = reader.read(subject.first, _sample_end(subject, reader))
    unusable = UnusablePixels.found_in(sample.frames, qmap)
    used = qmap.without(unusable.all)
    average = _Average()
    period_s = subject.description.frame_period_s
    correlated = two_time(
        average.watching(_blocks(subject, reader, sample)),
        used,
        normalization,
        period_s,
        n_frames=subject.last - subject.first,
    )
    correlated = replace(
        correlated,
        age_s=correlated.age_s + subject.first * period_s,
        quality=replace(correlated.quality, n_masked_pixels=used.n_bad_pixels - qmap.n_bad_pixels),
    )
    g2 = g2_from_two_time(correlated)
    fits = fit_relaxation(g2, correlated)
    return Correlated(
        used,
        correlated,
        g2,
        fits,
        fit_power_law(fits),
        average.mean(),
        reader.source,
        (
            *_q_warnings(used, subject.description.geometry),
            *_file_warnings(subject.description, reader),
            *unusable.warnings(),
            *_beam_center_warnings(average.mean(), used.labels > 0, subject.description.geometry),
        ),
    )


def _sample_end(subject: Subject, reader: FrameReader) -> int:
    """One past the last frame that is searched for bad pixels."""
    return min(subject.first + sample_of_bad_pixels(reader), subject.last)


def sample_of_bad_pixels(reader: FrameReader) -> int:
    """How many frames are searched for bad pixels, as many as memory allows."""
    return max(1, min(_FRAMES_FOR_BAD_PIXELS, reader.max_bytes // max(1, reader.frame_bytes)))


def _require_room(subject: Subject, reader: FrameReader, qmap: QMap) -> None:
    n_frames = subject.last - subject.first
    needed = qmap.n_q * n_frames**2 * _BYTES_PER_PAIR
    if needed > reader.max_bytes:
        most = math.isqrt(reader.max_bytes // (qmap.n_q * _BYTES_PER_PAIR))
        raise BudgetExceeded(
            f"The two-time functions of {n_frames} frames in {qmap.n_q} q bins need {needed / 2**30:.3g} GiB; "
            f"{reader.max_bytes / 2**30:.3g} GiB are allowed.",
            f"Analyse at most {most} frames at once (first_frame, last_frame), use fewer q bins, or raise "
            "data.max_gib in the profile.",
        )


def _blocks(subject: Subject, reader: FrameReader, head: FrameBlock) -> Iterator[FrameBlock]:
    """The frames that are used, counted from the first of them; ``head`` has been read already."""
    begin = subject.first
    if head.frames.nbytes <= _LARGEST_HEAD_BYTES:
        yield FrameBlock(0, head.frames)
        begin += len(head.frames)
    for block in reader.blocks(first=begin, last=subject.last):
        yield FrameBlock(block.first_index - subject.first, block.frames)


class _Average:
    """Mean frame of all blocks that pass by."""

    def __init__(self) -> None:
        self._sum: NDArray[np.float64] | None = None
        self._n = 0

    def watching(self, blocks: Iterator[FrameBlock]) -> Iterator[FrameBlock]:
        for block in blocks:
            total = block.frames.sum(axis=0, dtype=np.float64)
            self._sum = total if self._sum is None else self._sum + total
            self._n += len(block.frames)
            yield block

    def mean(self) -> NDArray[np.float32]:
        if self._sum is None:
            return np.zeros((0, 0), np.float32)
        return (self._sum / self._n).astype(np.float32)


def published_rows(correlated: Correlated) -> tuple[TwoTime, int]:
    """The two-time functions as they are published, in coarser rows where a run is long, and frames per row."""
    factor = -(-correlated.two_time.c2.shape[1] // MOST_ROWS_PUBLISHED)
    return coarser_rows(correlated.two_time, factor), factor


def explain(subject: Subject, correlated: Correlated, analysis: AnalysisSettings) -> Explained:
    """Fit the neural ODE to the correlations and extrapolate; a refusal is an answer, not an error."""
    if analysis.model == "none":
        return Explained(None, None, "No dynamics fit was asked for (model = none).")
    from beamline_ml.dynamics import CorrelationObservations, DynamicsModel, fit, forecast

    sample = subject.description.sample
    try:
        observations = CorrelationObservations.of_run(correlated.two_time, correlated.relaxation, sample)
        found = fit(observations, DynamicsModel(), time_budget_s=analysis.fit_budget_s)
        # The forecast continues the run's own clock, also where the first frames were left out.
        begin_s = float(correlated.two_time.age_s[0])
        duration_s = float(correlated.two_time.age_s[-1]) - begin_s
        ahead = forecast(found, begin_s + analysis.forecast_factor * duration_s, own_speckles=True)
    except FitRefused as refusal:
        return Explained(None, None, str(refusal))
    return Explained(found, ahead, ahead.refused, found.warnings)
