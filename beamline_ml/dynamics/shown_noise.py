"""Noise that a run shows where it does not say: how many speckles a ring holds, and how well S(q, t) was counted.

Speckles and counting scatter C2 and S(t) around any smooth evolution. What is left of C2 beside smooth functions of lag
and age is, but for counting, that of other speckles with the same correlation (``speckle_noise``) over their number. It
is known to a factor of two for a ring and better for all rings together, which share their common scale as far as they
agree. What S(t) scatters beyond speckles is counting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.smooth_evolution import smooth_in_lag_and_age, smooth_in_time
from beamline_ml.dynamics.speckle_noise import field_correlation, shortest_lags, unit_deviations
from beamline_ml.records import BoolArray, Float64Array

POSSIBLE_SPECKLES = np.geomspace(20.0, 20000.0, 61)
LIKELY_SPECKLES, FACTOR = 300.0, 2.5
"""Of a ring before anything is seen, and the factor (one standard deviation) by which that may be off."""
RING_FACTOR = 2.0
"""By which rings differ from each other."""
BY_CHANCE = 1.5
"""How much more than expected speckles may make S(t) scatter before it is counting."""
HOLDS_MORE = 0.3
"""Part of the variance that ``c2_err`` stands for: where C2 scatters by less, that is no counting, which differs from
entry to entry, but the whole error with that of the speckles."""
ENOUGH_LEFT = 10.0
"""Independent numbers that must scatter before so much is concluded."""
COUNTING_UNSURE = 0.5
"""Relative error of the variance that ``c2_err`` stands for: some hold more than counting, some too much of it."""


@dataclass(frozen=True)
class _Scatter:
    """What of a ring's C2 and log S is not smooth."""

    c2: float
    """Sum of squares of C2, less that of counting; of all its error, where that holds more than counting."""
    c2_err: float
    c2_per_speckle: float
    """What a single speckle would have: this over N is what N have."""
    chance: float
    """Relative standard deviation of that from run to run."""
    log_s: float
    """Variance of log S."""
    log_s_per_speckle: float


def with_shown_noise(observations: CorrelationObservations) -> CorrelationObservations:
    """Observations that say how many speckles their rings have and how well S was counted, by their own scatter."""
    n_speckles, s_err = observations.n_speckles, observations.structure_factor_err
    if n_speckles is not None and s_err is not None:
        return observations
    scatter = _scatter_of_all(observations)
    if n_speckles is None:
        n_speckles = _speckles(scatter)
    if s_err is None:
        s_err = _counting_error(observations.structure_factor, scatter, n_speckles)
    return replace(observations, n_speckles=n_speckles, structure_factor_err=s_err)


def speckle_counts(observations: CorrelationObservations) -> Float64Array:
    """(n_q,) independent speckles of each ring, by the scatter of C2 where the observations do not say."""
    known = observations.n_speckles
    return _speckles(_scatter_of_all(observations)) if known is None else known


def _scatter_of_all(observations: CorrelationObservations) -> list[_Scatter]:
    return [_scatter(observations, k) for k in range(len(observations.q_inv_um))]


def _scatter(observations: CorrelationObservations, k: int) -> _Scatter:
    entries, times = observations.measured[k], observations.times_s
    smooth = _orthonormal(smooth_in_lag_and_age(times, entries, observations.stationary))
    smooth_s = _orthonormal(smooth_in_time(times))
    seen, variance = observations.c2[k][entries], observations.c2_err[k][entries] ** 2
    c2, log_s = _others(entries, smooth @ (smooth.T @ seen), np.random.default_rng(k))
    left = _squares_left(c2, smooth)
    found, err, is_whole = _beside_counting(seen, variance, smooth)
    free = max(len(times) - smooth_s.shape[1], 1)
    return _Scatter(
        c2=found,
        c2_err=err,
        c2_per_speckle=float((c2**2).sum(axis=1).mean() if is_whole else left.mean()),
        chance=float(left.std() / max(float(left.mean()), 1e-300)),
        log_s=float(_squares_left(np.log(observations.structure_factor[k]), smooth_s)) / free,
        log_s_per_speckle=float(_squares_left(log_s, smooth_s).mean()) / free,
    )


