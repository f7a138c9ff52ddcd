"""Multi-tau correlation: lags that double, frames added level by level, in one pass and without knowing the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.age_lag import read_out_ages
from beamline_ml.correlation.age_sums import AgeSums
from beamline_ml.correlation.checkpoint import qmap_arrays, qmap_of, under
from beamline_ml.correlation.gather import PixelOrder
from beamline_ml.correlation.lag_products import lag_products
from beamline_ml.correlation.multi_tau_readout import read_out_levels
from beamline_ml.correlation.pixel_std import PixelSums
from beamline_ml.correlation.qmap import QMap
from beamline_ml.correlation.rows import checked_period, checked_rows
from beamline_ml.errors import CorrelationError
from beamline_ml.records import G2, AgeLagTwoTime, BoolArray, Float64Array, FrameBlock, IntArray

BLOCK = 64
"""Rows that are worked on at a time: few enough to stay in cache."""
MAX_WAITING = 2048
ERRORS = ("block_jackknife", "pixel_std")
BUFFERS = {"aps": 8, "scikit-beam": 7}
"""Longest lag within a level, in its rows."""


def buffer_length(convention: str) -> int:
    """Longest lag within a level of the convention, in rows of the level."""
    if convention not in BUFFERS:
        raise CorrelationError(f"The convention {convention!r} is unknown.", f"Choose one of {', '.join(BUFFERS)}.")
    return BUFFERS[convention]


def lags_of_level(level: int, n_buffer: int) -> IntArray:
    """All lags at level 0, and the longer half of them above, where shorter ones are known from below."""
    return np.arange(1 if level == 0 else n_buffer // 2 + 1, n_buffer + 1)


def multi_tau(
    frames: NDArray[Any] | Iterable[FrameBlock],
    qmap: QMap,
    frame_period_s: float = 1.0,
    *,
    convention: str = "aps",
    definition: str = "symmetric",
    bad_frames: Iterable[int] = (),
    error: str = "block_jackknife",
) -> G2:
    """g2 at multi-tau lags of a whole run; see :class:`MultiTauAccumulator` for the arguments.

    Parameters
    ----------
    frames
        (n_frames, rows, cols) integer counts, or an iterable of ``FrameBlock``.
    """
    accumulator = MultiTauAccumulator(qmap, frame_period_s, convention=convention, bad_frames=bad_frames, error=error)
    if isinstance(frames, np.ndarray):
        accumulator.add(frames, 0)
    else:
        for block in frames:
            accumulator.add(block.frames, block.first_index)
    return accumulator.result(definition)


def age_lag_two_time(
    frames: NDArray[Any] | Iterable[FrameBlock],
    qmap: QMap,
    frame_period_s: float = 1.0,
    *,
    n_ages: int = 64,
    convention: str = "aps",
    bad_frames: Iterable[int] = (),
) -> AgeLagTwoTime:
    """C2 against age and a logarithmic lag, in one pass and bounded memory; see ``MultiTauAccumulator.age_lag``.

    Parameters
    ----------
    frames
        (n_frames, rows, cols) integer counts, or an iterable of ``FrameBlock``.
    n_ages
        Most ages that are told apart.
    """
    accumulator = MultiTauAccumulator(qmap, frame_period_s, convention=convention, bad_frames=bad_frames)
    for block in [FrameBlock(0, frames)] if isinstance(frames, np.ndarray) else frames:
        accumulator.add(block.frames, block.first_index)
    return accumulator.age_lag(n_ages)


@dataclass(slots=True)
class _Level:
    """Frames added 2^level at a time."""

    rows: NDArray[Any]
    """(n_buffer + some, n_pixels) the latest rows, oldest first, and room for the next."""
    ages: AgeSums
    pixels: PixelSums | None
    largest: int = 0
    """No count so far is larger."""

    def room(self, n_buffer: int, n: int, largest: int) -> NDArray[Any]:
        """(n, n_pixels) rows to be filled with counts up to ``largest``."""
        wanted = np.promote_types(self.rows.dtype, np.min_scalar_type(largest))
        if n_buffer + n > self.rows.shape[0] or wanted != self.rows.dtype:
            rows = np.zeros((max(n_buffer + n, self.rows.shape[0]), self.rows.shape[1]), wanted)
            rows[:n_buffer] = self.rows[:n_buffer]
            self.rows = rows
        return self.rows[n_buffer : n_buffer + n]


class MultiTauAccumulator:
    """Streams frames through the levels; the number of frames need not be known, and memory does not grow with it.

    Kept are the last rows of each level and sums over at most 1024 ages; frames that wait behind a hole are few.

    Parameters
    ----------
    qmap
        Which pixel belongs to which bin; static bins serve the symmetric normalisation.
    frame_period_s
        Time from one frame to the next in s.
    convention
        ``"aps"``: lags 1..8 at level 0, (5..8) 2^l at level l (4 per doubling). ``"scikit-beam"``: lags 1..7, then
        (4..7) 2^l, as ``skbeam.core.correlation`` with ``num_bufs=8`` gives beside lag 0. Frames are added at each
        level, so counts stay integers (averaging gives the same g2).
    bad_frames
        Indices of frames to leave out.
    max_waiting
        How many frames may wait behind a hole. When there are more the hole is given up: its frames count as missing,
        and those that come later still are left out and counted in ``n_late``.
    error
        ``"block_jackknife"``: from blocks of time, with the correlation between them. ``"pixel_std"``: scatter of the
        pixels' own g2 over the square root of their number, as boost_corr gives it; it needs three sums for each pixel
        and lag, and several times the time. The replicates are the jackknife's in either case.
    """

    def __init__(
        self,
        qmap: QMap,
        frame_period_s: float = 1.0,
        *,
        convention: str = "aps",
        bad_frames: Iterable[int] = (),
        max_waiting: int = MAX_WAITING,
        error: str = "block_jackknife",
    ) -> None:
        if error not in ERRORS:
            raise CorrelationError(f"The error {error!r} is unknown.", f"Choose one of {', '.join(ERRORS)}.")
        if qmap.flatfield is not None:
            raise CorrelationError(
                "Multi-tau sums integer counts, without a flat field.", "Use two_time, or a q-map without flat field."
            )
        self.qmap = qmap
        self.frame_period_s = checked_period(frame_period_s)
        self.error = error
        self.bad_frames = frozenset(int(i) for i in bad_frames)
        self.convention = convention
        self.max_waiting = max_waiting
        self.n_late = 0
        """Frames that came after their place was given up."""
        self._n_buffer = buffer_length(convention)
        self._order = PixelOrder.of(qmap)
        self._levels: list[_Level] = []
        self._pending: dict[int, NDArray[Any]] = {}
        self._next = 0
        self._lost: set[int] = set()

    @property
    def n_frames(self) -> int:
        """Frames correlated so far, holes included; frames that wait behind a hole are not."""
        return self._next

    @property
    def n_bytes(self) -> int:
        """Memory of what is kept."""
        arrays = [array for level in self._levels for array in (level.rows, *level.ages.to_arrays().values())]
        return sum(array.nbytes for array in (*arrays, *self._pending.values()))

    def add(self, frames: NDArray[Any], first_index: int) -> None:
        """Take in a block; frames ahead of a hole wait until the hole is filled, repeated frames are ignored."""
        first_index = int(first_index)
        if first_index < 0:
            raise CorrelationError(f"A block begins at frame {first_index}.", "Give its place in the run (0-based).")
        if self._bytes_in_order(frames, first_index):
            self._push_bytes(frames)
            return
        block = checked_rows(frames, first_index, self.qmap, self._order, self.bad_frames)
        if block.rows.dtype.kind == "f":
            raise CorrelationError("Multi-tau correlates integer counts.", "Use two_time for floating-point frames.")
        if not self._pending and np.array_equal(block.index, np.arange(self._next, self._next + len(block.index))):
            self._push_rows(block.rows, np.ones(len(block.index), np.bool_))
        else:
            self._wait(block.rows, block.index)
        self._drain(self.bad_frames)
        self._give_up()

    def result(self, definition: str = "symmetric") -> G2:
        """g2 of what has arrived; a hole takes out the pairs that touch it.

        ``definition``: ``"symmetric"`` (mean over static bins of <I I'> / (<I> <I'>), each average over the pairs of
        that lag), ``"ratio_of_sums"`` or ``"mean_of_ratios"`` as for C2.
        """
        levels = self._finished()
        g2 = read_out_levels([level.ages for level in levels], self._order, self.qmap, self.frame_period_s, definition)
        return (
            g2
            if self.error == "block_jackknife"
            else replace(g2, g2_err=self._pixel_std(levels), error_method="pixel_std")
        )

    def _pixel_std(self, levels: list[_Level]) -> Float64Array:
        """(n_q, n_tau) for the lags that have a pair."""
        edges = self._order.dynamic_edges
        known = [(one.pixels, j) for one in levels if one.pixels for j in np.flatnonzero(one.ages.pairs.any(axis=0))]
        return np.stack([pixels.standard_error(int(j), edges) for pixels, j in known], axis=1)

    def age_lag(self, n_ages: int = 64) -> AgeLagTwoTime:
        """C2 against age and lag: for each lag of each level, sums over pairs of rows within stretches of time.

        An element is P sum x x' / sum S S' over the pairs whose later row lies in that age (every photon pair counts
        the same); NaN where holes leave none. Rows of a level that are longer than an age fill all ages they cover.

        Parameters
        ----------
        n_ages
            Most ages that are told apart; each covers the same power of two of frames. Up to 1024.
        """
        ages = [level.ages for level in self._finished()]
        return read_out_ages(ages, self._order, self.qmap, self.frame_period_s, n_ages)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state as named arrays (a checkpoint); :meth:`from_arrays` goes on from there."""
        waiting = sorted(self._pending)
        arrays: dict[str, NDArray[Any]] = {
            "frame_period_s": np.array(self.frame_period_s),
            "bad_frames": np.array(sorted(self.bad_frames), np.int64),
            "convention": np.array(self.convention),
            "error": np.array(self.error),
            "max_waiting": np.array(self.max_waiting),
            "n_late": np.array(self.n_late),
            "next": np.array(self._next),
            "lost": np.array(sorted(self._lost), np.int64),
            "waiting": np.array(waiting, np.int64),
            "n_levels": np.array(len(self._levels)),
        }
        if waiting:
            arrays["waiting_rows"] = np.stack([self._pending[place] for place in waiting])
        for k, level in enumerate(self._levels):
            arrays[f"level_{k}/rows"] = level.rows[: self._n_buffer].copy()
            arrays[f"level_{k}/largest"] = np.array(level.largest)
            arrays |= {f"level_{k}/ages/{name}": array for name, array in level.ages.to_arrays().items()}
            if level.pixels is not None:
                arrays[f"level_{k}/pixel_pairs"] = level.pixels.pairs.copy()
                arrays[f"level_{k}/pixel_sums"] = level.pixels.sums.copy()
        return qmap_arrays(self.qmap) | arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """An accumulator in the state that :meth:`to_arrays` returned."""
        self = cls(
            qmap_of(arrays),
            float(arrays["frame_period_s"]),
            convention=str(arrays["convention"]),
            bad_frames=arrays["bad_frames"].tolist(),
            max_waiting=int(arrays["max_waiting"]),
            error=str(arrays["error"]),
        )
        self.n_late, self._next = int(arrays["n_late"]), int(arrays["next"])
        self._lost = set(arrays["lost"].tolist())
        places = arrays["waiting"].tolist()
        self._pending = dict(zip(places, arrays["waiting_rows"], strict=True)) if places else {}
        for k in range(int(arrays["n_levels"])):
            mine = under(f"level_{k}/", arrays)
            level = self._level(k)
            level.rows, level.largest = np.array(mine["rows"]), int(mine["largest"])
            level.ages = AgeSums.from_arrays(under("ages/", mine))
            if level.pixels is not None:
                level.pixels.pairs, level.pixels.sums = np.array(mine["pixel_pairs"]), np.array(mine["pixel_sums"])
        return self

    def _finished(self) -> list[_Level]:
        """The levels when every frame that waits has had its turn."""
        snapshot = self
        if self._pending:
            snapshot = type(self).from_arrays(self.to_arrays())
            last = max(snapshot._pending)
            snapshot._drain(frozenset(range(snapshot._next, last + 1)))
        first = snapshot._levels[0].ages if snapshot._levels else None
        if first is None or not (first.pairs.any() or first.last_valid.any()):
            raise CorrelationError("No usable frame has arrived.", "Add frames before asking for a result.")
        return snapshot._levels

    def _bytes_in_order(self, frames: NDArray[Any], first_index: int) -> bool:
        """Whether these can be regrouped straight into the first level."""
        if self._pending or first_index != self._next or getattr(frames, "dtype", None) != np.uint8:
            return False
        shape = np.shape(frames)
        if len(shape) != 3 or shape[1:] != self.qmap.frame_shape or shape[0] == 0:
            return False
        return self.bad_frames.isdisjoint(range(first_index, first_index + shape[0]))

    def _push_bytes(self, frames: NDArray[Any]) -> None:
        for lo in range(0, frames.shape[0], BLOCK):
            part = frames[lo : lo + BLOCK]
            room = self._level(0).room(self._n_buffer, part.shape[0], 0)
            if room.dtype != np.uint8:
                self._push_rows(checked_rows(part, 0, self.qmap, self._order).rows, np.ones(len(part), np.bool_))
                continue
            self._order.gather(part, room)
            sums, largest = self._order.sums_and_largest(room)
            self._next += part.shape[0]
            self._push(0, sums, np.ones(part.shape[0], np.bool_), int(largest.max()))
        self._drain(self.bad_frames)

    def _push_rows(self, rows: NDArray[Any], valid: BoolArray) -> None:
        """Regrouped frames whose turn it is; holes are dark."""
        for lo in range(0, rows.shape[0], BLOCK):
            part = rows[lo : lo + BLOCK]
            sums, largest = self._order.sums_and_largest(part)
            self._level(0).room(self._n_buffer, part.shape[0], int(largest.max()))[:] = part
            self._next += part.shape[0]
            self._push(0, sums, valid[lo : lo + BLOCK], int(largest.max()))

    def _wait(self, rows: NDArray[Any], index: IntArray) -> None:
        for row, place in zip(rows, index.tolist(), strict=True):
            if place >= self._next:
                self._pending.setdefault(place, row.copy())
            elif place in self._lost:
                self._lost.discard(place)
                self.n_late += 1

    def _drain(self, absent: frozenset[int]) -> None:
        """Push every frame whose turn has come; ``absent`` ones count as holes."""
        while self._next in self._pending or self._next in absent:
            rows: list[NDArray[Any] | None] = []
            while len(rows) < BLOCK and (self._next + len(rows) in self._pending or self._next + len(rows) in absent):
                rows.append(self._pending.pop(self._next + len(rows), None))
            zero = np.zeros(self._order.source.size, np.uint8)
            valid = np.array([row is not None for row in rows])
            self._push_rows(np.stack([zero if row is None else row for row in rows]), valid)

    def _give_up(self) -> None:
        while len(self._pending) > self.max_waiting:
            hole = range(self._next, min(self._pending))
            self._lost |= set(hole)
            self._drain(self.bad_frames | frozenset(hole))

    def _level(self, k: int) -> _Level:
        if k == len(self._levels):
            lags = lags_of_level(k, self._n_buffer)
            first = np.searchsorted(self._order.static_owner, np.arange(self.qmap.n_q))
            rows = np.zeros((self._n_buffer, self._order.source.size), np.uint8)
            ages = AgeSums(lags, first, self._order.static_owner.size)
            pixels = PixelSums(lags, rows.shape[1]) if self.error == "pixel_std" else None
            self._levels.append(_Level(rows, ages, pixels))
        return self._levels[k]

    def _push(self, k: int, sums: IntArray, valid: BoolArray, largest: int) -> None:
        """Correlate the rows that were just put into the room of level k, and hand them on two by two."""
        level, n_buffer, n = self._levels[k], self._n_buffer, sums.shape[0]
        level.largest = max(level.largest, largest)
        ages, rows = level.ages, level.rows[: n_buffer + n]
        products = lag_products(rows, n_buffer, ages.lags, self._order.static_edges, level.largest)
        # A row that waits for its partner is the last of those that are kept.
        odd = ages.n_rows % 2
        every_sum = np.concatenate([ages.last_sums[-1:], sums])[1 - odd :]
        every_valid = np.concatenate([ages.last_valid[-1:], valid])[1 - odd :]
        if level.pixels is not None:
            level.pixels.add(rows, n_buffer, np.concatenate([ages.last_valid, valid]))
        ages.add(products, sums, valid)
        n_coarse, coarse_largest = (odd + n) // 2, 0
        if n_coarse:
            room = self._level(k + 1).room(n_buffer, n_coarse, 2 * level.largest)
            coarse_largest = int(_add_two_by_two(rows, n_buffer - odd, room))
        rows[:n_buffer] = rows[n:].copy()
        if n_coarse:
            even, uneven = slice(0, 2 * n_coarse, 2), slice(1, 2 * n_coarse, 2)
            coarse_sums = every_sum[even] + every_sum[uneven]
            self._push(k + 1, coarse_sums, every_valid[even] & every_valid[uneven], coarse_largest)


@numba.njit(cache=True)
def _add_two_by_two(rows: Any, first: Any, coarse: Any) -> Any:
    """Returns the largest sum."""
    largest = coarse[0, 0] * 0
    for t in range(coarse.shape[0]):
        one, other, target = rows[first + 2 * t], rows[first + 2 * t + 1], coarse[t]
        for p in range(target.size):
            target[p] = one[p] + other[p]
        for p in range(target.size):
            largest = max(largest, target[p])
    return largest
