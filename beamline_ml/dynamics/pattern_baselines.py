"""Classical forecasts of whole patterns, for the force law to beat: sums of pictures that fade, turn or stay.

Each takes the frames seen so far and returns pictures with their rates, so that it can be asked about any later time.
None has access to anything later than what it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from beamline_ml.dynamics.baselines.dmd import LEAST_SIZE, modes_of
from beamline_ml.records import Float64Array

FRAMES_AVERAGED = (1, 2, 4, 8, 16)
"""How many of the last frames may stand for what stays: more are less noisy, and longer ago."""


@dataclass(frozen=True)
class FadingPictures:
    """Expected photons Re sum_k picture_k exp(rate_k (t - end))."""

    pictures: NDArray[np.complex128]
    """(n_pictures, n_pixels)."""
    rates_per_s: NDArray[np.complex128]
    """(n_pictures,), their real parts at most 0."""
    end_s: float
    """Time of the last frame seen."""

    def at(self, times_s: Float64Array) -> Float64Array:
        """(n_times, n_pixels) photons, not negative; before the end they are those of the end."""
        after = np.maximum(np.asarray(times_s, np.float64) - self.end_s, 0.0)
        return np.maximum((np.exp(np.outer(after, self.rates_per_s)) @ self.pictures).real, 0.0)


PatternForecaster = Callable[[NDArray[Any], Float64Array], FadingPictures]
"""(counts (n_frames, n_pixels), times_s (n_frames,)) -> what is expected from the last frame on."""


def mean_frame(counts: NDArray[Any], times_s: Float64Array) -> FadingPictures:
    """All that was seen, averaged: what is left of speckles that changed many times."""
    return _still(counts.mean(axis=0), times_s)


def persistence(counts: NDArray[Any], times_s: Float64Array) -> FadingPictures:
    """Nothing changes any more: the mean of as many last frames as foretold the next one best so far."""
    return _still(_lately(counts), times_s)


def relaxation(counts: NDArray[Any], times_s: Float64Array) -> FadingPictures:
    """What lately differed from the mean fades exponentially, as it did during the run.

    The best linear forecast of a stationary signal whose correlation is exponential (an Ornstein-Uhlenbeck process).
    """
    mean, lately = counts.mean(axis=0), _lately(counts)
    kept, rate_per_s = _fading(counts - mean, times_s)
    pictures = np.stack([mean, kept * (lately - mean)]).astype(np.complex128)
    return FadingPictures(pictures, np.array([0.0, -rate_per_s], np.complex128), float(times_s[-1]))


def dmd(counts: NDArray[Any], times_s: Float64Array) -> FadingPictures:
    """Dynamic mode decomposition: the next frame is a linear map of the last one, of low rank and not growing.

    As the forecast of C2 by that name; times are taken as even.
    """
    pictures, factors = modes_of(np.asarray(counts, np.float64))
    kept = np.where(np.abs(factors) > LEAST_SIZE, factors, LEAST_SIZE)
    step_s = float(np.median(np.diff(times_s)))
    return FadingPictures(pictures, np.asarray(np.log(kept) / step_s, np.complex128), float(times_s[-1]))


PATTERN_BASELINES: dict[str, PatternForecaster] = {
    "persistence": persistence,
    "mean": mean_frame,
    "relaxation": relaxation,
    "dmd": dmd,
}


def _still(picture: Float64Array, times_s: Float64Array) -> FadingPictures:
    return FadingPictures(picture[None, :].astype(np.complex128), np.zeros(1, np.complex128), float(times_s[-1]))


def _lately(counts: NDArray[Any]) -> Float64Array:
    """(n_pixels,) mean of the last few frames, of as many as would have foretold each next frame best."""
    n = len(counts)
    allowed = [k for k in FRAMES_AVERAGED if 2 * k <= n] or [1]
    sums = np.concatenate([np.zeros((1, counts.shape[1])), np.cumsum(counts, axis=0, dtype=np.float64)])
    first = max(allowed)
    at = np.arange(first, n)

    def miss(k: int) -> float:
        return float((((sums[at] - sums[at - k]) / k - counts[at]) ** 2).mean())

    best = min(allowed, key=miss) if len(at) else 1
    return np.asarray((sums[n] - sums[n - best]) / best, np.float64)


def _fading(off: Float64Array, times_s: Float64Array) -> tuple[float, float]:
    """How much of a deviation from the mean is expected to be there at once, and the rate at which it fades, in 1/s.

    From the deviations' correlation at all lags up to half the run, each weighed by how many pairs have it.
    """
    n, total = len(off), max(float((off**2).mean()), 1e-30)
    lags = np.arange(1, max(2, n // 2 + 1))
    seen = np.array([float((off[k:] * off[:-k]).mean()) for k in lags]) / total
    lag_s = lags * float(np.median(np.diff(times_s)))
    longest_s = float(lag_s[-1])

    def misses(p: Float64Array) -> Float64Array:
        return np.sqrt(n - lags) * (p[0] * np.exp(-p[1] * lag_s / longest_s) - seen)

    kept, rate = least_squares(misses, [0.5, 1.0], bounds=([0.0, 0.0], [1.0, 100.0])).x
    return float(kept), float(rate) / longest_s
