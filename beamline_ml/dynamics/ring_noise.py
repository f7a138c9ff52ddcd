"""Noise of a ring's C2 and log S together: speckle sampling, counting, and a little that no model explains."""

from __future__ import annotations

import numpy as np

from beamline_ml.dynamics.counting_noise import counting_covariance, relative_counting_variance
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.speckle_noise import field_correlation, unit_deviations
from beamline_ml.records import Float64Array

NUGGET_C2 = 0.003
NUGGET_LOG_S = 0.01
BASELINE_SPREAD = 0.01


def ring_noise(
    observations: CorrelationObservations,
    k: int,
    n_times: int,
    n_s: int,
    n_speckles: float,
    contrast: float,
    rng: np.random.Generator,
    expected_f2: Float64Array | None = None,
) -> Float64Array:
    """Covariance of ring ``k``: its measured C2 entries within ``n_times`` blocks, then ``n_s`` values of log S.

    Parameters
    ----------
    contrast
        Of the ring.
    expected_f2
        (n_times, n_times) a model's f^2; None: what the measured C2 itself shows.
    """
    c2 = observations.c2[k, :n_times, :n_times]
    entries = observations.measured[k, :n_times, :n_times]
    f = field_correlation(c2) if expected_f2 is None else np.sqrt(np.clip(expected_f2, 0.0, 1.0))
    c2_deviation, s_deviation = unit_deviations(f, contrast, rng)
    deviation = np.hstack([c2_deviation[:, entries], s_deviation[:, :n_s]])
    n_c2 = int(entries.sum())
    starts = _independent_starts(observations, f) if observations.stationary else 1.0
    covariance = np.asarray(np.cov(deviation, rowvar=False) / (n_speckles * starts), np.float64)
    covariance[:n_c2, :n_c2] += counting_covariance(observations, k, f, contrast) + BASELINE_SPREAD**2
    of_log_s = relative_counting_variance(observations)[k, :n_s]
    alone = np.concatenate([np.full(n_c2, NUGGET_C2**2), of_log_s + NUGGET_LOG_S**2])
    covariance[np.diag_indices_from(covariance)] += alone
    return covariance


def _independent_starts(observations: CorrelationObservations, f: Float64Array) -> float:
    """How many uncorrelated stretches a stationary run averages over: its length over twice the decay time."""
    decay = np.trapezoid(f[0] ** 2, observations.times_s[: f.shape[1]]) + 0.5 * observations.times_s[1]
    return float(max(1.0, observations.duration_s / max(2.0 * decay, 1e-12)))
