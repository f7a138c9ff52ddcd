"""Frames in plain numpy files: ``.npy``, and ``.npz`` with an array ``frames``."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import BudgetExceeded, FramesError
from beamline_ml.frames.reader import GIB, FrameReader
from beamline_ml.frames.recorded import Recorded

_NPY = b"\x93NUMPY"
_ZIP = b"PK\x03\x04"
_REMEDY = "Save integer or float frames (n_frames, rows, cols) with numpy.save, or numpy.savez(path, frames=...)."


def is_array(head: bytes) -> bool:
    """Whether a file with these first bytes is a numpy file."""
    return head.startswith((_NPY, _ZIP))


class ArrayFrames(FrameReader):
    """Frames of a numpy file. An ``.npy`` is read block by block; an ``.npz`` is compressed and read whole.

    Parameters
    ----------
    path
        ``.npy``, or ``.npz`` with ``frames`` and, if it likes, ``frame_period_s``.
    max_bytes
        Most bytes of frames to read at once.
    frame_period_s
        Time between two frames; overrides the file.

    Raises
    ------
    FramesError
        When it is cut off, holds Python objects, or no (n_frames, rows, cols) numbers.
    BudgetExceeded
        When an ``.npz`` would unpack to more than ``max_bytes``; nothing has been unpacked then.
    """

    source = "file"

    def __init__(self, path: Path, max_bytes: int, frame_period_s: float | None = None) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                packed = file.read(4) == _ZIP
            frames, period_s = _unpacked(path, max_bytes) if packed else (_mapped(path), None)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise FramesError(f"{path} is no readable numpy file: {error}.", _REMEDY) from error
        if frames.ndim != 3 or 0 in frames.shape:
            raise FramesError(f"The array in {path} has shape {frames.shape}.", _REMEDY)
        super().__init__((frames.shape[0], frames.shape[1], frames.shape[2]), frames.dtype, max_bytes)
        self._frames = frames
        self.recorded = Recorded(frame_period_s=_checked(path, frame_period_s or period_s))

    def _read(self, first: int, last: int) -> NDArray[Any]:
        return self._frames[first:last]


def _mapped(path: Path) -> NDArray[Any]:
    return np.asarray(np.lib.format.open_memmap(path, mode="r"))


def _unpacked(path: Path, max_bytes: int) -> tuple[NDArray[Any], float | None]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            _require_room(archive, member, path, max_bytes)
    with np.load(path, allow_pickle=False) as arrays:
        if "frames" not in arrays:
            raise KeyError(f"it has no array 'frames' but {', '.join(arrays.files) or 'nothing'}")
        period_s = float(arrays["frame_period_s"].reshape(-1)[0]) if "frame_period_s" in arrays else None
        return arrays["frames"], period_s


def _require_room(archive: zipfile.ZipFile, member: str, path: Path, max_bytes: int) -> None:
    """Compare what a member's header announces, and what the archive says it unpacks to, with the budget."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
    needed = max(math.prod(shape) * dtype.itemsize, archive.getinfo(member).file_size)
    if needed > max_bytes:
        raise BudgetExceeded(
            f"{member} in {path.name} unpacks to {needed / GIB:.3g} GiB; {max_bytes / GIB:.3g} GiB are allowed.",
            "Save the frames with numpy.save instead, which is read block by block, or raise data.max_gib.",
        )


def _checked(path: Path, period_s: float | None) -> float | None:
    if period_s is not None and not (math.isfinite(period_s) and period_s > 0):
        raise FramesError(
            f"The time between two frames in {path.name} is {period_s} s.", "Give frame_period_s, a positive number."
        )
    return period_s
