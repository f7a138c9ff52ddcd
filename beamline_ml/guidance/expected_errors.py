"""How well a relaxation time will be known after so many frames, before they are taken.

The noise of g2 has two parts. Photons are few: a pair of frames adds (1 + 2 k)/(k^2 n_pixels) of variance, with k
counts per pixel and frame (D. Lumma et al., Rev. Sci. Instrum. 71, 3274 (2000)), and lags do not share it. Speckles are
few: the products at two lags share fluctuations, by Wick's theorem for Gaussian fields as in
``correlation.relaxation``, and a run that is not long against the relaxation time has seen few of them. Both are
carried through the same weighted stretched-exponential fit that the analysis makes, priors included.

Against simulated runs the absolute errors come out up to 40 % too small; how they shrink is right to about 10 %.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from beamline_ml.correlation.kww import kww_jacobian
from beamline_ml.correlation.lags import quasi_logarithmic
from beamline_ml.correlation.relaxation import BASELINE_PRIOR_PER_CONTRAST, MIN_LAGS, REACH, STRETCHING_PRIOR
from beamline_ml.errors import GuidanceError
from beamline_ml.records import Float64Array, IntArray

_LAGS_PER_LEVEL = 8
_MOST_SHIFTS = 256
UNKNOWN = float("inf")


@dataclass(frozen=True, slots=True)
class Bin:
    """One q bin as the error of its relaxation time depends on it."""

    relaxation_time_s: float
    stretching: float
    contrast: float
    """As seen with this frame period."""
    counts: float
    """Counts per pixel and frame."""
    n_pixels: int
    frame_period_s: float
    """Frames follow each other without a gap."""
    adds_frames: bool = True
    """Whether long lags are taken from added frames (multi-tau) or from pairs of single ones (two-time)."""

    def __post_init__(self) -> None:
        for name in ("relaxation_time_s", "stretching", "contrast", "counts", "n_pixels", "frame_period_s"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise GuidanceError(f"{name} of a q bin is {value}.", "Errors can be foreseen for a bin with a fit.")

    def with_frame_period(self, frame_period_s: float) -> Bin:
        """The same sample in the same beam, looked at in longer or shorter frames."""
        factor = frame_period_s / self.frame_period_s
        sharp = self.contrast / blur(self.frame_period_s, self.relaxation_time_s, self.stretching)
        return replace(
            self,
            frame_period_s=frame_period_s,
            counts=self.counts * factor,
            contrast=sharp * blur(frame_period_s, self.relaxation_time_s, self.stretching),
        )


def blur(exposure_s: float, relaxation_time_s: float, stretching: float) -> float:
    """Share of the contrast that is left when speckles move during the exposure.

    The mean of 2 (1 - u) s(u) over u in 0..1, s the decay over the exposure (R. Bandyopadhyay et al., Rev. Sci.
    Instrum. 76, 093110 (2005)).
    """
    nodes, weights = np.polynomial.legendre.leggauss(24)
    u = 0.5 * (nodes + 1.0)
    decay = np.exp(-2.0 * (exposure_s * u / relaxation_time_s) ** stretching)
    return float(weights @ ((1.0 - u) * decay))


@lru_cache(maxsize=4096)
def relative_time_error(q_bin: Bin, n_frames: int) -> float:
    """Expected relative standard error of the relaxation time from a run of so many frames; inf with too few lags."""
    lags = quasi_logarithmic(max(1, 3 * n_frames // 4), _LAGS_PER_LEVEL)
    if lags.size < MIN_LAGS:
        return UNKNOWN
    noise = g2_covariance(q_bin, lags, n_frames)
    sigma = np.sqrt(np.diagonal(noise))
    delay_s = lags.astype(np.float64) * q_bin.frame_period_s
    parameters = np.array([np.log(q_bin.relaxation_time_s), q_bin.contrast, q_bin.stretching, 1.0])
    prior = np.zeros((2, 4))
    prior[0, 3] = 1.0 / (BASELINE_PRIOR_PER_CONTRAST * q_bin.contrast)
    prior[1, 2] = 1.0 / (q_bin.stretching * STRETCHING_PRIOR)
    gain = np.linalg.pinv(np.concatenate([kww_jacobian(delay_s, parameters) / sigma[:, None], prior]))
    data, priors = gain[:, :-2] / sigma, gain[:, -2:]
    covariance = data @ noise @ data.T + priors @ priors.T
    return float(np.sqrt(covariance[0, 0]))


def g2_covariance(q_bin: Bin, lags: IntArray, n_frames: int) -> Float64Array:
    """(n_tau, n_tau) covariance of g2 between lags, photon and speckle noise."""
    n_pairs = np.maximum(n_frames - lags, 1).astype(np.float64)
    added = _frames_added(lags) if q_bin.adds_frames else np.ones(lags.size)
    counts = q_bin.counts * added
    photons = (1.0 + 2.0 * counts) / (counts**2 * q_bin.n_pixels * np.maximum(n_pairs / added, 1.0))
    speckle = _speckle_covariance(q_bin, lags, n_pairs) / q_bin.n_pixels
    return speckle + np.diag(photons)


def _frames_added(lags: IntArray) -> Float64Array:
    """Frames that are added before lags of each doubling are taken."""
    level = np.maximum(np.ceil(np.log2(lags / _LAGS_PER_LEVEL)), 0.0)
    added: Float64Array = 2.0**level
    return added


def _speckle_covariance(q_bin: Bin, lags: IntArray, n_pairs: Float64Array) -> Float64Array:
    """(n_tau, n_tau) covariance from one independent speckle: sums over the distance between two pairs of frames."""
    time = q_bin.relaxation_time_s / q_bin.frame_period_s
    # Further apart than this, neither product of decays is left, whatever the lags.
    reach = min(REACH * time + 1.0, float(n_pairs[0]))
    step = max(1.0, 2.0 * reach / _MOST_SHIFTS)
    shift = np.arange(-int(reach / step), int(reach / step) + 1).astype(np.float64) * step
    pairs = np.minimum(n_pairs[:, None], n_pairs[None, :])
    inside = np.clip(1.0 - np.abs(shift) / pairs[:, :, None], 0.0, None) * step

    def decay(frames: Float64Array) -> Float64Array:
        value: Float64Array = np.exp(-2.0 * np.minimum((np.abs(frames) / time) ** q_bin.stretching, 300.0))
        return value

    one, other = lags[:, None, None].astype(np.float64), lags[None, :, None].astype(np.float64)
    shared = decay(shift) * decay(shift + other - one) + decay(shift + other) * decay(shift - one)
    total: Float64Array = q_bin.contrast**2 * (shared * inside).sum(axis=2)
    return total / np.maximum(n_pairs[:, None], n_pairs[None, :])
