"""From a run to its frames: straight from the file where allowed, through tiled otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beamline_ml.errors import BudgetExceeded, FileRefused, FramesError
from beamline_ml.frames.allowed import local_file
from beamline_ml.frames.eiger import is_eiger_master
from beamline_ml.frames.formats import Choices, open_known
from beamline_ml.frames.hdf5 import Hdf5Frames, open_hdf5
from beamline_ml.frames.hdf5_gate import contains
from beamline_ml.frames.reader import GIB, FrameReader
from beamline_ml.frames.through_tiled import TiledFrames
from beamline_ml.records import RunDescription

_HDF5 = "application/x-hdf5"
_WHOLE_FILES = {
    "application/x-eiger-master",
    "application/x-rigaku-sparse",
    "application/x-timepix3",
    "application/x-npy",
}
"""Media types of files that are read as :func:`beamline_ml.frames.open_file` reads them, one file a run."""
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
    that is ten times faster than HTTP. So are an Eiger master with its data files, and a file of photon events.
    Everything else is read through tiled, which guards its own storage.

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
    choices = Choices(None, description.frame_period_s, shape[0], max_bytes=max_bytes, allowed_roots=allowed_roots)
    whole = _whole_file(array, allowed_roots, missing_file_wait_s)
    if whole is not None:
        return _as_announced(open_known(whole, choices), shape, whole)
    path, dataset = _hdf5_file(array, allowed_roots, missing_file_wait_s)
    if path is None:
        return TiledFrames(array, shape, max_bytes)
    if _leads_to_data_files(path, dataset):
        return _as_announced(open_known(path, choices), shape, path)
    return Hdf5Frames(path, dataset, shape, max_bytes, missing_file_wait_s)


def _require_room_for_one(shape: tuple[int, int, int], max_bytes: int) -> None:
    if shape[1] * shape[2] > max_bytes:
        raise BudgetExceeded(
            f"One frame of {shape[1]} x {shape[2]} pixels is larger than the {max_bytes / GIB:.3g} GiB allowed.",
            "Check the frame shape that the run announces; raise data.max_gib if it is right.",
        )


def _whole_file(array: Any, allowed_roots: Sequence[Path], wait_s: float) -> Path | None:
    """The one file of a format without datasets behind an array, when it may be opened here."""
    sources = array.data_sources()
    if len(sources) != 1 or sources[0].mimetype not in _WHOLE_FILES or len(sources[0].assets) != 1:
        return None
    return local_file(sources[0].assets[0].data_uri, allowed_roots, wait_s)


def _leads_to_data_files(path: Path, dataset: str) -> bool:
    """Whether the file is an Eiger master, and ``dataset`` not a dataset of its own."""
    with open_hdf5(path) as file:
        if not is_eiger_master(file):
            return False
        try:
            return not contains(file, dataset)
        except FileRefused:
            return True


def _as_announced(reader: FrameReader, shape: tuple[int, int, int], path: Path) -> FrameReader:
    if reader.shape[1:] == shape[1:] and reader.shape[0] >= shape[0]:
        return reader
    reader.close()
    raise FramesError(
        f"{path} holds {reader.shape[0]} frames of {reader.shape[1:]}; the catalogue announced {shape[0]} of "
        f"{shape[1:]}.",
        "The documents describe another file or another detector mode, or the file is not complete yet.",
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
