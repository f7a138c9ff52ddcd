"""Two-time correlation of runs of any length in bounded memory: rows are added two by two when there are too many."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.checkpoint import qmap_arrays, qmap_of
from beamline_ml.correlation.gather import PixelOrder
from beamline_ml.correlation.gram import check_range, gram_exact
from beamline_ml.correlation.lag_products import exact_dots
from beamline_ml.correlation.qmap import QMap
from beamline_ml.correlation.readout import integer_sums, read_out
from beamline_ml.correlation.rows import checked_period, checked_rows
from beamline_ml.errors import CorrelationError
from beamline_ml.records import BoolArray, IntArray, TwoTime

FEW_ROWS = 16


class LongTwoTimeAccumulator:
    """C2 of binned frames: memory and time per block stay the same however long the run.

    The row of a group of frames is the sum of their counts, and products of sums are sums of products: the result
    equals ``bin_time(two_time(all frames), result_factor)`` bit for bit, for any split and order. Frames are known by
    index only, so a repeated frame is ignored without comparing its counts. Frames after the last whole row wait for
    the rest of theirs.

    Parameters
    ----------
    qmap, frame_period_s
        As in ``two_time``; integer frames, plain normalisation.
    max_rows
        Rows of C2, an even number; memory is ``max_rows`` regrouped frames and n_q ``max_rows``^2 sums of 8 bytes.
    """

    def __init__(self, qmap: QMap, frame_period_s: float = 1.0, max_rows: int = 512) -> None:
        if max_rows < 2 or max_rows % 2:
            raise CorrelationError(f"max_rows = {max_rows} cannot be halved.", "Choose an even number of rows.")
        if qmap.flatfield is not None:
            raise CorrelationError(
                "Binned rows cannot carry a flat field.", "Use TwoTimeAccumulator, or no flat field."
            )
        self.qmap = qmap
        self.frame_period_s = checked_period(frame_period_s)
        self.factor = 1
        """Frames per row at present, a power of 2."""
        self.order = PixelOrder.of(qmap)
        self._max_rows = max_rows
        self._rows: NDArray[Any] = np.zeros((max_rows, self.order.source.size), np.uint8)
        self._largest = 0
        """No sum of counts is above it."""
        self._gram = np.zeros((qmap.n_q, max_rows, max_rows), np.int64)
        self.group_sums = np.zeros((max_rows, self.order.static_owner.size), np.int64)
        self.saturated: BoolArray = np.zeros(max_rows, np.bool_)
        self._arrived: BoolArray = np.zeros(max_rows, np.bool_)
        self._end = 0

    @property
    def n_frames(self) -> int:
        """Frames so far, holes included."""
        return self._end

    @property
    def n_bytes(self) -> int:
        """Memory of the rows and sums that are kept."""
        kept = (self._rows, self._gram, self.group_sums, self._arrived)
        return sum(array.nbytes for array in kept)

    def add(self, frames: NDArray[Any], first_index: int) -> None:
        """Take in a block; ``first_index`` is the place of its first frame in the run (0-based)."""
        block, front = checked_rows(frames, int(first_index), self.qmap, self.order), self._front_frame
        if first_index < 0 or block.rows.dtype.kind == "f":
            raise CorrelationError(
                "Binned two-time needs integer counts at indices >= 0.", "Use TwoTimeAccumulator for floating point."
            )
        self._make_room(int(first_index) + block.rows.shape[0])
        block = block.without(self._arrived[block.index])
        if block.index.size == 0:
            return
        self._arrived[block.index] = True
        bins = block.index // self.factor
        self._widen(block.rows, bins)
        _add_rows(block.rows, bins, self._rows)
        np.add.at(self.group_sums, bins, block.sums)
        limit = np.iinfo(np.asarray(frames).dtype).max
        self.saturated[bins[block.largest >= limit]] = True
        self._correlate(np.append(bins, front // self.factor))

    def result(self) -> TwoTime:
        """C2 of the whole rows so far; ``frame_period_s`` of the result is that of a row."""
        n = self._end // self.factor
        if n == 0 or not self._arrived.any():
            raise CorrelationError("No whole row has arrived.", "Add frames before asking for a result.")
        present: BoolArray = np.any(self._arrived[: n * self.factor].reshape(n, self.factor), axis=1)
        sums = integer_sums(self, self._gram.copy(), self.order.dynamic_edges, n)
        period = self.frame_period_s * self.factor
        age_s = (np.arange(n * self.factor) * self.frame_period_s).reshape(n, self.factor).mean(axis=1)
        return read_out(self, sums, "plain", period, present, age_s)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state as named arrays (a checkpoint); :meth:`from_arrays` goes on from there."""
        arrays: dict[str, NDArray[Any]] = {
            "frame_period_s": np.array(self.frame_period_s),
            "factor": np.array(self.factor),
            "end": np.array(self._end),
            "rows": self._rows,
            "gram": self._gram,
            "group_sums": self.group_sums,
            "saturated": self.saturated,
            "arrived": self._arrived,
        }
        return qmap_arrays(self.qmap) | {name: array.copy() for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """An accumulator in the state that :meth:`to_arrays` returned."""
        self = cls(qmap_of(arrays), float(arrays["frame_period_s"]), arrays["rows"].shape[0])
        self.factor, self._end = int(arrays["factor"]), int(arrays["end"])
        self._rows, self._gram = np.array(arrays["rows"]), np.array(arrays["gram"])
        self.group_sums, self.saturated = np.array(arrays["group_sums"]), np.array(arrays["saturated"])
        self._arrived, self._largest = np.array(arrays["arrived"]), int(self._rows.max())
        return self

    @property
    def _front_frame(self) -> int:
        """First frame of the row that is not whole yet: it is in no result, and correlated when it is whole."""
        return self._end // self.factor * self.factor

    def _make_room(self, end: int) -> None:
        self._end = max(self._end, end)
        while self._end > self._max_rows * self.factor:
            self._halve()
        if self._end > self._arrived.size:
            self._arrived = np.append(self._arrived, np.zeros(max(self._end, self._arrived.size), np.bool_))

    def _halve(self) -> None:
        half = self._max_rows // 2
        self._widen_to(2 * int(self._rows.max()))
        _add_pairs(self._rows)
        gram = np.tril(self._gram)
        gram += np.tril(gram, -1).transpose(0, 2, 1)
        self._gram[:] = 0
        self._gram[:, :half, :half] = gram.reshape(-1, half, 2, half, 2).sum(axis=(2, 4))
        self.group_sums = np.append(
            self.group_sums[0::2] + self.group_sums[1::2], np.zeros_like(self.group_sums[half:]), 0
        )
        self.saturated = np.append(self.saturated[0::2] | self.saturated[1::2], np.zeros(half, np.bool_))
        self.factor *= 2

    def _widen(self, rows: NDArray[Any], bins: IntArray) -> None:
        """Room for the largest sum that this block can make."""
        most = int(np.bincount(bins - bins.min()).max()) * int(rows.max(initial=0))
        touched = self._rows[bins.min() : bins.max() + 1]
        self._widen_to(most + int(touched.max(initial=0)))

    def _widen_to(self, largest: int) -> None:
        self._largest = max(self._largest, largest)
        wanted = np.min_scalar_type(largest)
        if np.promote_types(wanted, self._rows.dtype) != self._rows.dtype:
            self._rows = self._rows.astype(wanted)

    def _correlate(self, bins: IntArray) -> None:
        """Those of the rows ``bins`` that are whole anew against all."""
        n = self._end // self.factor
        touched = np.unique(bins)
        for run in np.split(touched, np.flatnonzero(np.diff(touched) > 1) + 1):
            lo, hi = int(run[0]), min(int(run[-1]) + 1, n)
            if lo < hi:
                self._correlate_run(lo, hi, n)

    def _correlate_run(self, lo: int, hi: int, n: int) -> None:
        """Rows lo..hi anew against all n."""
        edges = self.order.dynamic_edges
        check_range(int(self._rows[lo:hi].max()), int(np.diff(edges).max()))
        for k, (first, last) in enumerate(pairwise(edges)):
            new, every = self._rows[lo:hi, first:last], self._rows[:n, first:last]
            # Few rows against many: turning all into floating point would take longer than multiplying.
            strip = exact_dots(new, every, self._largest) if hi - lo < FEW_ROWS else gram_exact(new, every)
            self._gram[k, lo:hi, :hi] = strip[:, :hi]
            self._gram[k, hi:n, lo:hi] = strip[:, hi:].T


@numba.njit(cache=True)
def _add_rows(rows: Any, bins: Any, target: Any) -> None:
    for i in range(rows.shape[0]):
        row, sums = rows[i], target[bins[i]]
        for p in range(row.size):
            sums[p] += row[p]


@numba.njit(cache=True)
def _add_pairs(rows: Any) -> None:
    half = rows.shape[0] // 2
    for i in range(half):
        for p in range(rows.shape[1]):
            rows[i, p] = rows[2 * i, p] + rows[2 * i + 1, p]
    rows[half:] = 0
