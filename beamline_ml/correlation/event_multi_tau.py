"""Multi-tau correlation from photon events: the work goes with the photons, not with pixels times frames."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from beamline_ml.correlation.gather import PixelOrder
from beamline_ml.correlation.multi_tau import buffer_length, lags_of_level
from beamline_ml.correlation.multi_tau_readout import LevelSums, read_out_levels
from beamline_ml.correlation.qmap import QMap
from beamline_ml.errors import CorrelationError
from beamline_ml.records import G2, BoolArray, IntArray


def multi_tau_events(
    frame: ArrayLike,
    pixel: ArrayLike,
    qmap: QMap,
    n_frames: int,
    frame_period_s: float = 1.0,
    *,
    count: ArrayLike | None = None,
    convention: str = "aps",
    definition: str = "symmetric",
    bad_frames: ArrayLike = (),
) -> G2:
    """g2 at multi-tau lags of a sparse detector's events; equals ``multi_tau`` on the frames that they make up.

    Parameters
    ----------
    frame, pixel
        (n_events,) frame index and flat pixel index of each event, in any order; events of the same frame and pixel
        add.
    n_frames
        Length of the run; frames without events are dark, not missing.
    count
        (n_events,) photons of each event. Default: one.
    convention, definition, bad_frames
        As in ``MultiTauAccumulator`` and ``multi_tau``.

    Raises
    ------
    CorrelationError
        Events lie outside the run or the detector, or arrays disagree in length.
    """
    frames, pixels, counts = _checked(frame, pixel, count, qmap, n_frames)
    order = PixelOrder.of(qmap)
    place_of = np.full(qmap.labels.size, -1, np.int32)
    place_of[order.source] = np.arange(order.source.size)
    valid = np.ones(n_frames, np.bool_)
    valid[np.asarray(bad_frames, np.int64)] = False
    events = _by_pixel(frames, pixels, counts, place_of, valid, order.source.size)
    group_of = np.repeat(np.arange(order.static_owner.size, dtype=np.int32), np.diff(order.static_edges))
    levels: list[LevelSums] = []
    lags: list[IntArray] = []
    while valid.size > 1:
        lags.append(lags_of_level(len(levels), buffer_length(convention)))
        levels.append(_level(events, lags[-1], group_of, valid))
        valid = valid[0 : valid.size - 1 : 2] & valid[1 : valid.size : 2]
        n = _halve(*events, valid.size)
        events = (events[0][:n], events[1][:n], events[2][:n])
    return read_out_levels(levels, lags, order, qmap, frame_period_s, definition)


Events = tuple[NDArray[np.int32], NDArray[np.int32], IntArray]
"""Place (regrouped pixel), frame and count of each event, sorted by place and then frame."""


def _checked(
    frame: ArrayLike, pixel: ArrayLike, count: ArrayLike | None, qmap: QMap, n_frames: int
) -> tuple[IntArray, IntArray, IntArray]:
    frames, pixels = np.asarray(frame, np.int64).ravel(), np.asarray(pixel, np.int64).ravel()
    counts = np.ones(frames.size, np.int64) if count is None else np.asarray(count, np.int64).ravel()
    if not frames.size == pixels.size == counts.size:
        raise CorrelationError(
            f"There are {frames.size} frame indices, {pixels.size} pixels and {counts.size} counts.",
            "Give one of each per event.",
        )
    if frames.size and (frames.min() < 0 or frames.max() >= n_frames or counts.min() < 0):
        raise CorrelationError(
            f"Events lie in frames {frames.min()} to {frames.max()} of {n_frames}, with counts from {counts.min()}.",
            "Give the true number of frames, and counts that are not negative.",
        )
    if frames.size and (pixels.min() < 0 or pixels.max() >= qmap.labels.size):
        raise CorrelationError(
            f"Events lie in pixels {pixels.min()} to {pixels.max()} of {qmap.labels.size}.",
            "Use the flat index row * n_cols + col of the detector that the q-map was made for.",
        )
    return frames, pixels, counts


def _by_pixel(
    frames: IntArray, pixels: IntArray, counts: IntArray, place_of: NDArray[np.int32], valid: BoolArray, n_places: int
) -> Events:
    """Events of used pixels and valid frames, sorted; those of the same frame and pixel added."""
    first = np.zeros(n_places + 1, np.int64)
    _count_places(frames, pixels, place_of, valid, first)
    np.cumsum(first, out=first)
    n = int(first[-1])
    result = (np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int64))
    _scatter(frames, pixels, counts, place_of, valid, first, *result)
    n = _add_equal(*result)
    return result[0][:n], result[1][:n], result[2][:n]


def _level(events: Events, lags: IntArray, group_of: NDArray[np.int32], valid: BoolArray) -> LevelSums:
    n_groups = int(group_of[-1]) + 1
    products = np.zeros((valid.size, lags.size, n_groups), np.int64)
    sums = np.zeros((valid.size, n_groups), np.int64)
    _event_products(*events, group_of, int(lags[0]), int(lags[-1]), products, sums)
    return LevelSums(products, sums, valid)


@numba.njit(cache=True)
def _count_places(frames: Any, pixels: Any, place_of: Any, valid: Any, first: Any) -> None:
    for e in range(frames.size):
        place = place_of[pixels[e]]
        if place >= 0 and valid[frames[e]]:
            first[place + 1] += 1


@numba.njit(cache=True)
def _scatter(
    frames: Any, pixels: Any, counts: Any, place_of: Any, valid: Any, first: Any, place: Any, frame: Any, count: Any
) -> None:
    """Each event to its pixel's stretch, where it sinks to its place in time (at once, when events come in order)."""
    end = first[:-1].copy()
    for e in range(frames.size):
        p, t = place_of[pixels[e]], frames[e]
        if p < 0 or not valid[t]:
            continue
        at = end[p]
        end[p] += 1
        while at > first[p] and frame[at - 1] > t:
            frame[at] = frame[at - 1]
            count[at] = count[at - 1]
            at -= 1
        place[end[p] - 1] = p
        frame[at] = t
        count[at] = counts[e]


@numba.njit(cache=True)
def _halve(place: Any, frame: Any, count: Any, n_frames: Any) -> Any:
    """Frames added two by two, in place; those of an odd last frame are left out. Returns how many events are left."""
    n = 0
    for e in range(place.size):
        t = frame[e] >> 1
        if t >= n_frames:
            continue
        if n > 0 and place[n - 1] == place[e] and frame[n - 1] == t:
            count[n - 1] += count[e]
        else:
            place[n] = place[e]
            frame[n] = t
            count[n] = count[e]
            n += 1
    return n


@numba.njit(cache=True)
def _add_equal(place: Any, frame: Any, count: Any) -> Any:
    """In place; returns how many are left."""
    n = 0
    for e in range(place.size):
        if n > 0 and place[n - 1] == place[e] and frame[n - 1] == frame[e]:
            count[n - 1] += count[e]
        else:
            place[n] = place[e]
            frame[n] = frame[e]
            count[n] = count[e]
            n += 1
    return n


@numba.njit(cache=True)
def _event_products(
    place: Any, frame: Any, count: Any, group_of: Any, shortest: Any, longest: Any, products: Any, sums: Any
) -> None:
    for e in range(place.size):
        group, t = group_of[place[e]], frame[e]
        sums[t, group] += count[e]
        earlier = e - 1
        while earlier >= 0 and place[earlier] == place[e] and t - frame[earlier] <= longest:
            lag = t - frame[earlier]
            if lag >= shortest:
                products[t, lag - shortest, group] += count[e] * count[earlier]
            earlier -= 1
