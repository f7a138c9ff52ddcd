"""Multi-tau correlation: lags that double, frames added level by level, in one pass and without knowing the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.gather import PixelOrder
from beamline_ml.correlation.lag_products import lag_products
from beamline_ml.correlation.multi_tau_readout import LevelSums, read_out_levels
from beamline_ml.correlation.qmap import QMap
from beamline_ml.correlation.rows import checked_rows
from beamline_ml.errors import CorrelationError
from beamline_ml.records import G2, BoolArray, FrameBlock, IntArray

BLOCK = 256
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
) -> G2:
    """g2 at multi-tau lags of a whole run; see :class:`MultiTauAccumulator` for the arguments.

    Parameters
    ----------
    frames
        (n_frames, rows, cols) integer counts, or an iterable of ``FrameBlock``.
    """
    accumulator = MultiTauAccumulator(qmap, frame_period_s, convention=convention, bad_frames=bad_frames)
    if isinstance(frames, np.ndarray):
        accumulator.add(frames, 0)
    else:
        for block in frames:
            accumulator.add(block.frames, block.first_index)
    return accumulator.result(definition)


@dataclass(slots=True)
class _Level:
    """Frames added 2^level at a time."""

    history: NDArray[Any]
    """(n_buffer, n_pixels) the latest rows, oldest first."""
    odd: NDArray[Any] | None = None
    """(n_pixels,) a row that waits for its partner."""
    odd_valid: bool = False
    products: list[IntArray] = field(default_factory=list)
    """(n, n_lags, n_groups) each: sums of products of row t and row t - lag."""
    sums: list[IntArray] = field(default_factory=list)
    """(n, n_groups) each: sums of counts."""
    valid: list[BoolArray] = field(default_factory=list)


class MultiTauAccumulator:
    """Streams frames through the levels; the total number of frames need not be known.

    Parameters
    ----------
    qmap
        Which pixel belongs to which bin; static bins serve the symmetric normalisation.
    frame_period_s
        Time from one frame to the next in s.
    convention
        ``"aps"``: lags 1..8 at level 0, (5..8) 2^l at level l (4 per doubling). ``"scikit-beam"``: lags 1..7, then
        (4..7) 2^l. Frames are added at each level, so counts stay integers (averaging gives the same g2).
    bad_frames
        Indices of frames to leave out.
    """

    def __init__(
        self,
        qmap: QMap,
        frame_period_s: float = 1.0,
        *,
        convention: str = "aps",
        bad_frames: Iterable[int] = (),
    ) -> None:
        self.qmap = qmap
        self.frame_period_s = frame_period_s
        self.bad_frames = frozenset(int(i) for i in bad_frames)
        self._n_buffer = buffer_length(convention)
        self._order = PixelOrder.of(qmap)
        self._levels: list[_Level] = []
        self._pending: dict[int, NDArray[Any]] = {}
        self._next = 0

    @property
    def n_frames(self) -> int:
        """Frames correlated so far, holes included; frames that wait behind a hole are not."""
        return self._next

    def add(self, frames: NDArray[Any], first_index: int) -> None:
        """Take in a block; frames ahead of a hole wait until the hole is filled, repeated frames are ignored."""
        block = checked_rows(frames, int(first_index), self.qmap, self._order, self.bad_frames)
        if block.rows.dtype.kind == "f":
            raise CorrelationError("Multi-tau correlates integer counts.", "Use two_time for floating-point frames.")
        if not self._pending and np.array_equal(block.index, np.arange(self._next, self._next + len(block.index))):
            self._push_all(block.rows)
            return
        for row, place in zip(block.rows, block.index.tolist(), strict=True):
            if place >= self._next:
                self._pending.setdefault(place, row)
        self._drain(self.bad_frames)

    def result(self, definition: str = "symmetric") -> G2:
        """g2 of what has arrived; a hole takes out the pairs that touch it."""
        snapshot = self._copy()
        last = max(snapshot._pending, default=snapshot._next - 1)
        snapshot._drain(frozenset(range(snapshot._next, last + 1)))
        levels = [
            LevelSums(np.concatenate(level.products), np.concatenate(level.sums), np.concatenate(level.valid))
            for level in snapshot._levels
            if level.products
        ]
        if not levels or not levels[0].valid.any():
            raise CorrelationError("No usable frame has arrived.", "Add frames before asking for a result.")
        lags = [self._lags(k) for k in range(len(levels))]
        return read_out_levels(levels, lags, self._order, self.qmap, self.frame_period_s, definition)

    def _lags(self, level: int) -> IntArray:
        return lags_of_level(level, self._n_buffer)

    def _drain(self, absent: frozenset[int]) -> None:
        """Push every frame whose turn has come; ``absent`` ones count as holes."""
        rows: list[NDArray[Any] | None] = []
        while self._next in self._pending or self._next in absent:
            rows.append(self._pending.pop(self._next, None))
            self._next += 1
            if len(rows) == BLOCK:
                self._push_block(rows)
                rows = []
        if rows:
            self._push_block(rows)

    def _push_all(self, rows: NDArray[Any]) -> None:
        for lo in range(0, rows.shape[0], BLOCK):
            part = rows[lo : lo + BLOCK]
            self._push(0, part, np.ones(part.shape[0], np.bool_))
        self._next += rows.shape[0]
        self._drain(self.bad_frames)

    def _push_block(self, rows: list[NDArray[Any] | None]) -> None:
        zero = np.zeros(self._order.source.size, np.uint8)
        block = np.stack([zero if row is None else row for row in rows])
        self._push(0, block, np.array([row is not None for row in rows]))

    def _push(self, k: int, rows: NDArray[Any], valid: BoolArray) -> None:
        if k == len(self._levels):
            self._levels.append(_Level(np.zeros((self._n_buffer, rows.shape[1]), rows.dtype)))
        level = self._levels[k]
        level.products.append(lag_products(level.history, rows, self._lags(k), self._order.static_edges))
        level.sums.append(self._order.group_sums(rows))
        level.valid.append(valid)
        level.history = np.concatenate([level.history, rows])[-self._n_buffer :]
        coarse, coarse_valid = _paired(level, rows, valid)
        if coarse.shape[0]:
            self._push(k + 1, coarse, coarse_valid)

    def _copy(self) -> MultiTauAccumulator:
        twin = object.__new__(MultiTauAccumulator)
        twin.__dict__.update(self.__dict__)
        twin._levels = [
            _Level(v.history, v.odd, v.odd_valid, list(v.products), list(v.sums), list(v.valid)) for v in self._levels
        ]
        twin._pending = dict(self._pending)
        return twin


def _paired(level: _Level, rows: NDArray[Any], valid: BoolArray) -> tuple[NDArray[Any], BoolArray]:
    """Rows added two by two; an odd one waits in the level. A sum with a hole in it is a hole."""
    if level.odd is not None:
        rows = np.concatenate([level.odd[None], rows])
        valid = np.concatenate([[level.odd_valid], valid])
    even = rows.shape[0] // 2 * 2
    left_over = even < rows.shape[0]
    level.odd, level.odd_valid = (rows[-1], bool(valid[-1])) if left_over else (None, False)
    wide = np.min_scalar_type(2 * int(rows.max(initial=0)))
    coarse = rows[0:even:2].astype(wide) + rows[1:even:2].astype(wide)
    return coarse, valid[0:even:2] & valid[1:even:2]
