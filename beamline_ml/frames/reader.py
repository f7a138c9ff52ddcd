"""Reading frames of a run in blocks, never more bytes at once than allowed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import BudgetExceeded, FramesError
from beamline_ml.frames.recorded import Recorded
from beamline_ml.records import BoolArray, FrameBlock

GIB = 2**30
_BLOCK_BYTES = 64 * 2**20


class FrameReader(ABC):
    """Frames of one run, by index; a context manager that closes what it opened.

    Parameters
    ----------
    shape
        (n_frames, rows, cols).
    dtype
        Type of a pixel in the file.
    max_bytes
        Most bytes of frames that one :meth:`read` may return.
    """

    source: str
    """'file' or 'tiled': where the frames come from."""
    recorded: Recorded = Recorded()
    """What the file itself says about how the frames were taken."""
    unusable: BoolArray | None = None
    """(rows, cols) True where the file marks a pixel as gap, dead or hot; None when it marks none."""

    def __init__(self, shape: tuple[int, int, int], dtype: np.dtype[Any], max_bytes: int) -> None:
        if dtype.kind not in "uif":
            raise FramesError(
                f"The frames are of type {dtype}, not numbers.",
                "Point the run to a dataset of integer or float frames.",
            )
        self.shape = shape
        self.dtype = dtype.newbyteorder("=")
        self.max_bytes = max_bytes

    @property
    def frame_bytes(self) -> int:
        """Size of one frame in memory."""
        return self.shape[1] * self.shape[2] * self.dtype.itemsize

    def read(self, first: int, last: int) -> FrameBlock:
        """Frames ``first`` to ``last`` (exclusive).

        Raises
        ------
        FramesError
            When the run has no such frames, or they cannot be read.
        BudgetExceeded
            When they need more memory than allowed; nothing has been read then.
        """
        if not 0 <= first <= last <= self.shape[0]:
            raise FramesError(
                f"Frames {first} to {last} were asked of a run with {self.shape[0]} frames.",
                "Correct first_frame and last_frame.",
            )
        self._require_budget(last - first)
        frames = self._read(first, last)
        return FrameBlock(first, np.ascontiguousarray(frames, self.dtype))

    def grow(self, n_frames: int) -> None:
        """The run goes on: the catalogue announces ``n_frames`` by now.

        Raises
        ------
        FramesError
            When the frames do not appear in time, or are not wholly there.
        """
        if n_frames > self.shape[0]:
            self._grow(n_frames)
            self.shape = (n_frames, *self.shape[1:])

    def _grow(self, n_frames: int) -> None:  # noqa: B027  most sources are asked anew for each block
        """Make sure that so many frames can be read."""

    def blocks(self, size: int | None = None, first: int = 0, last: int | None = None) -> Iterator[FrameBlock]:
        """Consecutive blocks of at most ``size`` frames (default: 64 MiB of them)."""
        end = self.shape[0] if last is None else last
        step = size or max(1, min(_BLOCK_BYTES, self.max_bytes) // max(1, self.frame_bytes))
        for start in range(first, end, step):
            yield self.read(start, min(start + step, end))

    def _require_budget(self, n_frames: int) -> None:
        needed = n_frames * self.frame_bytes
        if needed > self.max_bytes:
            raise BudgetExceeded(
                f"{n_frames} frames of {self.shape[1]} x {self.shape[2]} {self.dtype} need {needed / GIB:.3g} GiB; "
                f"{self.max_bytes / GIB:.3g} GiB are allowed.",
                "Read fewer frames at once (first_frame, last_frame), or raise data.max_gib in the profile.",
            )

    @abstractmethod
    def _read(self, first: int, last: int) -> NDArray[Any]:
        """Frames (last - first, rows, cols), all of them."""

    def close(self) -> None:  # noqa: B027  most sources hold nothing open
        """Release what was opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
