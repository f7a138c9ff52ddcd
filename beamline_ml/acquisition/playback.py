"""Play a movie into a frame file at its true rate, in a thread that the RunEngine never waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.acquisition.frame_file import FrameFile
from beamline_ml.errors import AcquisitionError
from beamline_ml.frames.movie import MovieFile

FLUSH_PERIOD_S = 0.2
_CHUNK_FRAMES = (10, 50)


def frames_per_flush(period_s: float) -> int:
    """How many frames go into one block, so that readers see new ones about five times a second."""
    return max(1, round(FLUSH_PERIOD_S / period_s))


def chunk_frames(period_s: float, n_frames: int) -> int:
    """Frames in a physical chunk: one flush, within 10 to 50, and no more than there are."""
    low, high = _CHUNK_FRAMES
    return min(max(low, min(high, frames_per_flush(period_s))), n_frames)


def check_playable(movie: MovieFile, n_frames: int, period_s: float) -> None:
    """Refuse what the movie cannot show.

    Raises
    ------
    AcquisitionError
        When more frames are asked for than the movie has, or another frame period than it was recorded with.
    """
    if n_frames > movie.n_frames:
        raise AcquisitionError(
            f"{n_frames} frames were asked for, and the movie {movie.path.name} has {movie.n_frames}.",
            f"Ask for at most {movie.n_frames} frames, or make a longer movie.",
        )
    if abs(period_s - movie.frame_period_s) > 1e-6 * movie.frame_period_s:
        raise AcquisitionError(
            f"A frame period of {period_s:g} s was asked for, and {movie.path.name} has one frame every "
            f"{movie.frame_period_s:g} s.",
            f"Use a period of {movie.frame_period_s:g} s: at another rate the sample would seem to move faster or "
            "slower than it does.",
        )


class Playback:
    """One burst: frames of a movie become visible in the file when a detector would have taken them.

    Parameters
    ----------
    movie
        Open movie; closed when the playback ends.
    path
        File to write.
    n_frames
        How many frames, from the start of the movie.
    on_written
        Called in the playback's thread with the number of frames that readers can see.
    """

    def __init__(self, movie: MovieFile, path: Path, n_frames: int, on_written: Callable[[int], None]) -> None:
        self._movie = movie
        self._n_frames = n_frames
        self._on_written = on_written
        self._file = FrameFile(path, movie.frame_shape, movie.dtype, chunk_frames(movie.frame_period_s, n_frames))
        self._block = frames_per_flush(movie.frame_period_s)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="playback")

    def start(self) -> Future[None]:
        """Begin to play; the future ends with the last frame written and the file closed, or with the error."""
        return self._pool.submit(self._play)

    def stop(self) -> None:
        """End early (frames due so far stay in the file) and release file and thread."""
        self._stop.set()
        self._pool.shutdown(wait=True)
        self._close()

    def _read(self, first: int) -> NDArray[Any]:
        return self._movie.read(first, min(first + self._block, self._n_frames))

    def _play(self) -> None:
        period_s = self._movie.frame_period_s
        began, began_at = time.monotonic(), time.time()
        first = 0
        while first < self._n_frames:
            # Read ahead: there is the time of a whole block until it is due.
            block = self._read(first)
            last = first + len(block)
            if self._stop.wait(max(0.0, began + last * period_s - time.monotonic())):
                break
            times_s = began_at + period_s * np.arange(first, last, dtype=np.float64)
            self._on_written(self._file.append(block, times_s))
            first = last
        self._close()

    def _close(self) -> None:
        self._file.close()
        self._movie.close()
