"""Speckle contrast of every ring, where a run does not say.

Before there is a law: C2 - 1 drawn back to lag 0, and what rings share of it. Afterwards the law knows what of each
entry is correlation; what it is multiplied with is contrast (``contrast_by_law``).
"""

from __future__ import annotations

import numpy as np

from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.ring_noise import ring_noise
from beamline_ml.dynamics.shown_noise import speckle_counts
from beamline_ml.dynamics.time_blocks import shared_contrast
from beamline_ml.records import Float64Array

DRAWN_BACK = 0.25
"""Relative error of the step from the shortest lag to lag 0."""
SAME_DIAGONAL = 1e-3
"""Relative spread of C2 - 1 at lag 0 over times, below which it is no measurement but a normalisation."""
KNOWN_TO = 0.03
"""Relative error of a contrast that was given without one, or by the normalisation of C2."""
BEYOND_CHANCE = 5.0
"""Standard deviations by which rings must differ more than speckles let them, to have contrasts of their own: many,
because the number of speckles is itself known to a factor of two."""
MOST_BY_CHANCE = 1.2
"""Common contrast up to which the true one may be one."""
LEAST_NEAR = 0.7
"""Part of that which other lags of some ring must lead to; else lag 0 holds something that was filled in."""


def contrasts(observations: CorrelationObservations) -> tuple[Float64Array, Float64Array]:
    """(n_q,) prior mean and spread of the contrast.

    Where the observations do not say: C2 - 1 at lag 0 if that is the same everywhere, as after a normalisation by the
    contrast of each frame. Else C2 - 1 of the two shortest lags is drawn back to lag 0 as by an exponential. N speckles
    show their contrast to 2 / sqrt(N); rings are drawn towards what they have in common.
    """
    known = _known(observations)
    if known is not None:
        return known
    found, err = _drawn_back(observations)
    speckle = 2.0 * found / np.sqrt(speckle_counts(observations))
    return _shared(found, np.hypot(speckle, err))


def contrast_by_law(
    observations: CorrelationObservations, f2: Float64Array, rng: np.random.Generator
) -> tuple[Float64Array, Float64Array]:
    """(n_q,) contrast and its standard error, where the observations do not say: C2 - 1 over what a law says.

    Parameters
    ----------
    f2
        (n_members, n_q, n_times, n_times) of members of a fit; where they differ, the contrast is uncertain.
    """
    known = _known(observations)
    if known is not None:
        return known
    rings = [_by_law(observations, k, f2[:, k], rng) for k in range(f2.shape[1])]
    found, err = (np.array(values) for values in zip(*rings, strict=True))
    return _shared(found, err)


def _by_law(
    observations: CorrelationObservations, k: int, f2: Float64Array, rng: np.random.Generator
) -> tuple[float, float]:
    """Least squares of C2 - 1 on f^2 (n_members, n_times, n_times) of a ring, and its error.

    Weights that make the most of correlated noise would make the most of a law that is slightly off, too.
    """
    entries, mean = observations.measured[k], f2.mean(axis=0)
    n, n_speckles = len(mean), float(speckle_counts(observations)[k])
    before = float(contrasts(observations)[0][k])
    noise = ring_noise(observations, k, n, 0, n_speckles, before, rng, mean)
    weight = mean[entries] / max(float((mean[entries] ** 2).sum()), 1e-12)
    found = max(float(weight @ (observations.c2[k][entries] - 1.0)), 1e-3)
    # A member with more correlation asks for less contrast.
    of_law = found * float((f2[:, entries] @ weight).std(ddof=1))
    return found, float(np.hypot(np.sqrt(weight @ noise @ weight), of_law))


def _known(observations: CorrelationObservations) -> tuple[Float64Array, Float64Array] | None:
    """What the observations say of the contrast and its spread, by words or by C2 at lag 0."""
    contrast, err = observations.contrast, observations.contrast_err
    if contrast is not None:
        return contrast, KNOWN_TO * contrast if err is None else err
    return _normalised(observations)


def _normalised(observations: CorrelationObservations) -> tuple[Float64Array, Float64Array] | None:
    """Contrast that C2 was divided by, which shows as one and the same value at lag 0; None where it differs."""
    lag_0 = np.diagonal(observations.c2, axis1=1, axis2=2) - 1.0
    if not np.isfinite(lag_0).all() or not (lag_0 > 0).all():
        return None
    found, spread = lag_0.mean(axis=1), lag_0.std(axis=1)
    near, _ = _drawn_back(observations)
    if (spread > SAME_DIAGONAL * found).any() or (near < LEAST_NEAR * found).all():
        return None
    return found, KNOWN_TO * found


def _shared(found: Float64Array, err: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Rings drawn towards their common contrast, and errors that hold that one's.

    No light is more coherent than one: what lies a little above it is the chance of few speckles. More than a little is
    no contrast, but it has to be described.
    """
    mean, spread = shared_contrast(found, err, BEYOND_CHANCE)
    common, common_err = float(np.average(found, weights=err**-2.0)), float((err**-2.0).sum() ** -0.5)
    excess = common - 1.0 if 1.0 < common < MOST_BY_CHANCE else 0.0
    return mean - excess, np.hypot(spread, common_err)


def _drawn_back(observations: CorrelationObservations) -> tuple[Float64Array, Float64Array]:
    """(n_q,) C2 - 1 of the two shortest lags drawn back to lag 0, and its error but for few speckles."""
    (first, first_err), (second, _) = (_mean_excess(observations, lag) for lag in (1, 2))
    found = np.clip(first * np.clip(first / np.maximum(second, 1e-9), 1.0, 2.0), 1e-3, 2.0)
    counting = 3.0 * first_err  # of 2 first - second
    return found, np.hypot(counting, DRAWN_BACK * (found - first))


def _mean_excess(observations: CorrelationObservations, lag: int) -> tuple[Float64Array, Float64Array]:
    """(n_q,) mean of C2 - 1, and its error, over pairs of blocks so far apart; over all pairs where there is none."""
    near = np.eye(observations.c2.shape[1], k=lag, dtype=bool) & observations.measured
    entries = np.where(near.any(axis=(1, 2), keepdims=True), near, observations.measured)
    n = np.maximum(entries.sum(axis=(1, 2)), 1)
    excess = np.where(entries, observations.c2 - 1.0, 0.0).sum(axis=(1, 2)) / n
    err = np.sqrt(np.where(entries, observations.c2_err**2, 0.0).sum(axis=(1, 2))) / n
    return np.maximum(excess, 1e-3), err
