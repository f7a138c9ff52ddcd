"""Products of very sparse frames, photon by photon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import IntArray


@dataclass(frozen=True, slots=True)
class PixelEvents:
    """Events of some frames, sorted by pixel."""

    first: IntArray
    """(n_pixels + 1,) where each pixel's events begin."""
    frame: NDArray[np.int32]
    """(n_events,) row of each event."""
    count: NDArray[np.int64]
    """(n_events,) photons."""

    @classmethod
    def of_rows(cls, rows: NDArray[Any], first_row: int) -> PixelEvents:
        """All counts of (n, n_pixels) rows."""
        first = np.zeros(rows.shape[1] + 1, np.int64)
        _count_events(rows, first)
        np.cumsum(first, out=first)
        frame = np.empty(int(first[-1]), np.int32)
        count = np.empty(int(first[-1]), np.int64)
        _fill_events(rows, first_row, first[:-1].copy(), frame, count)
        return cls(first, frame, count)

    @classmethod
    def of_lists(
        cls, row_first: IntArray, place: NDArray[np.int32], count: IntArray, n_places: int, first_row: int
    ) -> PixelEvents:
        """Events listed row by row: row i's lie from row_first[i, 0] to row_first[i, -1]."""
        first = np.zeros(n_places + 1, np.int64)
        lo, hi = (int(row_first[0, 0]), int(row_first[-1, -1])) if row_first.size else (0, 0)
        np.cumsum(np.bincount(place[lo:hi], minlength=n_places), out=first[1:])
        frame = np.empty(hi - lo, np.int32)
        sorted_count = np.empty(hi - lo, np.int64)
        _sort_events(row_first, place, count, first_row, first[:-1].copy(), frame, sorted_count)
        return cls(first, frame, sorted_count)

    def merged(self, later: PixelEvents) -> PixelEvents:
        """Both sets of events as one."""
        first = self.first + later.first
        frame = np.empty(int(first[-1]), np.int32)
        count = np.empty(int(first[-1]), np.int64)
        _merge(self.first, self.frame, self.count, later.first, later.frame, later.count, first, frame, count)
        return PixelEvents(first, frame, count)


class EventGram:
    """Sums over pixels of x x' from the photons alone: work goes with the square of the photons per pixel.

    Events are kept in chunks that are merged when they have grown alike, so that each event is moved a few times only.
    """

    def __init__(self, edges: IntArray) -> None:
        self._edges = edges
        self._chunks: list[PixelEvents] = []

    def add(self, gram: NDArray[Any], rows: NDArray[Any], lo: int, hi: int, _n: int) -> None:
        """As ``BitGram.add``."""
        self.add_events(gram, PixelEvents.of_rows(rows[lo:hi], lo))

    def load(self, rows: NDArray[Any], lo: int, hi: int) -> None:
        """Know rows lo..hi, whose pairs are summed already."""
        self.keep(PixelEvents.of_rows(rows[lo:hi], lo))

    def add_events(self, gram: NDArray[Any], new: PixelEvents) -> None:
        """Add the products of new rows' events among themselves and with all that are known."""
        if new.frame.size == 0:
            return
        _pairs_within(gram, self._edges, new.first, new.frame, new.count)
        for old in self._chunks:
            _pairs_between(gram, self._edges, new.first, new.frame, new.count, old.first, old.frame, old.count)
        self.keep(new)

    def keep(self, new: PixelEvents) -> None:
        """Know events whose products are summed already."""
        self._chunks.append(new)
        while len(self._chunks) > 1 and self._chunks[-2].frame.size <= 2 * self._chunks[-1].frame.size:
            last = self._chunks.pop()
            self._chunks[-1] = self._chunks[-1].merged(last)


@numba.njit(cache=True)
def _count_events(rows: Any, first: Any) -> None:
    for i in range(rows.shape[0]):
        for p in range(rows.shape[1]):
            first[p + 1] += rows[i, p] > 0


@numba.njit(cache=True)
def _fill_events(rows: Any, first_row: Any, place: Any, frame: Any, count: Any) -> None:
    for i in range(rows.shape[0]):
        for p in range(rows.shape[1]):
            if rows[i, p] > 0:
                frame[place[p]] = first_row + i
                count[place[p]] = np.int64(rows[i, p])
                place[p] += 1


@numba.njit(cache=True)
def _sort_events(
    row_first: Any, place: Any, count: Any, first_row: Any, target: Any, frame: Any, sorted_count: Any
) -> None:
    for i in range(row_first.shape[0]):
        for e in range(row_first[i, 0], row_first[i, -1]):
            at = target[place[e]]
            frame[at] = first_row + i
            sorted_count[at] = count[e]
            target[place[e]] = at + 1


@numba.njit(cache=True)
def _merge(
    first_a: Any,
    frame_a: Any,
    count_a: Any,
    first_b: Any,
    frame_b: Any,
    count_b: Any,
    first: Any,
    frame: Any,
    count: Any,
) -> None:
    for p in range(first.size - 1):
        place = first[p]
        for e in range(first_a[p], first_a[p + 1]):
            frame[place] = frame_a[e]
            count[place] = count_a[e]
            place += 1
        for e in range(first_b[p], first_b[p + 1]):
            frame[place] = frame_b[e]
            count[place] = count_b[e]
            place += 1


@numba.njit(cache=True)
def _pairs_within(gram: Any, edges: Any, first: Any, frame: Any, count: Any) -> None:
    """Within one chunk events of a pixel come in the order of rows, so the second is never later."""
    for k in range(edges.size - 1):
        for p in range(edges[k], edges[k + 1]):
            for a in range(first[p], first[p + 1]):
                row, x = gram[k, frame[a]], count[a]
                for b in range(first[p], a + 1):
                    row[frame[b]] += x * count[b]


@numba.njit(cache=True)
def _pairs_between(
    gram: Any, edges: Any, first_a: Any, frame_a: Any, count_a: Any, first_b: Any, frame_b: Any, count_b: Any
) -> None:
    for k in range(edges.size - 1):
        for p in range(edges[k], edges[k + 1]):
            for a in range(first_a[p], first_a[p + 1]):
                i, x = frame_a[a], count_a[a]
                for b in range(first_b[p], first_b[p + 1]):
                    j = frame_b[b]
                    gram[k, max(i, j), min(i, j)] += x * count_b[b]
