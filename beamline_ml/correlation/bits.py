"""Products of sparse frames, one bit a pixel: words ANDed and counted, or columns of bits added up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.bit_kernels import (
    list_photons,
    n_photon_pixels,
    pack_rows,
    popcount_pairs,
    transpose_bits,
)
from beamline_ml.correlation.events import EventGram, PixelEvents
from beamline_ml.correlation.shared_photons import NewPairs, add_excess, add_photons
from beamline_ml.correlation.tally import EIGHT, FRAMES, room
from beamline_ml.records import IntArray

WORD = 64
WORDS = 8
"""Each group of pixels takes a whole number of these, for vectors of that many words."""


class BitGram:
    """Sums over pixels of x x' with x = b + e, b = (x > 0).

    b b' is counted by popcount; e b' adds up, of the few pixels with several photons, the bits of 512 frames at a time;
    e e' goes photon by photon. Exact for any counts, and fast where few pixels of a frame hold more than one photon.
    """

    def __init__(self, edges: IntArray) -> None:
        self._edges = edges
        words = -(-np.diff(edges) // (WORD * WORDS)) * WORDS
        self._word_edges: IntArray = np.concatenate([[0], np.cumsum(words)])
        self._n_places = int(self._word_edges[-1]) * WORD
        self._bits = np.zeros((0, int(self._word_edges[-1])), np.uint64)
        self._columns: list[NDArray[np.uint64]] = []
        """For each piece of 512 frames (n_places + 1, 8): every pixel's bits, and a last row without any."""
        self._first = np.zeros((0, edges.size), np.int64)
        self._extra_place = np.zeros(0, np.int32)
        self._extra_count = np.zeros(0, np.int64)
        self._n_extra = 0
        self._largest_extra = 0
        """What the counts of one row and group exceed 1 by, at most."""
        self._events = EventGram(self._word_edges * WORD)

    def add(self, gram: NDArray[Any], rows: NDArray[Any], lo: int, hi: int, n: int) -> None:
        """As in ``PairKernel``."""
        extra = self._pack(rows, lo, hi, n)
        pairs = NewPairs(lo, hi, n, int(np.diff(self._edges).max()) + self._largest_extra, self._n_extra > 0)
        for k, mine in enumerate(gram):
            pairs.clear()
            self._add_equal(mine, k, pairs, lo, hi, n)
            if self._n_extra:
                self._add_excess(k, pairs, hi)
            self._put(pairs, mine)
        self._events.add_events(gram, extra)

    def _add_equal(self, gram: NDArray[Any], k: int, _pairs: NewPairs, lo: int, hi: int, n: int) -> None:
        """b b' of a group."""
        popcount_pairs(gram, self._bits, lo, hi, n, self._word_edges[k], self._word_edges[k + 1])

    def _add_excess(self, k: int, pairs: NewPairs, hi: int) -> None:
        """e b' of a group, of the new rows' e with every row and of every row's with the new ones."""
        for piece, first, sums in pairs.there():
            self._add_excess_of(k, sums, piece, slice(first, hi))
        for piece, rows, sums in pairs.back():
            self._add_excess_of(k, sums, piece, rows)

    def _add_excess_of(self, k: int, sums: NDArray[Any], piece: int, rows: slice) -> None:
        lists = (self._first[rows, k], self._first[rows, k + 1], self._extra_place, self._extra_count)
        add_excess(sums, self._columns[piece].reshape(-1), *lists, self._n_places, room())

    def _put(self, pairs: NewPairs, gram: NDArray[Any]) -> None:
        if self._n_extra:
            pairs.put(gram)

    def load(self, rows: NDArray[Any], lo: int, hi: int) -> None:
        """Know rows lo..hi, whose pairs are summed already."""
        self._events.keep(self._pack(rows, lo, hi, hi))

    def _pack(self, rows: NDArray[Any], lo: int, hi: int, n: int) -> PixelEvents:
        """Bits, columns and lists of rows lo..hi; returns what their counts exceed 1 by."""
        if rows.shape[0] > self._bits.shape[0]:
            self._bits = _grown(self._bits, -(-rows.shape[0] // FRAMES) * FRAMES)
            self._first = _grown(self._first, self._bits.shape[0])
        while len(self._columns) * FRAMES < n:
            self._columns.append(np.zeros((self._n_places + 1, EIGHT), np.uint64))
        done, used = lo, self._n_extra
        while True:
            lists = (self._first[done:hi], self._extra_place, self._extra_count)
            n, self._n_extra = pack_rows(
                rows[done:hi], self._edges, self._word_edges, self._bits[done:hi], *lists, self._n_extra
            )
            done += n
            if done == hi:
                break
            size = max(2 * self._extra_place.size, self._n_extra + rows.shape[1])
            self._extra_place = _grown(self._extra_place, size)
            self._extra_count = _grown(self._extra_count, size)
        self._largest_extra = max(self._largest_extra, self._excess_since(used, lo, hi))
        self._turn(lo, hi)
        return PixelEvents.of_lists(self._first[lo:hi], self._extra_place, self._extra_count, self._n_places + 1, lo)

    def _turn(self, lo: int, hi: int) -> None:
        """Columns of the bits of rows lo..hi."""
        for piece in range(lo // FRAMES, -(-hi // FRAMES)):
            start = piece * FRAMES
            first, last = max(lo, start) - start, min(hi, start + FRAMES) - start
            transpose_bits(self._bits[start:], self._columns[piece], first // WORD, -(-last // WORD))

    def _excess_since(self, used: int, lo: int, hi: int) -> int:
        """The largest sum of what is listed of one row and group, of the rows lo..hi listed from ``used`` on."""
        up_to = np.append(0, np.cumsum(self._extra_count[used : self._n_extra]))
        return int(np.diff(up_to[self._first[lo:hi] - used], axis=1).max(initial=0))


class TallyGram(BitGram):
    """As :class:`BitGram`, with b b' from the columns of bits too: work goes with the number of photons."""

    def _add_equal(self, _gram: NDArray[Any], k: int, pairs: NewPairs, lo: int, hi: int, _n: int) -> None:
        first_word, last_word = self._word_edges[k], self._word_edges[k + 1]
        bits = self._bits[lo:hi, first_word:last_word]
        begins = np.zeros(hi - lo + 1, np.int64)
        starts = np.empty(n_photon_pixels(bits) + (hi - lo) * EIGHT, np.int64)
        list_photons(bits, first_word * WORD, self._n_places, begins, starts)
        for piece, first, sums in pairs.there():
            add_photons(sums, self._columns[piece].reshape(-1), begins[first - lo :], starts, room())

    def _put(self, pairs: NewPairs, gram: NDArray[Any]) -> None:
        pairs.put(gram)


def _grown(array: NDArray[Any], n: int) -> NDArray[Any]:
    grown = np.zeros((n, *array.shape[1:]), array.dtype)
    grown[: array.shape[0]] = array
    return grown
