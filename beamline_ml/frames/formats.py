"""Open a detector file by what it is: Eiger master, areaDetector HDF5, Rigaku or Timepix events, numpy array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from beamline_ml.errors import FileMissing, FileRefused, FramesError
from beamline_ml.frames.arrays import ArrayFrames, is_array
from beamline_ml.frames.eiger import EigerFrames, is_eiger_master
from beamline_ml.frames.hdf5 import Hdf5Frames, open_hdf5
from beamline_ml.frames.hdf5_gate import contains
from beamline_ml.frames.reader import GIB, FrameReader
from beamline_ml.frames.recorded import recorded_in
from beamline_ml.frames.rigaku import RigakuFrames, is_rigaku

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_DATASETS = ("entry/data/data", "entry/instrument/detector/data", "exchange/data", "data")
_KNOWN = "Eiger master and areaDetector HDF5, Rigaku .bin, Timepix3 .tpx3, numpy .npy and .npz"


@dataclass(frozen=True, slots=True)
class Choices:
    """What a reader may be told beside the path; formats that need none of it ignore it."""

    dataset: str | None = None
    """Dataset with the frames in an HDF5 file. None: the first of the usual names."""
    frame_period_s: float | None = None
    """Time between two frames in s; overrides the file. Event lists without frames need it."""
    n_frames: int | None = None
    """Length of the run, where the format does not say it."""
    photon_at: str = "centroid"
    """Where a cluster of hits is counted: 'centroid', 'brightest' or 'hits'."""
    max_bytes: int = 4 * GIB
    allowed_roots: Sequence[Path] | None = None
    """Folders that data files beside a master may lie in. None: the master's own folder."""


def open_file(
    path: str | Path,
    *,
    dataset: str | None = None,
    frame_period_s: float | None = None,
    n_frames: int | None = None,
    photon_at: str = "centroid",
    max_gib: float = 4.0,
    allowed_roots: Sequence[Path] | None = None,
) -> FrameReader:
    """Open a detector file, whichever known format it has, for reading by index.

    Parameters
    ----------
    path
        Eiger master or areaDetector HDF5, Rigaku ``.bin`` (or one of six ``.bin.000`` ...), Timepix3 ``.tpx3``, numpy
        ``.npy`` or ``.npz``.
    dataset
        Dataset with the frames in an HDF5 file. None: ``/entry/data/data`` or another usual name.
    frame_period_s
        Time between two frames in s; overrides the file. A Timepix file needs it: the duration of a frame.
    n_frames
        Length of the run, for event lists that end before it does.
    photon_at
        Timepix: count a cluster at its ``"centroid"`` or ``"brightest"`` pixel, or each of its ``"hits"``.
    max_gib
        Most memory for frames at once, in GiB.
    allowed_roots
        Folders that the data files of an Eiger master may lie in. None: the master's own folder.

    Returns
    -------
    reader
        ``recorded`` says what the file knows of timing and geometry, ``unusable`` which pixels it marks. Readers of
        event lists (:class:`~beamline_ml.frames.sparse.EventFrames`) also hand out ``events()``.

    Raises
    ------
    FileMissing
        When there is no such file, or a part of it is missing.
    FileRefused
        When it is no regular file or leads out of the allowed folders.
    FramesError
        When its format is unknown or it is damaged.
    BudgetExceeded
        When it would need more memory than allowed.
    """
    roots = None if allowed_roots is None else tuple(allowed_roots)
    choices = Choices(dataset, frame_period_s, n_frames, photon_at, int(max_gib * GIB), roots)
    file = Path(path)
    _require_regular(file)
    return open_known(file, choices)


def open_known(path: Path, choices: Choices) -> FrameReader:
    """As :func:`open_file`, for a path that may be opened."""
    with path.open("rb") as opened:
        head = opened.read(len(_HDF5_MAGIC))
    if head == _HDF5_MAGIC:
        return _open_hdf5(path, choices)
    if is_array(head):
        return ArrayFrames(path, choices.max_bytes, choices.frame_period_s)
    if head.startswith(b"TPX3"):
        # Finding clusters needs numba, which takes a second to import.
        from beamline_ml.frames.timepix import TimepixFrames

        return TimepixFrames(path, choices.max_bytes, choices.frame_period_s, choices.n_frames, choices.photon_at)
    if is_rigaku(path):
        return RigakuFrames(path, choices.max_bytes, choices.n_frames, choices.frame_period_s)
    raise FramesError(f"{path} has no format that is known here.", f"Known are {_KNOWN}.")


def _require_regular(path: Path) -> None:
    if not path.exists():
        raise FileMissing(f"There is no file {path}.", "Check the path.")
    if not path.is_file():
        raise FileRefused(f"{path} is no regular file.", f"Give a file. Known are {_KNOWN}.")


def _open_hdf5(path: Path, choices: Choices) -> FrameReader:
    with open_hdf5(path) as file:
        if choices.dataset is None and is_eiger_master(file):
            return EigerFrames(path, choices.max_bytes, choices.allowed_roots, choices.frame_period_s)
        recorded = recorded_in(file, choices.frame_period_s)
        found = [name for name in _DATASETS if contains(file, name)]
        dataset = choices.dataset or (found[0] if found else None)
    if dataset is None:
        raise FramesError(
            f"{path} has none of the datasets {', '.join(_DATASETS)}.", "Name the dataset that holds the frames."
        )
    reader = Hdf5Frames.whole(path, dataset, choices.max_bytes)
    reader.recorded = recorded
    return reader
