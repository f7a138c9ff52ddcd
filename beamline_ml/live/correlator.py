"""C2 of the frames that have landed, equal bit for bit to what the final analysis computes from the same frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation import GrowingTwoTime, QMap, TwoTimeAccumulator, UnusablePixels, checkpoint
from beamline_ml.records import BoolArray, FrameBlock, TwoTime

_SUMS = "sums/"
ReadFrames = Callable[[int, int], FrameBlock]

SEARCH_GROWTH = 4
"""How many times as many frames as in the last search make another one worth its time."""


class LiveCorrelator:
    """Adds frames in order and finds bad pixels by the rule of the final analysis.

    The final analysis searches the first ``n_sample`` frames for bad pixels. Here the search is made in the first
    frames, repeated by whoever has time for it when :attr:`n_to_search` says so, and at the end of the run; when it
    finds other pixels, the frames so far are correlated again.

    Parameters
    ----------
    qmap
        The run's q-map, before bad pixels are taken out.
    frame_period_s
        Time from one frame to the next in s.
    normalization
        'plain' or 'static'.
    n_sample
        How many of the first frames are searched for bad pixels.
    frames_per_row
        Frames in each row of C2 as it is published.
    """

    def __init__(
        self, qmap: QMap, frame_period_s: float, normalization: str, n_sample: int, frames_per_row: int
    ) -> None:
        self._qmap = qmap
        self._frame_period_s = frame_period_s
        self._normalization = normalization
        self._n_sample = n_sample
        self._frames_per_row = frames_per_row
        self._bad: BoolArray | None = None
        self._searched = 0
        self._accumulator: TwoTimeAccumulator | None = None
        self._rows: GrowingTwoTime | None = None
        self.n_frames = 0
        """The cursor: frames taken in."""
        self.rebuilt = 0
        """How often other bad pixels were found and everything was correlated again."""

    def add(self, block: FrameBlock, read: ReadFrames) -> None:
        """Take in the next frames; ``read(first, last)`` gives earlier ones again."""
        if block.first_index != self.n_frames:
            raise ValueError(f"The cursor is at frame {self.n_frames}, the block begins at {block.first_index}.")
        end = self.n_frames + len(block.frames)
        if self._accumulator is None:
            n = min(end, self._n_sample)
            self.adopt(self.search(read, n), n, read)
        assert self._accumulator is not None
        self._accumulator.add(block.frames, block.first_index)
        self.n_frames = end

    @property
    def n_to_settle(self) -> int:
        """In how many frames to look for bad pixels when the run is over, as the final analysis does; 0: it is done."""
        n = min(self.n_frames, self._n_sample)
        return n if n > self._searched else 0

    @property
    def n_to_search(self) -> int:
        """In how many frames to look for bad pixels next; 0 while there are not enough new ones."""
        n, due = self.n_to_settle, SEARCH_GROWTH * self._searched
        if 2 * due > self._n_sample:  # the last search follows soon after
            due = self._n_sample
        return n if n >= due else 0

    def search(self, read: ReadFrames, n: int) -> BoolArray:
        """(rows, cols) True where the first ``n`` frames show a bad pixel; changes nothing, so any thread may do it."""
        return UnusablePixels.found_in(read(0, n).frames, self._qmap).all

    def adopt(self, bad: BoolArray, n_searched: int, read: ReadFrames) -> None:
        """Leave out these pixels, found in ``n_searched`` frames; others than before cost a new correlation."""
        self._searched = n_searched
        if self._bad is None or not np.array_equal(bad, self._bad):
            self.rebuilt += self._bad is not None
            self._bad = bad
            qmap = self._qmap.without(bad)
            accumulator = TwoTimeAccumulator(qmap, self._frame_period_s, normalization=self._normalization)
            if self.n_frames:
                accumulator.add(read(0, self.n_frames).frames, 0)
            self._begin(accumulator)

    def _begin(self, accumulator: TwoTimeAccumulator) -> None:
        self._accumulator, self._rows = accumulator, GrowingTwoTime(accumulator, self._frames_per_row)

    def rows(self) -> TwoTime:
        """C2 of the frames so far, in the rows that are published."""
        assert self._rows is not None
        return self._rows.result()

    def two_time(self) -> TwoTime:
        """C2 of the frames so far, frame by frame."""
        assert self._accumulator is not None
        return self._accumulator.result()

    def to_arrays(self, since: int = 0) -> dict[str, NDArray[Any]]:
        """The state as named arrays; :meth:`resume` goes on from there, or from the parts that :func:`joined` joins.

        Of the frames before ``since`` it holds nothing.
        """
        assert self._accumulator is not None
        assert self._bad is not None
        cursor = np.array([self.n_frames, self._searched, self.rebuilt], np.int64)
        state = {f"{_SUMS}{name}": array for name, array in self._accumulator.to_arrays(since).items()}
        return {"cursor": cursor, "bad": self._bad, "labels": self._qmap.labels, **state}

    def resume(self, arrays: dict[str, NDArray[Any]]) -> bool:
        """Take the state of :meth:`to_arrays` over; False when it belongs to another q-map or normalisation."""
        sums = checkpoint.under(_SUMS, arrays)
        if not np.array_equal(arrays["labels"], self._qmap.labels) or str(sums["normalization"]) != self._normalization:
            return False
        self.n_frames, self._searched, self.rebuilt = (int(n) for n in arrays["cursor"])
        self._bad = arrays["bad"]
        self._begin(TwoTimeAccumulator.from_arrays(sums))
        return True


def cursor_of(arrays: Mapping[str, NDArray[Any]]) -> tuple[int, int]:
    """Frames that a state holds, and how often they had been correlated again."""
    n_frames, _, rebuilt = (int(n) for n in arrays["cursor"])
    return n_frames, rebuilt


def joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The whole state from :meth:`LiveCorrelator.to_arrays` of successive stretches of frames."""
    sums = checkpoint.joined([checkpoint.under(_SUMS, part) for part in parts])
    return dict(parts[-1]) | {f"{_SUMS}{name}": array for name, array in sums.items()}
