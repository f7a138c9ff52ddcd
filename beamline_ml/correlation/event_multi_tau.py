"""Multi-tau correlation from photon events: the work goes with the photons, not with pixels times frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from beamline_ml.correlation.age_sums import AgeSums
from beamline_ml.correlation.gather import PixelOrder
from beamline_ml.correlation.multi_tau import buffer_length, lags_of_level
from beamline_ml.correlation.multi_tau_readout import read_out_levels
from beamline_ml.correlation.qmap import QMap
from beamline_ml.correlation.rows import checked_period
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
    period_s = checked_period(frame_period_s)
    frames, pixels, counts = _checked(frame, pixel, count, qmap, n_frames)
    order = PixelOrder.of(qmap)
    place_of = np.full(qmap.labels.size, -1, np.int32)
    place_of[order.source] = np.arange(order.source.size)
    valid = np.ones(n_frames, np.bool_)
    valid[np.asarray(bad_frames, np.int64)] = False
    events = _by_pixel(frames, pixels, counts, place_of, valid)
    group_of = np.repeat(np.arange(order.static_owner.size, dtype=np.int32), np.diff(order.static_edges))
    sums = np.zeros((order.static_owner.size, n_frames), np.int64)
    _event_sums(*events, group_of, sums)
    grid = _Grid.of(n_frames, buffer_length(convention), order.static_owner.size)
    few = _n_pairs(events[0]) < events[0].size * len(grid.lags)
    products = (_products_by_pair if few else _products_by_level)(events, group_of, grid)
    first_group = np.searchsorted(order.static_owner, np.arange(qmap.n_q))
    levels: list[AgeSums] = []
    for level_lags, level_products in zip(grid.lags, products, strict=True):
        levels.append(AgeSums(level_lags, first_group, order.static_owner.size))
        # Groups come first while summing, because a group's events come together.
        levels[-1].add(level_products.transpose(2, 1, 0), sums.T, valid)
        valid = valid[0 : valid.size - 1 : 2] & valid[1 : valid.size : 2]
        sums = sums[:, 0 : 2 * valid.size : 2] + sums[:, 1 : 2 * valid.size : 2]
    return read_out_levels(levels, order, qmap, period_s, definition)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Room for the products of every level, one level after the other."""

    lags: list[IntArray]
    n_rows: list[int]
    """Rows of each level."""
    n_groups: int

    @classmethod
    def of(cls, n_frames: int, n_buffer: int, n_groups: int) -> _Grid:
        n_rows = [n_frames >> k for k in range(n_frames.bit_length()) if k == 0 or n_frames >> k > 1]
        return cls([lags_of_level(k, n_buffer) for k in range(len(n_rows))], n_rows, n_groups)

    def shape(self, level: int) -> tuple[int, int, int]:
        """(n_groups, n_lags, n_rows)."""
        return self.n_groups, self.lags[level].size, self.n_rows[level]


def _products_by_level(events: Events, group_of: NDArray[np.int32], grid: _Grid) -> list[IntArray]:
    """Level by level, events of two frames being added to those of one: for pixels with many events."""
    found = []
    for k, lags in enumerate(grid.lags):
        if k:
            n = _halve(*events, grid.n_rows[k])
            events = (events[0][:n], events[1][:n], events[2][:n])
        found.append(np.zeros(grid.shape(k), np.int64))
        _event_products(*events, group_of, int(lags[0]), int(lags[-1]), found[-1])
    return found