def _others(entries: BoolArray, evolution: Float64Array, rng: np.random.Generator) -> tuple[Float64Array, Float64Array]:
    """Deviations of single speckles whose C2 has this evolution (n_entries,): of C2 there, and of log S."""
    c2 = np.full(entries.shape, np.nan)
    c2[entries] = evolution
    f = np.triu(field_correlation(c2), 1)  # only t1 < t2 is known
    contrast = max(shortest_lags(c2)[0] - 1.0, 1e-3)
    of_c2, of_log_s = unit_deviations(f + f.T + np.eye(len(f)), contrast, rng)
    return of_c2[:, entries], of_log_s


def _beside_counting(seen: Float64Array, variance: Float64Array, smooth: Float64Array) -> tuple[float, float, bool]:
    """Squares of C2 that are neither smooth nor counting, their error, and whether they are of all its error instead.

    The latter is so where C2 scatters by far less than it should, if ``variance`` were that of counting.
    """
    left = np.clip(1.0 - (smooth**2).sum(axis=1), 0.0, None)
    counting, scattered = float((variance * left).sum()), float(_squares_left(seen, smooth))
    if scattered < HOLDS_MORE * counting and left.sum() > ENOUGH_LEFT:
        whole = float(variance.sum())
        return whole, COUNTING_UNSURE * whole, True
    by_chance = np.sqrt(2.0 * (variance**2 * left).sum())
    return scattered - counting, float(np.hypot(by_chance, COUNTING_UNSURE * counting)), False


def _orthonormal(functions: Float64Array) -> Float64Array:
    """(n, m or fewer) basis of the span of functions (n, m)."""
    vectors, values, _ = np.linalg.svd(functions, full_matrices=False)
    return np.asarray(vectors[:, values > 1e-9 * values[0]], np.float64)


def _squares_left(values: Float64Array, smooth: Float64Array) -> Float64Array:
    """(...) sum of squares of values (..., n) beside an orthonormal basis (n, m)."""
    return np.asarray(((values - (values @ smooth) @ smooth.T) ** 2).sum(axis=-1), np.float64)


def _speckles(scatter: list[_Scatter]) -> Float64Array:
    """(n_q,) geometric mean of what is possible for each ring, given all rings."""
    log_n = np.log(POSSIBLE_SPECKLES)
    ring = np.stack([_log_likelihood(one) for one in scatter])
    alike = np.exp(-0.5 * ((log_n[:, None] - log_n) / np.log(RING_FACTOR)) ** 2)
    alike /= alike.sum(axis=1, keepdims=True)
    # (n_q, n_scale): likelihood of what each ring shows where the rings' common scale is so large
    of_scale = np.log(np.exp(ring) @ alike.T)
    before = -0.5 * ((log_n - np.log(LIKELY_SPECKLES)) / np.log(FACTOR)) ** 2
    total = of_scale.sum(axis=0) + before
    found = []
    for k, likelihood in enumerate(ring):
        others = np.exp(total - of_scale[k] - (total - of_scale[k]).max())
        weight = np.exp(likelihood) * (others @ alike)
        found.append(np.exp((weight * log_n).sum() / weight.sum()))
    return np.array(found)


def _log_likelihood(ring: _Scatter) -> Float64Array:
    """(n_possible,) of a ring's scatter, for every possible number of speckles; its largest value is 0."""
    expected = ring.c2_per_speckle / POSSIBLE_SPECKLES
    variance = (ring.chance * expected) ** 2 + ring.c2_err**2 + 1e-30
    found = -0.5 * ((ring.c2 - expected) ** 2 / variance + np.log(variance))
    return np.asarray(found - found.max(), np.float64)


def _counting_error(structure_factor: Float64Array, scatter: list[_Scatter], n_speckles: Float64Array) -> Float64Array:
    """(n_q, n_times) standard error of S: as counts have it, relatively the smaller the brighter it is."""
    seen, one = (np.array(values) for values in zip(*[(s.log_s, s.log_s_per_speckle) for s in scatter], strict=True))
    relative_variance = np.clip(seen - BY_CHANCE * one / n_speckles, 0.0, None)[:, None]
    mean = structure_factor.mean(axis=1, keepdims=True)
    return np.asarray(np.sqrt(relative_variance * mean * structure_factor), np.float64)
