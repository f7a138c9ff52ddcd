"""Frames that have arrived, regrouped by q bin and kept by their place in the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beamline_ml.correlation.gather import PixelOrder
from beamline_ml.correlation.qmap import QMap
from beamline_ml.errors import CorrelationError
from beamline_ml.records import BoolArray, IntArray


class RowStore:
    """Regrouped rows at their frame index; holes stay zero and are marked absent.

    A frame that arrives again must be the same frame: it is ignored, or refused when its counts differ, so that the
    order of arrival can never decide a result.

    ``least_bytes``: memory to hold, though the rows take less, for whatever comes after them (:meth:`let_go`).
    """

    def __init__(
        self,
        qmap: QMap,
        n_frames: int | None = None,
        saturation: float | None = None,
        bad_frames: frozenset[int] = frozenset(),
        least_bytes: int = 0,
    ) -> None:
        self.qmap = qmap
        self.order = PixelOrder.of(qmap)
        self.n_frames = n_frames
        self.saturation = saturation
        self.bad_frames = bad_frames
        self.is_integer: bool | None = None
        self.max_count = 0
        self.n_rows = 0
        n = n_frames or 0
        n_bytes = n * self.order.source.size
        self._memory: NDArray[np.uint8] | None = np.zeros(max(n_bytes, least_bytes), np.uint8)
        self.rows: NDArray[Any] = self._memory[:n_bytes].reshape(n, self.order.source.size)
        self.present: BoolArray = np.zeros(n, np.bool_)
        self.saturated: BoolArray = np.zeros(n, np.bool_)
        self.group_sums: NDArray[Any] = np.zeros((n, self.order.static_owner.size), np.int64)

    def add(self, frames: NDArray[Any], first_index: int) -> IntArray:
        """Store a block and return the indices of the frames that are new."""
        n = 1 if np.ndim(frames) == 2 else len(frames)
        self._check_place(first_index, n)
        room = self._room(frames, first_index, n)
        block = checked_rows(frames, first_index, self.qmap, self.order, self.bad_frames, room)
        self.n_rows = max(self.n_rows, first_index + n)
        self._check_kind(block.rows.dtype)
        self._grow(first_index + n, block)
        known = self.present[block.index]
        self._check_same(block.rows[known], block.index[known])
        new = block.index[~known]
        block = block.without(known)
        if block.rows is not room:
            self.rows[new] = block.rows
        self.group_sums[new] = block.sums
        self.saturated[new] = block.largest >= self._limit(np.asarray(frames).dtype)
        self.present[new] = True
        return new

    def let_go(self) -> NDArray[np.uint8]:
        """Forget the rows; returns their memory, as bytes of no meaning."""
        memory = self.rows.reshape(-1).view(np.uint8) if self._memory is None else self._memory
        self._memory, self.rows = None, np.zeros((0, self.rows.shape[1]), self.rows.dtype)
        return memory

    def _check_place(self, first_index: int, n: int) -> None:
        if first_index < 0 or (self.n_frames is not None and first_index + n > self.n_frames):
            raise CorrelationError(
                f"Frames {first_index} to {first_index + n - 1} lie outside the run of {self.n_frames} frames.",
                "Give first_index, the place of the block in the run (0-based), and the true number of frames.",
            )

    def _room(self, frames: NDArray[Any], first_index: int, n: int) -> NDArray[Any] | None:
        """Where bytes may be regrouped straight away: frames that are all new, and all good."""
        bytes_only = self.is_integer is not False and self.rows.dtype == np.uint8 == getattr(frames, "dtype", None)
        if not bytes_only or n == 0 or np.shape(frames)[-2:] != self.qmap.frame_shape:
            return None
        self._lengthen(first_index + n)
        return None if self.present[first_index : first_index + n].any() else self.rows[first_index : first_index + n]

    def _check_kind(self, dtype: np.dtype[Any]) -> None:
        is_integer = dtype.kind != "f"
        if self.is_integer is not None and self.is_integer != is_integer:
            raise CorrelationError(
                "Integer and floating-point frames came in the same run.", "Hand in all frames as the same kind."
            )
        self.is_integer = is_integer

    def _grow(self, n: int, block: CheckedRows) -> None:
        if self.is_integer:
            self.max_count = max(self.max_count, int(block.largest.max(initial=0)))
            wanted: np.dtype[Any] = np.min_scalar_type(self.max_count)
        else:
            wanted = np.dtype(np.float64)
            self.group_sums = self.group_sums.astype(np.float64)
        if np.promote_types(self.rows.dtype, wanted) != self.rows.dtype:
            self._memory, self.rows = None, self._as(wanted)
        self._lengthen(n)

    def _as(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The rows as another type; memory that no frame has reached stays untouched."""
        stored = int(self.present.nonzero()[0][-1]) + 1 if self.present.any() else 0
        rows = np.zeros(self.rows.shape, dtype)
        rows[:stored] = self.rows[:stored]
        return rows

    def _lengthen(self, n: int) -> None:
        if n > self.present.size:
            size = max(n, 2 * self.present.size) if self.n_frames is None else self.n_frames
            self._memory, self.rows = None, _padded(self.rows, size)
            self.present = _padded(self.present, size)
            self.saturated = _padded(self.saturated, size)
            self.group_sums = _padded(self.group_sums, size)

    def _limit(self, dtype: np.dtype[Any]) -> float:
        if self.saturation is not None:
            return self.saturation
        return float(np.iinfo(dtype).max) if dtype.kind in "iu" else np.inf

    def _check_same(self, rows: NDArray[Any], index: IntArray) -> None:
        differs = index[(self.rows[index] != rows).any(axis=1)]
        if differs.size:
            raise CorrelationError(
                f"Frame {int(differs[0])} arrived twice with different counts.",
                "Correct first_index of the block, or start a new accumulator for a new run.",
            )


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """Regrouped frames that hold data."""

    rows: NDArray[Any]
    """(n, n_used) counts, or float64."""
    index: IntArray
    """(n,) places in the run."""
    sums: NDArray[Any]
    """(n, n_groups) sums over each static group."""
    largest: NDArray[Any]
    """(n,) largest value of each frame."""

    def without(self, drop: BoolArray) -> CheckedRows:
        """The rows where ``drop`` (n,) is False."""
        if not drop.any():
            return self
        keep = ~drop
        return CheckedRows(self.rows[keep], self.index[keep], self.sums[keep], self.largest[keep])


