"""Frames of a DECTRIS Eiger: a master file with links to data files beside it.

The master's links are the one place where a file may lead to another: each must name a file inside the master's own
folder, which is then opened on its own and gated like any other. HDF5 itself never follows a link out of a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import FramesError
from beamline_ml.frames.allowed import linked_file
from beamline_ml.frames.hdf5 import Hdf5Frames, open_hdf5
from beamline_ml.frames.hdf5_gate import contains, links_in, read_numbers
from beamline_ml.frames.reader import FrameReader
from beamline_ml.frames.recorded import recorded_in, single_number
from beamline_ml.records import BoolArray

_GROUPS = ("entry/data", "entry")
"""Where the links stand; the second in masters of the first firmware versions."""
_NUMBERED = re.compile(r"data_(\d{6,})")
_MASKS = ("entry/instrument/detector/pixel_mask", "entry/instrument/detector/detectorSpecific/pixel_mask")
_COUNTS = tuple(f"entry/instrument/detector/detectorSpecific/{name}" for name in ("nimages", "ntrigger"))
_MAX_MASK_BYTES = 2**30


def is_eiger_master(file: h5py.File) -> bool:
    """Whether an open HDF5 file has numbered links to data files."""
    return any(_numbered(file, group) for group in _GROUPS)


class EigerFrames(FrameReader):
    """Frames of all data files of a master, in the order of their numbers.

    ``unusable`` is the master's pixel mask; ``recorded`` its frame time, count time, energy, distance and beam centre.
    Masked pixels are handed out at the detector's mark (2^16 - 1, 2^32 - 1), whatever they count, so that every user of
    the frames leaves them out (``bad_pixels`` knows the marks); pixels that stand at it by themselves stay as they are.

    Parameters
    ----------
    path
        The master file; already known to be allowed.
    max_bytes
        Most bytes of frames to read at once.
    allowed_roots
        Folders that data files may be opened from. None: the master's own folder.
    frame_period_s
        Overrides the master's frame time.

    Raises
    ------
    FileMissing
        When a data file is not beside the master.
    FileRefused
        When a link leads out of the folder, or a file pulls in bytes from elsewhere.
    FramesError
        When a number is missing in the sequence of data files, or their frames do not fit each other or the mask.
    """

    source = "file"

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        allowed_roots: Sequence[Path] | None = None,
        frame_period_s: float | None = None,
    ) -> None:
        self.path = path
        self._parts: list[Hdf5Frames] = []
        with open_hdf5(path) as master:
            self.recorded = recorded_in(master, frame_period_s)
            self.unusable = _pixel_mask(master)
            announced = _announced(master)
            named = _data_files(master, path, allowed_roots or (path.parent,))
        try:
            for file, dataset in named:
                self._parts.append(Hdf5Frames.whole(file, dataset, max_bytes))
            super().__init__(_common_shape(self._parts, path), self._parts[0].dtype, max_bytes)
            self._check(announced)
        except BaseException:
            self.close()
            raise
        self._first = np.cumsum([0, *(part.shape[0] for part in self._parts)])

    def _check(self, announced: int | None) -> None:
        if self.unusable is not None and self.unusable.shape != self.shape[1:]:
            raise FramesError(
                f"The pixel mask in {self.path.name} is {self.unusable.shape}; the frames are {self.shape[1:]}.",
                "Master and data files belong to different detectors or regions; copy the right ones.",
            )
        if announced is not None and announced != self.shape[0]:
            raise FramesError(
                f"{self.path.name} announces {announced} frames; its data files hold {self.shape[0]}.",
                "Wait until the detector has written them all, or copy the missing data files; if the series was "
                "aborted, correct nimages in the master.",
            )

    def _read(self, first: int, last: int) -> NDArray[Any]:
        frames = np.empty((last - first, *self.shape[1:]), self.dtype)
        for part, begin in zip(self._parts, self._first[:-1].tolist(), strict=True):
            lo, hi = max(first, begin), min(last, begin + part.shape[0])
            if lo < hi:
                frames[lo - first : hi - first] = part.read(lo - begin, hi - begin).frames
        if self.unusable is not None and self.dtype.kind in "ui":
            frames[:, self.unusable] = np.iinfo(self.dtype).max
        return frames

    def close(self) -> None:
        """Close the data files."""
        for part in self._parts:
            part.close()


def _numbered(file: h5py.File, group: str) -> dict[int, tuple[str, Any]]:
    """Links to data files by their number."""
    found = ((_NUMBERED.fullmatch(name), name, link) for name, link in links_in(file, group).items())
    return {int(match[1]): (f"{group}/{name}", link) for match, name, link in found if match is not None}


def _data_files(master: h5py.File, path: Path, roots: Sequence[Path]) -> list[tuple[Path, str]]:
    """File and dataset behind each link, in order."""
    links = next((found for group in _GROUPS if (found := _numbered(master, group))), {})
    if not links:
        raise FramesError(f"{path} has no links data_000001, ...", "Give the master file of an Eiger series.")
    missing = sorted(set(range(min(links), max(links))) - set(links))
    if missing or min(links) > 1:
        raise FramesError(
            f"{path.name} has no link data_{(missing or [1])[0]:06d} but goes on to data_{max(links):06d}.",
            "Copy the master again from the detector; frames cannot be put in their place without it.",
        )
    return [_target(path, name, link, roots) for _, (name, link) in sorted(links.items())]


def _target(path: Path, name: str, link: Any, roots: Sequence[Path]) -> tuple[Path, str]:
    if isinstance(link, h5py.ExternalLink):
        return linked_file(path, link.filename, roots), link.path
    return path, name


def _common_shape(parts: list[Hdf5Frames], path: Path) -> tuple[int, int, int]:
    kinds = {(part.shape[1:], part.dtype) for part in parts}
    if len(kinds) > 1:
        raise FramesError(
            f"The data files of {path.name} hold different frames: "
            f"{', '.join(sorted(f'{shape} {dtype}' for shape, dtype in kinds))}.",
            "They belong to different series; copy the right data files beside the master.",
        )
    rows, cols = parts[0].shape[1:]
    return sum(part.shape[0] for part in parts), rows, cols


def _pixel_mask(master: h5py.File) -> BoolArray | None:
    """DECTRIS marks a pixel by any bit: gap, dead, under- or over-responding, noisy."""
    for name in _MASKS:
        if contains(master, name):
            return np.asarray(read_numbers(master, name, _MAX_MASK_BYTES) != 0)
    return None


def _announced(master: h5py.File) -> int | None:
    counts = list(_present(master))
    return int(np.prod(counts)) if len(counts) == len(_COUNTS) else None


def _present(master: h5py.File) -> Iterator[float]:
    for name in _COUNTS:
        if contains(master, name):
            yield single_number(master, name)
