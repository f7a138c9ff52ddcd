"""Products of sparse frames, one bit a pixel: popcount of ANDed words, plus the few pixels with several photons."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.bit_kernels import extra_sums, pack_rows, popcount_pairs, transpose_bits
from beamline_ml.correlation.events import EventGram, PixelEvents
from beamline_ml.correlation.tally import room
from beamline_ml.records import IntArray

WORD = 64
WORDS = 8
"""Each group of pixels takes a whole number of these, for vectors of that many words."""
SPARE = 16


class BitGram:
    """Sums over pixels of x x' with x = b + e, b = (x > 0).

    b b' is counted by popcount; e b' walks the few pixels with several photons through a map that holds, for each
    pixel, 64 frames in one word; e e' goes photon by photon. Exact for any counts, and fast where few pixels of a
    frame hold more than one photon.
    """

    def __init__(self, edges: IntArray) -> None:
        self._edges = edges
        words = -(-np.diff(edges) // (WORD * WORDS)) * WORDS
        self._word_edges: IntArray = np.concatenate([[0], np.cumsum(words)])
        n_words = int(self._word_edges[-1])
        self._bits = np.zeros((0, n_words), np.uint64)
        self._columns = np.zeros((n_words * WORD + 1, 0), np.uint64)
        self._fresh = np.zeros((n_words * WORD + 1, 0), np.uint64)
        self._first = np.zeros((0, edges.size), np.int64)
        self._extra_place = np.zeros(0, np.int32)
        self._extra_count = np.zeros(0, np.int64)
        self._n_extra = 0
        self._largest_extra = 0
        """What the counts of one row and group exceed 1 by, at most."""
        self._events = EventGram(self._word_edges * WORD)

    def add(self, gram: NDArray[Any], rows: NDArray[Any], lo: int, hi: int, n: int) -> None:
        """As in ``PairKernel``."""
        extra = self._pack(rows, lo, hi, hi - lo < n)
        sums, place_to_work = self._sums(lo, hi, n), room()
        for k, (first, last) in enumerate(pairwise(self._word_edges)):
            if self._n_extra:
                lists = (self._first[:, k], self._first[:, k + 1], self._extra_place, self._extra_count)
                extra_sums(self._columns, self._fresh, *lists, lo, hi, n, *sums, place_to_work)
            popcount_pairs(gram[k], self._bits, lo, hi, n, first, last, *sums)
        self._events.add_events(gram, extra)

    def _sums(self, lo: int, hi: int, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Room of ``extra_sums``: as narrow as they allow; none without such pixels."""
        dtype = np.uint16 if self._largest_extra <= np.iinfo(np.uint16).max else np.int64
        n_new = -(-hi // WORD) * WORD - lo // WORD * WORD
        # A few columns more, so that rows do not lie a power of two apart and evict each other from the cache.
        n_every = -(-n // WORD) * WORD
        n_rows, n_others = (hi - lo, n if hi - lo < n else 0) if self._n_extra else (0, 0)
        return np.empty((n_rows, n_every + SPARE), dtype), np.empty((n_others, n_new + SPARE), dtype)

    def load(self, rows: NDArray[Any], lo: int, hi: int) -> None:
        """Know rows lo..hi, whose pairs are summed already."""
        self._events.keep(self._pack(rows, lo, hi, False))

    def _pack(self, rows: NDArray[Any], lo: int, hi: int, beside_others: bool) -> PixelEvents:
        """Bits, columns and lists of rows lo..hi; returns what their counts exceed 1 by."""
        if rows.shape[0] > self._bits.shape[0]:
            self._bits = _grown(self._bits, -(-rows.shape[0] // WORD) * WORD)
            wider = np.zeros((self._columns.shape[0], self._bits.shape[0] // WORD), np.uint64)
            wider[:, : self._columns.shape[1]] = self._columns
            self._columns = wider
            self._first = _grown(self._first, self._bits.shape[0])
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
        first, last = lo // WORD, -(-hi // WORD)
        # Other rows look up few of many pixels in these columns: faster where those of a block lie together.
        self._fresh = np.zeros((self._columns.shape[0], last - first if beside_others else 0), np.uint64)
        transpose_bits(self._bits, self._columns, self._fresh, first, last)
        n_places = self._columns.shape[0] - 1
        return PixelEvents.of_lists(self._first[lo:hi], self._extra_place, self._extra_count, n_places, lo)

    def _excess_since(self, used: int, lo: int, hi: int) -> int:
        """The largest sum of what is listed of one row and group, of the rows lo..hi listed from ``used`` on."""
        up_to = np.append(0, np.cumsum(self._extra_count[used : self._n_extra]))
        return int(np.diff(up_to[self._first[lo:hi] - used], axis=1).max(initial=0))


def _grown(array: NDArray[Any], n: int) -> NDArray[Any]:
    grown = np.zeros((n, *array.shape[1:]), array.dtype)
    grown[: array.shape[0]] = array
    return grown
