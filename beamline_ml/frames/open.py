"""From a run to its frames: straight from the file where allowed, through tiled otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beamline_ml.errors import BudgetExceeded
from beamline_ml.frames.allowed import local_file
from beamline_ml.frames.hdf5 import Hdf5Frames
from beamline_ml.frames.reader import GIB, FrameReader
from beamline_ml.frames.through_tiled import TiledFrames
from beamline_ml.records import RunDescription

_HDF5 = "application/x-hdf5"
_PLAIN_PARAMETERS = {"dataset", "swmr", "locking", "chunk_shape", "join_method"}


def open_frames(
    run: Any,
    description: RunDescription,
    *,
    allowed_roots: Sequence[Path] = (),
    max_gib: float = 4.0,
    missing_file_wait_s: float = 10.0,
) -> FrameReader:
    """Open the frames of a run for reading by index.

    The file is opened directly, beside the detector if need be, when it is one HDF5 file under an allowed folder;
    that is ten times faster than HTTP. Everything else is read through tiled, which guards its own storage.

    Parameters
    ----------
    run
        Client of the run.
    description
        What the run says about itself; names stream and detector.
    allowed_roots
        Folders that files may be opened from.
    max_gib
        Most memory for frames at once, in GiB.
    missing_file_wait_s
        How long to wait for a file, or for its last frames, to appear, in s.

    Raises
    ------
    FileMissing, FileRefused, FramesError
        As :func:`beamline_ml.frames.allowed.local_file` and the readers say.
    BudgetExceeded
        When a single frame is larger than the budget.
    """
    stream = run[description.stream]
    # The plain container looks a child up with one request instead of three.
    array = getattr(stream, "base", stream)[description.detector]
    shape = (description.n_frames, *description.frame_shape)
    max_bytes = int(max_gib * GIB)
    _require_room_for_one(shape, max_bytes)
    path, dataset = _hdf5_file(array, allowed_roots, missing_file_wait_s)
    if path is None:
        return TiledFrames(array, shape, max_bytes)
    return Hdf5Frames(path, dataset, shape, max_bytes, missing_file_wait_s)


def _require_room_for_one(shape: tuple[int, int, int], max_bytes: int) -> None:
    if shape[1] * shape[2] > max_bytes:
        raise BudgetExceeded(
            f"One frame of {shape[1]} x {shape[2]} pixels is larger than the {max_bytes / GIB:.3g} GiB allowed.",
            "Check the frame shape that the run announces; raise data.max_gib if it is right.",
        )


def _hdf5_file(array: Any, allowed_roots: Sequence[Path], wait_s: float) -> tuple[Path | None, str]:
    """The one HDF5 file behind an array, when it may be opened here."""
    sources = array.data_sources()
    if len(sources) != 1 or sources[0].mimetype != _HDF5 or len(sources[0].assets) != 1:
        return None, ""
    parameters = sources[0].parameters
    unknown = {name for name, value in parameters.items() if name not in _PLAIN_PARAMETERS and value is not None}
    if unknown or not isinstance(parameters.get("dataset"), str):
        return None, ""
    return local_file(sources[0].assets[0].data_uri, allowed_roots, wait_s), parameters["dataset"]
