"""Whether the bytes of a dataset are in the file.

A file opened for SWMR reading is not checked for its length by HDF5: where it is cut off, and where a chunk was never
written, HDF5 returns zeros without a word, and zeros would be taken for dark frames.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py

from beamline_ml.errors import FramesError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_VERSION, _OFFSET_SIZE, _FLAGS, _END_OF_FILE = 8, 9, 11, slice(28, 36)
"""Bytes of the superblock, versions 2 and 3, by the HDF5 file format specification."""
_SWMR_WRITING = 4


def require_whole_file(path: Path) -> None:
    """Refuse a file that is shorter than its superblock says, unless a writer still holds it.

    A reader beside a writer (SWMR) would not notice, and where the cut goes through the file's structure, HDF5 would
    read the same place again and again, at intervals that double a hundred times.

    Raises
    ------
    FramesError
        When the file is cut off.
    """
    with path.open("rb") as file:
        head = file.read(_END_OF_FILE.stop)
    known = head.startswith(_SIGNATURE) and len(head) == _END_OF_FILE.stop and head[_VERSION] in (2, 3)
    if not known or head[_OFFSET_SIZE] != 8 or head[_FLAGS] & _SWMR_WRITING:
        return
    end, size = int.from_bytes(head[_END_OF_FILE], "little"), path.stat().st_size
    if size < end:
        raise _cut_off(path, end, size)


def _cut_off(path: Path, end: int, size: int) -> FramesError:
    return FramesError(
        f"{path} is cut off: its contents reach to byte {end}, the file ends at {size}.",
        "Copy the file again from the detector, then reprocess the run.",
    )


def require_all_bytes(dataset: h5py.Dataset, n_frames: int, path: Path) -> None:
    """Refuse a dataset whose first ``n_frames`` are not wholly in the file.

    Raises
    ------
    FramesError
        When the file ends before its data, or chunks of these frames were never written.
    """
    end = _end_of_data(dataset, n_frames, path)
    size = path.stat().st_size
    if end > size:
        raise _cut_off(path, end, size)


def _end_of_data(dataset: h5py.Dataset, n_frames: int, path: Path) -> int:
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        return 0 if offset is None else int(offset) + dataset.id.get_storage_size()
    expected = _n_chunks((n_frames, *dataset.shape[1:]), dataset.chunks)
    # A chunk takes at least a byte. Asking first keeps a file that claims billions of chunks from being walked.
    if _n_chunks(dataset.shape, dataset.chunks) > path.stat().st_size:
        raise _never_written(path, expected, expected, n_frames)
    ends: list[int] = []

    def visit(chunk: Any) -> None:
        if chunk.chunk_offset[0] < n_frames:
            ends.append(chunk.byte_offset + chunk.size)

    dataset.id.chunk_iter(visit)
    if len(ends) < expected:
        raise _never_written(path, expected - len(ends), expected, n_frames)
    return max(ends, default=0)


def _n_chunks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> int:
    return math.prod(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))


def _never_written(path: Path, missing: int, expected: int, n_frames: int) -> FramesError:
    return FramesError(
        f"{path} was never written in {missing} of {expected} chunks of its {n_frames} frames.",
        "The detector dropped frames or crashed; take the run again, or analyse the first frames with last_frame.",
    )