def checked_rows(
    frames: NDArray[Any],
    first_index: int,
    qmap: QMap,
    order: PixelOrder,
    bad_frames: frozenset[int] = frozenset(),
    room: NDArray[Any] | None = None,
) -> CheckedRows:
    """Regroup the frames that hold data, into ``room`` (n, n_used) uint8 where these are bytes and all of them good.

    Raises
    ------
    CorrelationError
        Wrong dimensions or dtype, or used pixels that are negative, NaN or infinite.
    GeometryError
        The frames do not fit the q-map.
    """
    block = _block(frames)
    qmap.check_frames(block.shape[1:])
    index = np.array([i for i in range(block.shape[0]) if first_index + i not in bad_frames], np.int64)
    block = block if index.size == block.shape[0] else block[index]
    if block.dtype.kind == "f":
        rows: NDArray[Any] = np.empty((index.size, order.source.size))
        order.gather(block, rows)
        absent = _absent(rows)
    else:
        fits = room is not None and index.size == room.shape[0] and block.dtype == np.uint8
        rows, absent = _integer_rows(block, order, room if fits else None), np.zeros(index.size, np.bool_)
    sums, largest = order.sums_and_largest(rows)
    return CheckedRows(rows, index + first_index, sums, largest).without(absent)


def checked_period(frame_period_s: ArrayLike) -> float:
    """The frame period in s, also from an array of one; :class:`CorrelationError` unless it is positive and finite."""
    period = np.asarray(frame_period_s, np.float64)
    if period.size != 1 or not np.isfinite(period).all() or period.reshape(-1)[0] <= 0:
        raise CorrelationError(
            f"The frame period is {frame_period_s!r} s.", "Give the time between two frames, a positive number."
        )
    return float(period.reshape(-1)[0])


def _integer_rows(block: NDArray[Any], order: PixelOrder, room: NDArray[Any] | None) -> NDArray[Any]:
    rows = np.empty((block.shape[0], order.source.size), np.uint8) if room is None else room
    seen = order.gather(block, rows) if block.size else 0
    if seen < 0:
        raise CorrelationError(
            f"Used pixels hold negative counts (down to {int(block.min())}).",
            "Detectors mark gaps and dead pixels so: leave them out (bad_pixels finds them); hand in dark-subtracted "
            "data as floating point.",
        )
    if seen > np.iinfo(np.uint8).max:
        rows = np.empty(rows.shape, np.min_scalar_type(seen))
        order.gather(block, rows)
    return rows


def _block(frames: NDArray[Any]) -> NDArray[Any]:
    block = np.asarray(frames)
    if block.ndim == 2:
        block = block[None]
    if block.ndim != 3:
        raise CorrelationError(
            f"The frames have shape {np.shape(frames)}.", "Give (n_frames, rows, cols), or one (rows, cols) frame."
        )
    if block.dtype.kind == "b":
        return block.view(np.uint8)
    if block.dtype.kind not in "iuf":
        raise CorrelationError(
            f"The frames have dtype {block.dtype}.", "Give integer counts or floating-point numbers."
        )
    return block.astype(np.float64) if block.dtype.kind == "f" else block


def _absent(rows: NDArray[Any]) -> BoolArray:
    """(n,) a frame that is NaN throughout is a missing frame; broken numbers elsewhere are refused."""
    finite = np.isfinite(rows)
    absent: BoolArray = np.isnan(rows).all(axis=1)
    if not finite[~absent].all():
        raise CorrelationError(
            f"{int((~finite[~absent]).any(axis=0).sum())} used pixels are NaN or infinite.",
            "Leave them out: bad_pixels(frames) finds them, qmap.without(bad) takes them out.",
        )
    return absent


def _padded(array: NDArray[Any], n: int) -> NDArray[Any]:
    grown = np.zeros((n, *array.shape[1:]), array.dtype)
    grown[: array.shape[0]] = array
    return grown
