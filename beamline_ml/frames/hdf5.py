"""Frames straight from the detector's HDF5 file, also while the detector still holds it open (SWMR)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Self

import h5py
import hdf5plugin  # noqa: F401  registers the bitshuffle/LZ4 filter of area detectors
import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import FramesError
from beamline_ml.frames.hdf5_extent import require_all_bytes, require_whole_file
from beamline_ml.frames.hdf5_gate import contained_dataset
from beamline_ml.frames.reader import FrameReader

_POLL_S = 0.1


class Hdf5Frames(FrameReader):
    """Frames of one dataset of one file.

    Parameters
    ----------
    path
        The file; already known to be allowed.
    dataset
        Name of the dataset in it, (n, rows, cols) or (n, 1, rows, cols).
    shape
        (n_frames, rows, cols) that the catalogue announced. A file may hold more frames than that, and gets
        ``wait_s`` to hold as many.
    max_bytes
        Most bytes of frames to read at once.
    wait_s
        How long to wait for frames that the catalogue announced and the file does not show yet, in s.

    Raises
    ------
    FileRefused
        When the file would pull in bytes from outside itself, or holds no numbers.
    FramesError
        When it is no readable HDF5 file, is cut off, or its frames are not those that the catalogue announced.
    """

    source = "file"

    def __init__(
        self, path: Path, dataset: str, shape: tuple[int, int, int], max_bytes: int, wait_s: float = 0.0
    ) -> None:
        self.path = path
        self._wait_s = wait_s
        self._file = open_hdf5(path)
        try:
            self._data = contained_dataset(self._file, dataset)
            _require_frame_shape(self._data, shape, path)
            self._wait_for_frames(shape[0], wait_s)
            require_all_bytes(self._data, shape[0], path)
            super().__init__(shape, np.dtype(self._data.dtype), max_bytes)
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def whole(cls, path: Path, dataset: str, max_bytes: int) -> Self:
        """All frames of a dataset, whose shape the file itself says.

        Raises
        ------
        FileRefused, FramesError
            As for the constructor; also when the dataset holds no stack of frames.
        """
        with open_hdf5(path) as file:
            found = tuple(int(n) for n in contained_dataset(file, dataset).shape)
        if len(found) < 3 or 0 in found:
            raise FramesError(
                f"{dataset} in {path} has shape {found}.", "Name a dataset of frames, (n_frames, rows, cols)."
            )
        return cls(path, dataset, (found[0], found[-2], found[-1]), max_bytes)

    def _wait_for_frames(self, n_frames: int, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while self._refreshed_length() < n_frames:
            if time.monotonic() >= deadline:
                raise FramesError(
                    f"{self.path} holds {self._data.shape[0]} frames; the catalogue announced {n_frames}.",
                    "If the detector crashed, analyse what is there with last_frame="
                    f"{self._data.shape[0]}; otherwise wait for the file to be copied and reprocess the run.",
                )
            time.sleep(_POLL_S)

    def _grow(self, n_frames: int) -> None:
        self._wait_for_frames(n_frames, self._wait_s)
        require_all_bytes(self._data, n_frames, self.path)

    def _refreshed_length(self) -> int:
        # The low-level id.refresh() leaves h5py's cached shape stale; the dataset's own refresh() does not.
        self._data.refresh()
        return int(self._data.shape[0])

    def _read(self, first: int, last: int) -> NDArray[Any]:
        self._data.refresh()
        try:
            frames = np.asarray(self._data[first:last])
        except OSError as error:
            raise FramesError(
                f"Frames {first} to {last} of {self.path} cannot be read: {error}.",
                "The file is cut off, damaged or compressed with a filter that is not installed; copy it again from "
                "the detector, then reprocess the run.",
            ) from error
        if len(frames) != last - first:
            raise FramesError(
                f"{self.path} gave {len(frames)} frames where {last - first} were asked.",
                "The file shrank while it was read; copy it again from the detector, then reprocess the run.",
            )
        return frames.reshape(last - first, *self.shape[1:])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_hdf5(path: Path) -> h5py.File:
    """Open for reading beside a writer; files that never knew SWMR are opened plainly.

    Raises
    ------
    FramesError
        When it is no readable HDF5 file, or is cut off.
    """
    require_whole_file(path)
    try:
        return h5py.File(path, "r", libver="latest", swmr=True)
    except OSError:
        pass
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise FramesError(
            f"{path} is no readable HDF5 file: {error}.",
            "It is cut off, still being copied, or no HDF5 file; copy it again from the detector, then reprocess the "
            "run.",
        ) from error


def _require_frame_shape(dataset: h5py.Dataset, shape: tuple[int, int, int], path: Path) -> None:
    found = tuple(int(n) for n in dataset.shape)
    if len(found) < 3 or found[-2:] != shape[1:] or any(n != 1 for n in found[1:-2]):
        raise FramesError(
            f"{dataset.name} in {path} has shape {found}; the catalogue announced {shape}.",
            "The documents describe another file or another detector mode; check the detector's configuration.",
        )
