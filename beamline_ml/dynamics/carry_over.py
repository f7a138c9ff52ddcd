"""What the speckles of this very run add to its C2, carried on into the future (optimal linear prediction).

A ring of N speckles measures C2 with an error of order 2 / sqrt(N) that is not noise in time: it belongs to those
speckles and lasts as long as they do. Two robust numbers sum it up for each ring: how far C2 lies above or below the
forecast on average, over the whole run and over its last third, weighted by the correlation itself. Replicate rings
with the forecast's field correlation say what these two numbers mean for every later entry, and what stays unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.contrast import contrasts, speckle_counts
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.speckle_noise import unit_deviations
from beamline_ml.records import BoolArray, Float64Array

LATE_PART = 2.0 / 3.0


@dataclass(frozen=True)
class CarryOver:
    """Best guess of what these speckles add to the ensemble mean, and what remains unknown."""

    c2: Float64Array
    """(n_q, n, n) expected deviation of C2."""
    c2_sd: Float64Array
    """(n_q, n, n) standard deviation about it."""
    log_s_sd: Float64Array
    """(n_q, n) standard deviation of log S against its mean over the observed times."""


def carried_on(observations: CorrelationObservations, n_seen: int, f2: Float64Array, seed: int) -> CarryOver:
    """Continue the deviations of the first ``n_seen`` blocks from a forecast.

    Parameters
    ----------
    f2
        The forecast's ensemble mean (n_q, n, n) on a grid that begins with the observed times.
    """
    rng = np.random.default_rng(seed)
    contrast, _ = contrasts(observations)
    rings = []
    for k, mean in enumerate(f2):
        entries = observations.measured[k, :n_seen, :n_seen]
        model = 1.0 + contrast[k] * mean[:n_seen, :n_seen]
        deviation = np.where(entries, np.nan_to_num(observations.c2[k, :n_seen, :n_seen]) - model, 0.0)
        c2, log_s = _replicates(observations, k, mean, rng)
        rings.append(_ring(deviation, entries, mean, c2, log_s))
    c2_mean, c2_sd, s_sd = (np.stack(part) for part in zip(*rings, strict=True))
    return CarryOver(c2_mean, c2_sd, s_sd)


def _ring(
    deviation: Float64Array, entries: BoolArray, f2: Float64Array, c2: Float64Array, log_s: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    n_seen = len(entries)
    seen = _summary(c2[:, :n_seen, :n_seen], entries, f2)
    found = _summary(deviation[None], entries, f2)[0]
    everything = c2.reshape(len(c2), -1)
    covariance = np.cov(seen, rowvar=False)
    covariance += 0.05 * np.trace(covariance) / 2.0 * np.eye(2)
    cross = everything.T @ (seen - seen.mean(axis=0)) / (len(c2) - 1)
    gain = np.linalg.solve(covariance, cross.T).T
    left = np.sqrt(np.maximum(everything.var(axis=0) - np.einsum("ij,ij->i", gain, cross), 0.0))
    s_sd = (log_s - log_s[:, :n_seen].mean(axis=1, keepdims=True)).std(axis=0)
    return (gain @ found).reshape(f2.shape), left.reshape(f2.shape), s_sd


def _summary(deviation: Float64Array, entries: BoolArray, f2: Float64Array) -> Float64Array:
    """(n_replicates, 2): mean deviation in units of F, over all seen entries and over those late in the run."""
    n_seen = len(entries)
    weight = np.where(entries, np.clip(f2[:n_seen, :n_seen], 0.0, 1.0) + 1e-3, 0.0)
    late = weight * (np.arange(n_seen) >= LATE_PART * n_seen)[:, None]
    parts = [(deviation * w).sum(axis=(1, 2)) / max(float((w * weight).sum()), 1e-12) for w in (weight, late)]
    return np.stack(parts, axis=1)


def _replicates(
    observations: CorrelationObservations, k: int, f2: Float64Array, rng: np.random.Generator
) -> tuple[Float64Array, Float64Array]:
    """Deviations of C2 (n_replicates, n, n) and log S (n_replicates, n) of other speckles with this correlation."""
    f = np.sqrt(np.clip(f2, 0.0, 1.0))
    np.fill_diagonal(f, 1.0)
    contrast, contrast_err = (values[k] for values in contrasts(observations))
    c2, log_s = unit_deviations(f, float(contrast), rng)
    scale = 1.0 / np.sqrt(speckle_counts(observations)[k])
    of_contrast = contrast_err * rng.standard_normal((len(c2), 1, 1)) * np.clip(f2, 0.0, 1.0)
    return scale * c2 + of_contrast, scale * log_s
