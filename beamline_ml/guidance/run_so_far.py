"""A run as far as it has come: what advice about going on starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.correlation.relaxation import start_values
from beamline_ml.errors import GuidanceError
from beamline_ml.guidance.expected_errors import Bin
from beamline_ml.records import G2, BoolArray, Float64Array, IntArray, RelaxationFits


@dataclass(frozen=True, slots=True)
class RunSoFar:
    """g2 and its fits after ``n_frames`` frames that follow each other without a gap.

    Raises
    ------
    GuidanceError
        Sizes disagree, or there are no frames or no photons.
    """

    g2: G2
    fits: RelaxationFits
    n_frames: int
    frame_period_s: float
    n_pixels: IntArray
    """(n_q,) pixels of each bin."""
    counts: Float64Array
    """(n_q,) mean counts per pixel and frame."""
    adds_frames: bool = True
    """Whether long lags come from added frames (multi-tau) or from pairs of single frames (two-time)."""

    def __post_init__(self) -> None:
        n_q = self.g2.g2.shape[0]
        if not (len(self.n_pixels) == len(self.counts) == len(self.fits.refused) == n_q):
            raise GuidanceError(
                f"g2 has {n_q} bins, the fits {len(self.fits.refused)}, pixels {len(self.n_pixels)} and counts "
                f"{len(self.counts)}.",
                "Give all of the same q-map.",
            )
        if self.n_frames < 2 or not self.frame_period_s > 0:
            raise GuidanceError(
                f"{self.n_frames} frames, {self.frame_period_s} s apart, are no run.", "Wait for some frames."
            )

    @property
    def duration_s(self) -> float:
        """Beam time so far."""
        return self.n_frames * self.frame_period_s

    @property
    def fitted(self) -> BoolArray:
        """(n_q,) bins with a trustworthy relaxation time."""
        held: BoolArray = np.array([reason is None for reason in self.fits.refused], np.bool_)
        return held & (self.counts > 0)

    @property
    def relative_error(self) -> Float64Array:
        """(n_q,) relative standard error of the relaxation time; NaN where there is no fit."""
        error: Float64Array = self.fits.relaxation_time_s_err / self.fits.relaxation_time_s
        return error

    def bin(self, q: int) -> Bin:
        """A bin with a fit, as its errors are foreseen."""
        return Bin(
            relaxation_time_s=float(self.fits.relaxation_time_s[q]),
            stretching=float(self.fits.stretching[q]),
            contrast=float(self.fits.contrast[q]),
            counts=float(self.counts[q]),
            n_pixels=int(self.n_pixels[q]),
            frame_period_s=self.frame_period_s,
            adds_frames=self.adds_frames,
        )

    def decay_seen(self, q: int) -> tuple[float, float]:
        """Contrast that has decayed between the shortest and the longest lags of a bin, and its standard error."""
        known = np.isfinite(self.g2.g2[q]) & (self.g2.g2_err[q] > 0)
        if known.sum() < 4:
            return 0.0, np.inf
        g2, error = self.g2.g2[q, known], self.g2.g2_err[q, known]
        tail = max(2, g2.size // 5)
        return float(g2[:2].mean() - g2[-tail:].mean()), float(np.hypot(error[0], np.median(error[-tail:])))

    def excess(self, q: int) -> tuple[float, float]:
        """g2 - 1 at the shortest lags of a bin, and its standard error."""
        known = np.isfinite(self.g2.g2[q]) & (self.g2.g2_err[q] > 0)
        if not known.any():
            return 0.0, np.inf
        return float(self.g2.g2[q, known][:2].mean()) - 1.0, float(self.g2.g2_err[q, known][0])

    def rough_time_s(self, q: int) -> float:
        """Relaxation time read off the curve of a bin without a fit, in s."""
        known = np.isfinite(self.g2.g2[q])
        return float(np.exp(start_values(self.g2.delay_s[known], self.g2.g2[q, known])[0]))
