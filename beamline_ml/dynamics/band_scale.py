"""Bands that have been held against this very run: how far did blind forecasts of its own blocks miss?

Spread of the members and speckle noise are what the model knows of its ignorance. What it does not know shows in the
rolling-origin forecasts that the fit makes anyway: the root mean square of miss over foreseen deviation, taken over the
blocks that were held out, is one when the band is right. Of a forecast's score in the contest, what exceeds the noise
of the blocks themselves is the forecast's own error.
"""

from __future__ import annotations

import numpy as np

from beamline_ml.dynamics.contest import held_out
from beamline_ml.dynamics.contrast import contrasts
from beamline_ml.dynamics.correlation_progress import Progress
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.ring_noise import ring_noise
from beamline_ml.dynamics.shown_noise import speckle_counts
from beamline_ml.records import Float64Array

WIDEST = 3.0
"""Beyond that the model should lose the contest instead."""


def band_scale(ages: CorrelationObservations, progress: Progress, origins: list[int]) -> float:
    """Factor on the forecast's standard deviation, 1 to ``WIDEST``, from blind forecasts of blocks of this run."""
    scores = [_mean_z2(ages, progress, n) for n in origins if n in progress.blind_variance]
    known = [score for score in scores if np.isfinite(score)]
    return float(np.clip(np.sqrt(np.mean(known)), 1.0, WIDEST)) if known else 1.0


def contest_noise(ages: CorrelationObservations, f2: Float64Array, horizons: dict[int, int]) -> float:
    """RMSE of F that a forecast without error has in the contest, by speckles and counting of what it is held against.

    Parameters
    ----------
    f2
        (n_q, n_times, n_times) that speckles and counting scatter about.
    horizons
        For each origin, in blocks seen, up to where it was asked to foretell; none: the noise is 0.
    """
    if not horizons:
        return 0.0
    contrast, speckles = contrasts(ages)[0], speckle_counts(ages)
    variance = np.stack([_variance(ages, k, ring, contrast[k], speckles[k]) for k, ring in enumerate(f2)])
    asked = [variance[:, *held_out(n_seen, horizon)].ravel() for n_seen, horizon in horizons.items()]
    return float(np.sqrt(np.nanmean(np.concatenate(asked))))


def _variance(
    ages: CorrelationObservations, k: int, f2: Float64Array, contrast: float, n_speckles: float
) -> Float64Array:
    """(n_times, n_times) of measured F of a ring; NaN where nothing was measured."""
    noise = ring_noise(ages, k, len(f2), 0, n_speckles, contrast, np.random.default_rng(k), f2)
    variance = np.full(f2.shape, np.nan)
    variance[ages.measured[k]] = np.diagonal(noise) / contrast**2
    return variance


def _mean_z2(ages: CorrelationObservations, progress: Progress, n_seen: int) -> float:
    """Mean squared miss over foreseen variance on the blocks between one horizon and the next."""
    f2 = progress.blind[n_seen]
    contrast = contrasts(ages)[0][:, None, None]
    more = progress.carry_over(ages, n_seen)
    first, second = held_out(n_seen, f2.shape[1])
    counting = ages.c2_err[:, first, second]
    foreseen = contrast**2 * progress.blind_variance[n_seen] + more.c2_sd**2
    sd = np.sqrt(foreseen[:, first, second] + counting**2)
    miss = (1.0 + contrast * f2 + more.c2)[:, first, second] - ages.c2[:, first, second]
    known = np.isfinite(miss) & (sd > 0)
    return float(((miss[known] / sd[known]) ** 2).mean()) if known.any() else float("nan")
