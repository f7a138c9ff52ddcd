"""Photon events of Rigaku's sparse 64-bit format, one module (``.bin``) or six (``.bin.000`` to ``.bin.005``).

Each event is a little-endian 64-bit word, as the correlators of APS 8-ID read it (boost_corr, xpcs-eigen):

========  ==================================================================================
bits      meaning
========  ==================================================================================
0 - 11    counts
16 - 36   pixel, row * 1024 + column in the module; files of six modules may add 2^20 to all
40 - 63   frame
========  ==================================================================================
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import FileMissing, FileRefused, FramesError
from beamline_ml.frames.recorded import Recorded
from beamline_ml.frames.sparse import EventFrames, added, require_event_budget
from beamline_ml.records import BoolArray, IntArray

MODULE_SHAPE = (512, 1024)
"""(rows, cols) of one module."""
GAP = (70, 52)
"""Rows and columns between two modules of the 3M."""
LAYOUT = ((5, 0), (4, 1), (3, 2))
"""Which file is which module of the 3M, row by row from the top left."""

_N_PIXELS = MODULE_SHAPE[0] * MODULE_SHAPE[1]
_OFFSET = 2**20
_WORD_BYTES = 8
_SIX = re.compile(r"(.+\.bin\.)00[0-5]")


def is_rigaku(path: Path) -> bool:
    """Whether a file is called like a sparse Rigaku file; the format has no mark of its own."""
    return path.name.endswith(".bin") or _SIX.fullmatch(path.name) is not None


class RigakuFrames(EventFrames):
    """Frames of a Rigaku detector; events of the same frame and pixel add, counts never wrap.

    ``unusable`` marks the gaps between the modules of a 3M.

    Parameters
    ----------
    path
        ``.bin``, or any of the six ``.bin.000`` to ``.bin.005``; the other five are taken from the same folder.
    max_bytes
        Most memory for events, and for frames at once.
    n_frames
        Length of the run, which the format does not say. None: up to the last photon.
    frame_period_s
        Time between two frames, which the format does not say either.

    Raises
    ------
    FileMissing
        When one of the six files is not there.
    FramesError
        When a file is cut off, or a pixel lies outside its module.
    BudgetExceeded
        When there are more events than memory allows; nothing has been read then.
    """

    def __init__(
        self, path: Path, max_bytes: int, n_frames: int | None = None, frame_period_s: float | None = None
    ) -> None:
        self.path = path
        modules, frame_shape = _modules(path)
        require_event_budget(path, sum(_n_events(file) for file, _ in modules), max_bytes)
        parts = [_decoded(file, origin, frame_shape[1]) for file, origin in modules]
        frame, pixel, count = (np.concatenate(column) for column in zip(*parts, strict=True))
        super().__init__(added(frame, pixel, count, frame_shape[0] * frame_shape[1]), n_frames, frame_shape, max_bytes)
        self.unusable = _gaps(modules, frame_shape)
        self.recorded = Recorded(frame_period_s=frame_period_s)


Module = tuple[Path, tuple[int, int]]
"""File of a module, and row and column of its first pixel in the whole frame."""


def _modules(path: Path) -> tuple[list[Module], tuple[int, int]]:
    six = _SIX.fullmatch(path.name)
    if six is None:
        return [(path, (0, 0))], MODULE_SHAPE
    rows, cols = (size + gap for size, gap in zip(MODULE_SHAPE, GAP, strict=True))
    modules = [
        (_beside(path, f"{six[1]}00{number}"), (i * rows, k * cols))
        for i, line in enumerate(LAYOUT)
        for k, number in enumerate(line)
    ]
    return modules, (len(LAYOUT) * rows - GAP[0], len(LAYOUT[0]) * cols - GAP[1])


def _beside(path: Path, name: str) -> Path:
    """A file of the same folder, by any link that stays in it."""
    file = path.parent / name
    if not file.is_file():
        raise FileMissing(
            f"{path.name} is one of six modules, and {name} is not in {path.parent}.",
            "Copy all six files, .bin.000 to .bin.005, into one folder.",
        )
    if file.resolve().parent != path.parent.resolve():
        raise FileRefused(f"{file} is a link to another folder.", "Copy the six files into one folder.")
    return file


def _n_events(path: Path) -> int:
    size = path.stat().st_size
    if size % _WORD_BYTES:
        raise FramesError(
            f"{path} has {size} bytes, which is no whole number of 64-bit events.",
            "It is cut off or no sparse Rigaku file; copy it again from the detector.",
        )
    return size // _WORD_BYTES


def _decoded(path: Path, origin: tuple[int, int], n_cols: int) -> tuple[IntArray, IntArray, IntArray]:
    """Frame, flat pixel of the whole frame, and counts of each event."""
    words = np.fromfile(path, "<u8")
    pixel = ((words >> np.uint64(16)) & np.uint64(2**21 - 1)).astype(np.int64)
    if pixel.size and pixel.min() >= _OFFSET:
        pixel -= _OFFSET
    _require_pixels(path, pixel)
    row, column = np.divmod(pixel, MODULE_SHAPE[1])
    frame = (words >> np.uint64(40)).astype(np.int64)
    count = (words & np.uint64(2**12 - 1)).astype(np.int64)
    return frame, (row + origin[0]) * n_cols + column + origin[1], count


def _require_pixels(path: Path, pixel: NDArray[np.int64]) -> None:
    outside = pixel >= _N_PIXELS
    if outside.any():
        raise FramesError(
            f"{int(outside.sum())} of {pixel.size} events in {path.name} lie outside the module of "
            f"{MODULE_SHAPE[0]} x {MODULE_SHAPE[1]} pixels (pixel {int(pixel[outside][0])}).",
            "It is damaged or no sparse Rigaku file; copy it again from the detector.",
        )


def _gaps(modules: list[Module], frame_shape: tuple[int, int]) -> BoolArray | None:
    if len(modules) == 1:
        return None
    gaps = np.ones(frame_shape, np.bool_)
    for _, (row, column) in modules:
        gaps[row : row + MODULE_SHAPE[0], column : column + MODULE_SHAPE[1]] = False
    return gaps
