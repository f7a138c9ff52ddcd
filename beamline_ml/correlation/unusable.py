"""Pixels that take no part in a correlation, as found in the first frames of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.bad_pixels import bad_pixels
from beamline_ml.correlation.qmap import QMap
from beamline_ml.correlation.shadows import shadows
from beamline_ml.records import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class UnusablePixels:
    """Bad pixels and shadows of one run."""

    bad: BoolArray
    """(rows, cols) pixels that do not count photons."""
    shadows: IntArray
    """(rows, cols) 0, or the number of the shadow in which a pixel lies."""

    @classmethod
    def found_in(cls, frames: NDArray[Any], qmap: QMap) -> UnusablePixels:
        """Search (n_frames, rows, cols) frames; see :func:`bad_pixels` and :func:`shadows`."""
        bad = bad_pixels(frames)
        counts = np.where(bad, 0.0, frames.sum(axis=0, dtype=np.float64))
        return cls(bad, shadows(counts, np.where(bad, 0, qmap.labels)))

    @property
    def all(self) -> BoolArray:
        """(rows, cols) True = leave out."""
        return self.bad | (self.shadows > 0)

    def warnings(self) -> tuple[str, ...]:
        """What a reader of the result should know of shadows."""
        n = int(self.shadows.max(initial=0))
        if n == 0:
            return ()
        where = "a dark region" if n == 1 else f"{n} dark regions"
        return (
            f"{int((self.shadows > 0).sum())} pixels in {where} of otherwise lit rings (beam stop, arm, edge of a tube)"
            " are left out; a mask would do it for good.",
        )
