"""The HDF5 file that a detector writes while others read it (SWMR), in areaDetector's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

FRAMES = "/entry/data/data"
TIMESTAMPS = "/entry/instrument/NDAttributes/NDArrayTimeStamp"
TIMESTAMP_CHUNK = 1024


class FrameFile:
    """A growing stack of frames with one time stamp each; readers see every block as soon as it is appended.

    Parameters
    ----------
    path
        File to create; it must not exist.
    frame_shape
        (rows, cols).
    dtype
        Type of a pixel.
    chunk_frames
        Frames in one physical chunk. Tiled lists all chunks at each request, so one frame a chunk is slow; much more
        than one flush delays readers.
    """

    def __init__(self, path: Path, frame_shape: tuple[int, int], dtype: np.dtype[Any], chunk_frames: int) -> None:
        self.path = path
        self.n_frames = 0
        chunk = (chunk_frames, *frame_shape)
        # A chunk that does not fit the cache is compressed again with each append to it.
        cache_bytes = 2 * int(np.prod(chunk)) * dtype.itemsize
        self._file = h5py.File(path, "x", libver="latest", rdcc_nbytes=max(cache_bytes, 1 << 20))
        self._frames = self._file.create_dataset(
            FRAMES,
            shape=(0, *frame_shape),
            maxshape=(None, *frame_shape),
            dtype=dtype,
            chunks=chunk,
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        self._times = self._file.create_dataset(
            TIMESTAMPS, shape=(0,), maxshape=(None,), dtype="<f8", chunks=(TIMESTAMP_CHUNK,)
        )
        self._file.swmr_mode = True

    def append(self, frames: NDArray[Any], timestamps_s: NDArray[np.floating[Any]]) -> int:
        """Write frames (n, rows, cols) and their times (n,), make them visible, and return the new number of frames."""
        first, last = self.n_frames, self.n_frames + len(frames)
        for dataset, block in ((self._frames, frames), (self._times, timestamps_s)):
            dataset.resize(last, axis=0)
            dataset[first:last] = block
            dataset.flush()
        self.n_frames = last
        return last

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        if self._file:
            self._file.close()
