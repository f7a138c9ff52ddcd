"""C2 of a run that goes on: what is new is added to what was computed before."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.binning import bin_quality, coarser_rows, sums_of_blocks
from beamline_ml.correlation.normalize import plain_c2
from beamline_ml.correlation.two_time import TwoTimeAccumulator
from beamline_ml.records import Float32Array, IntArray, TwoTime


class GrowingTwoTime:
    """Reads an accumulator out again and again, at a cost that goes with the new rows alone.

    :meth:`result` is bit for bit ``coarser_rows(accumulator.result(), frames_per_row)``. Floating-point frames, flat
    fields, gaps and the static normalisation, where earlier rows may change, are read out as a whole each time.

    Parameters
    ----------
    accumulator
        Takes in the frames.
    frames_per_row
        Frames added up in each row of the result.
    """

    def __init__(self, accumulator: TwoTimeAccumulator, frames_per_row: int = 1) -> None:
        self._accumulator = accumulator
        self._frames_per_row = frames_per_row
        self._n_rows = 0
        self._c2: Float32Array = np.empty((accumulator.qmap.n_q, 0, 0), np.float32)
        self._numerator: IntArray = np.empty((accumulator.qmap.n_q, 0, 0), np.int64)

    def result(self) -> TwoTime:
        """C2 of the frames so far in whole rows; its arrays stay as they are when more frames come.

        Raises
        ------
        CorrelationError
            No usable frame has arrived, or too few for one row.
        """
        accumulator, factor = self._accumulator, self._frames_per_row
        n_rows = accumulator.n_frames // factor
        if n_rows < 1 or not accumulator.rows_are_final:
            return coarser_rows(accumulator.result(), factor)
        frame_sum = accumulator.frame_sums()[:, : n_rows * factor].reshape(-1, n_rows, factor).sum(axis=2)
        if n_rows > self._n_rows:
            self._extend(frame_sum)
        return self._record(frame_sum)

    def _extend(self, frame_sum: IntArray) -> None:
        """Compute the new rows, and their mirror image."""
        old, n = self._n_rows, frame_sum.shape[1]
        numerator = sums_of_blocks(self._accumulator.products_from(old * self._frames_per_row), self._frames_per_row)
        c2 = np.empty(numerator.shape, np.float32)
        n_pixels = self._accumulator.qmap.n_pixels
        for k, sums in enumerate(frame_sum):
            plain_c2(numerator[k], sums, int(n_pixels[k]), sums, c2[k], old)
        self._numerator = _with_rows(self._numerator, old, numerator)
        self._c2 = _with_rows(self._c2, old, c2)
        self._n_rows = n

    def _record(self, frame_sum: IntArray) -> TwoTime:
        accumulator, factor, n = self._accumulator, self._frames_per_row, self._n_rows
        age_s = np.arange(n * factor, dtype=np.float64) * accumulator.frame_period_s
        return TwoTime(
            c2=self._c2[:, :n, :n],
            lower_sums=self._numerator[:, :n, :n],
            frame_sum=frame_sum,
            n_pixels=accumulator.qmap.n_pixels,
            q_inv_angstrom=accumulator.qmap.q_inv_angstrom,
            age_s=age_s.reshape(n, factor).mean(axis=1),
            frame_period_s=accumulator.frame_period_s * factor,
            normalization=accumulator.normalization,
            quality=bin_quality(accumulator.quality(), factor),
        )


def _with_rows(square: NDArray[Any], old: int, rows: NDArray[Any]) -> NDArray[Any]:
    """The symmetric matrices with their rows from ``old`` on filled in; in new memory where the old is too small.

    Nothing that is there already is written again, so that whoever holds an earlier part of it is not disturbed.
    """
    n = rows.shape[2]
    if n > square.shape[1]:
        room = max(n, 2 * square.shape[1])
        larger = np.empty((len(square), room, room), square.dtype)
        larger[:, :old, :old] = square[:, :old, :old]
        square = larger
    square[:, old:n, :n] = rows
    square[:, :old, old:n] = rows[:, :, :old].transpose(0, 2, 1)
    return square
