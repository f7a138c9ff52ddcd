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
        raise FramesError(
            f"{path} is cut off: its frames reach to byte {end}, the file ends at {size}.",
            "Copy the file again from the detector, then reprocess the run.",
        )


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
