"""Frames of detectors that list photons instead of sending images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import BudgetExceeded, FramesError
from beamline_ml.frames.reader import GIB, FrameReader

_BYTES_PER_EVENT = 64
"""Of an event while it is read, sorted and kept."""


@dataclass(frozen=True, slots=True)
class Events:
    """Photons as ``correlation.multi_tau_events`` takes them; each (frame, pixel) stands once."""

    frame: NDArray[np.int64]
    """(n_events,) frame index, ascending."""
    pixel: NDArray[np.int64]
    """(n_events,) flat pixel index row * n_cols + column, ascending within a frame."""
    count: NDArray[np.int64]
    """(n_events,) photons."""


def added(frame: NDArray[Any], pixel: NDArray[Any], count: NDArray[Any], n_pixels: int) -> Events:
    """The same photons in order, those of the same frame and pixel added."""
    place = frame.astype(np.int64) * n_pixels + pixel.astype(np.int64)
    order = np.argsort(place, kind="stable")
    place = place[order]
    first = np.flatnonzero(np.diff(place, prepend=-1))
    total = np.add.reduceat(count.astype(np.int64)[order], first) if first.size else np.zeros(0, np.int64)
    return Events(place[first] // n_pixels, place[first] % n_pixels, total)


def require_event_budget(path: Path, n_events: int, max_bytes: int) -> None:
    """Raise :class:`BudgetExceeded` when so many events would need more than ``max_bytes`` of memory."""
    needed = n_events * _BYTES_PER_EVENT
    if needed > max_bytes:
        raise BudgetExceeded(
            f"The {n_events} events of {path.name} need {needed / GIB:.3g} GiB to sort; {max_bytes / GIB:.3g} GiB are "
            "allowed.",
            "Raise data.max_gib in the profile (or max_gib), or split the file.",
        )


class EventFrames(FrameReader):
    """Frames made from photon events; events can also be had as they are.

    Counts of a pixel that fill 16 bits make 32-bit frames: nothing wraps, and the largest value of the type, which
    means overflow elsewhere, is never a count.

    Parameters
    ----------
    events
        All photons of the run.
    n_frames
        Length of the run. None: up to the last photon.
    frame_shape
        (rows, cols).
    max_bytes
        Most bytes of frames that one ``read`` may return.

    Raises
    ------
    FramesError
        When there is no photon, or one lies outside the run.
    """

    source = "file"

    def __init__(self, events: Events, n_frames: int | None, frame_shape: tuple[int, int], max_bytes: int) -> None:
        if events.frame.size == 0:
            raise FramesError("The file holds no photon.", "Check that the shutter was open and the threshold right.")
        last = int(events.frame[-1])
        if n_frames is not None and last >= n_frames:
            raise FramesError(
                f"A photon lies in frame {last}; the run has {n_frames} frames.", "Correct n_frames, or leave it out."
            )
        dtype = np.dtype(np.uint16 if events.count.max() < 2**16 - 1 else np.uint32)
        super().__init__((last + 1 if n_frames is None else n_frames, *frame_shape), dtype, max_bytes)
        self._events = events

    def events(self, first: int = 0, last: int | None = None) -> Events:
        """Photons of frames ``first`` to ``last`` (exclusive; default: all), frames counted from ``first``."""
        lo, hi = np.searchsorted(self._events.frame, (first, self.shape[0] if last is None else last))
        part = slice(int(lo), int(hi))
        return Events(self._events.frame[part] - first, self._events.pixel[part], self._events.count[part])

    def _read(self, first: int, last: int) -> NDArray[Any]:
        frames = np.zeros((last - first, self.shape[1] * self.shape[2]), self.dtype)
        part = self.events(first, last)
        frames[part.frame, part.pixel] = part.count
        return frames.reshape(last - first, *self.shape[1:])
