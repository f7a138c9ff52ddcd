"""A first look at D, before any fit: how fast each ring loses its correlation over the shortest lags."""

from __future__ import annotations

import numpy as np

from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.speckle_noise import shortest_lags


def first_diffusion(observations: CorrelationObservations) -> float:
    """Rough D from how fast each ring loses its correlation over the first lags: median of rate / (2 q^2)."""
    estimates = ring_diffusion(observations)
    if not estimates:
        return 1.0 / (float(observations.q_inv_um.max()) ** 2 * float(observations.times_s[-1]))
    return float(np.median(estimates))


def ring_scatter(observations: CorrelationObservations) -> float:
    """Standard error of log D from the disagreement between rings of a stationary sample."""
    estimates = ring_diffusion(observations)
    if not observations.stationary or len(estimates) < 3:
        return 0.0
    log_d = np.log(estimates)
    return float(1.48 * np.median(np.abs(log_d - np.median(log_d))) / np.sqrt(len(log_d)))


def ring_diffusion(observations: CorrelationObservations) -> list[float]:
    """D of every ring with a decay over its first lags."""
    times = observations.times_s
    estimates = []
    for k, q in enumerate(observations.q_inv_um):
        if not all(np.isfinite(np.diagonal(observations.c2[k], offset)).any() for offset in (1, 2)):
            continue
        lag_1, lag_2 = (value - 1.0 for value in shortest_lags(observations.c2[k]))
        if lag_1 > 0.02 and lag_2 > 0.01 and lag_2 < lag_1:
            estimates.append(np.log(lag_1 / lag_2) / (2.0 * q**2 * np.mean(np.diff(times)[: len(times) // 2])))
    return estimates