def _products_by_pair(events: Events, group_of: NDArray[np.int32], grid: _Grid) -> list[IntArray]:
    """Every pair of events of a pixel once, in the levels that hold its lag: for pixels with few."""
    sizes = [int(np.prod(grid.shape(k))) for k in range(len(grid.lags))]
    starts = np.cumsum([0, *sizes])
    every = np.zeros(starts[-1], np.int64)
    shortest, longest = (np.array([lags[at] for lags in grid.lags]) for at in (0, -1))
    _pair_products(*events, group_of, shortest, longest, np.array(grid.n_rows), starts, every)
    return [every[starts[k] : starts[k + 1]].reshape(grid.shape(k)) for k in range(len(sizes))]


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
    frames: IntArray, pixels: IntArray, counts: IntArray, place_of: NDArray[np.int32], valid: BoolArray
) -> Events:
    """Events of used pixels and valid frames, sorted; those of the same frame and pixel added."""
    room = (np.empty(frames.size, np.int32), np.empty(frames.size, np.int32), np.empty(frames.size, np.int64))
    n, in_order = _take_used(frames, pixels, counts, place_of, valid, *room)
    events = (room[0][:n], room[1][:n], room[2][:n])
    if not in_order:
        order = np.argsort(events[1], kind="stable")
        events = (events[0][order], events[1][order], events[2][order])
    spare = (np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int64))
    # Two stable passes over half of the place's bits each: few enough streams to stay in cache.
    half = max(1, -(-int(place_of.size - 1).bit_length() // 2))
    _radix_pass(*events, *spare, 0, half)
    _radix_pass(*spare, *events, half, half)
    n = _add_equal(*events)
    return events[0][:n], events[1][:n], events[2][:n]


@numba.njit(cache=True)
def _take_used(
    frames: Any, pixels: Any, counts: Any, place_of: Any, valid: Any, place: Any, frame: Any, count: Any
) -> Any:
    """Returns how many there are, and whether their frames come in order."""
    n, in_order = 0, True
    for e in range(frames.size):
        p, t = place_of[pixels[e]], frames[e]
        if p >= 0 and valid[t]:
            place[n] = p
            frame[n] = t
            count[n] = counts[e]
            in_order &= n == 0 or frame[n - 1] <= t
            n += 1
    return n, in_order


@numba.njit(cache=True)
def _radix_pass(
    place: Any, frame: Any, count: Any, to_place: Any, to_frame: Any, to_count: Any, shift: Any, n_bits: Any
) -> None:
    mask = (1 << n_bits) - 1
    target = np.zeros(mask + 2, np.int64)
    for e in range(place.size):
        target[((place[e] >> shift) & mask) + 1] += 1
    for digit in range(mask + 1):
        target[digit + 1] += target[digit]
    for e in range(place.size):
        digit = (place[e] >> shift) & mask
        at = target[digit]
        target[digit] += 1
        to_place[at] = place[e]
        to_frame[at] = frame[e]
        to_count[at] = count[e]


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
def _event_sums(place: Any, frame: Any, count: Any, group_of: Any, sums: Any) -> None:
    for e in range(place.size):
        sums[group_of[place[e]], frame[e]] += count[e]


@numba.njit(cache=True)
def _event_products(
    place: Any, frame: Any, count: Any, group_of: Any, shortest: Any, longest: Any, products: Any
) -> None:
    for e in range(1, place.size):
        earlier = e - 1
        while earlier >= 0 and place[earlier] == place[e] and frame[e] - frame[earlier] <= longest:
            lag = frame[e] - frame[earlier]
            if lag >= shortest:
                products[group_of[place[e]], lag - shortest, frame[e]] += count[e] * count[earlier]
            earlier -= 1


@numba.njit(cache=True)
def _n_pairs(place: Any) -> Any:
    """Pairs of events of the same pixel."""
    total, earlier = 0, 0
    for e in range(1, place.size):
        earlier = earlier + 1 if place[e] == place[e - 1] else 0
        total += earlier
    return total


@numba.njit(cache=True)
def _pair_products(
    place: Any,
    frame: Any,
    count: Any,
    group_of: Any,
    shortest: Any,
    longest: Any,
    n_rows: Any,
    starts: Any,
    products: Any,
) -> None:
    n_levels = shortest.size
    # Rows of frames are at most one further apart, or nearer, than the frames' distance says.
    first_level = np.empty(n_rows[0], np.int64)
    for distance in range(first_level.size):
        level = 0
        while level < n_levels and distance >> level > longest[level] + 1:
            level += 1
        first_level[distance] = level
    for e in range(1, place.size):
        group, later = group_of[place[e]], frame[e]
        earlier = e - 1
        while earlier >= 0 and place[earlier] == place[e]:
            level = first_level[later - frame[earlier]]
            while level < n_levels and ((later - frame[earlier]) >> level) + 1 >= shortest[level]:
                row = later >> level
                lag = row - (frame[earlier] >> level)
                if shortest[level] <= lag <= longest[level] and row < n_rows[level]:
                    n_lags = longest[level] - shortest[level] + 1
                    at = (group * n_lags + lag - shortest[level]) * n_rows[level] + row
                    products[starts[level] + at] += count[e] * count[earlier]
                level += 1
            earlier -= 1
