"""Speckle contrast of every ring, where a run does not say: C2 - 1 drawn back to lag 0, and what rings share of it."""

from __future__ import annotations

import numpy as np

from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.time_blocks import shared_contrast
from beamline_ml.records import Float64Array

GUESSED_SPECKLES = (50.0, 1000.0)
"""Fewest and most of a ring, where they follow from the error of C2: that may hold counting noise alone."""
DRAWN_BACK = 0.25
"""Relative error of the step from the shortest lag to lag 0."""


def speckle_counts(observations: CorrelationObservations) -> Float64Array:
    """(n_q,) independent speckles of each ring, with a cautious guess where the observations do not say."""
    if observations.n_speckles is not None:
        return observations.n_speckles
    err = np.nanmedian(np.where(observations.measured, observations.c2_err, np.nan), axis=(1, 2))
    return np.clip(1.0 / np.maximum(err, 1e-3) ** 2, *GUESSED_SPECKLES)


def contrasts(observations: CorrelationObservations) -> tuple[Float64Array, Float64Array]:
    """(n_q,) prior mean and spread of the contrast.

    Where the observations do not say, C2 - 1 of the two shortest lags is drawn back to lag 0 as by an exponential. N
    speckles show their contrast to 2 / sqrt(N); rings are drawn towards what they have in common.
    """
    if observations.contrast is not None and observations.contrast_err is not None:
        return observations.contrast, observations.contrast_err
    (first, first_err), (second, _) = (_mean_excess(observations, lag) for lag in (1, 2))
    found = np.clip(first * np.clip(first / np.maximum(second, 1e-9), 1.0, 2.0), 1e-3, 2.0)
    speckle = 2.0 * found / np.sqrt(speckle_counts(observations))
    counting = 3.0 * first_err  # of 2 first - second
    return shared_contrast(found, np.sqrt(speckle**2 + counting**2 + (DRAWN_BACK * (found - first)) ** 2))


def _mean_excess(observations: CorrelationObservations, lag: int) -> tuple[Float64Array, Float64Array]:
    """(n_q,) mean of C2 - 1, and its error, over pairs of blocks so far apart; over all pairs where there is none."""
    near = np.eye(observations.c2.shape[1], k=lag, dtype=bool) & observations.measured
    entries = np.where(near.any(axis=(1, 2), keepdims=True), near, observations.measured)
    n = np.maximum(entries.sum(axis=(1, 2)), 1)
    excess = np.where(entries, observations.c2 - 1.0, 0.0).sum(axis=(1, 2)) / n
    err = np.sqrt(np.where(entries, observations.c2_err**2, 0.0).sum(axis=(1, 2))) / n
    return np.maximum(excess, 1e-3), err
