"""The state of a followed run on disk, so that a restart reads no frame twice; what is new is added to what is there.

A checkpoint is a folder of parts. Each is written whole or not at all, holds the frames since the part before, and is
named by the first of them, so that a chain leads from frame 0 to the cursor.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.live.correlator import LiveCorrelator, cursor_of, joined

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Part:
    """The state of a correlator, of which the frames before ``first`` are in earlier parts."""

    first: int
    arrays: Arrays


class Checkpoint:
    """One folder per run.

    Parameters
    ----------
    folder
        Where checkpoints lie.
    uid
        The run.
    """

    def __init__(self, folder: Path, uid: str) -> None:
        self.path = folder / uid
        self._n_frames = self._rebuilt = 0
        """What has been written: frames, and how often all of them had been correlated again."""

    def next_part(self, correlator: LiveCorrelator) -> Part:
        """What is to be written now: the new frames, or all of them when other pixels are used than before.

        The arrays are views of what no later frame changes, so that any thread may write them.
        """
        first = self._n_frames if correlator.rebuilt == self._rebuilt else 0
        return Part(first, correlator.to_arrays(first))

    def write(self, part: Part) -> None:
        """Write a part; a crash in the middle leaves those before."""
        self.path.mkdir(parents=True, exist_ok=True)
        unfinished = self.path / "unfinished"
        with unfinished.open("wb") as file:
            np.savez(file, **part.arrays)  # type: ignore[arg-type]
        if part.first == 0:
            self._drop_others(self._place(0))
        unfinished.replace(self._place(part.first))
        self._reached(part.arrays)

    def load(self) -> Arrays | None:
        """The state, or None where there is none that can be read; unreadable parts, and those after, are dropped."""
        parts = list(self._chain())
        self._drop_others(*(self._place(part.first) for part in parts))
        if not parts:
            return None
        self._reached(parts[-1].arrays)
        return joined([part.arrays for part in parts])

    def remove(self) -> None:
        """The run is over, or its state is of no use."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._n_frames = self._rebuilt = 0

    def _place(self, first: int) -> Path:
        return self.path / f"{first:09d}.npz"

    def _reached(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._n_frames, self._rebuilt = cursor_of(arrays)

    def _chain(self) -> Iterator[Part]:
        first = 0
        while (arrays := _read(self._place(first))) is not None:
            yield Part(first, arrays)
            n_frames, _ = cursor_of(arrays)
            if n_frames <= first:
                return
            first = n_frames

    def _drop_others(self, *kept: Path) -> None:
        for path in self.path.glob("*.npz"):
            if path not in kept:
                path.unlink()


def _read(path: Path) -> Arrays | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
