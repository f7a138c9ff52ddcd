"""What the speckles of this very run add to its C2, carried on into the future (optimal linear prediction).

A ring of N speckles measures C2 with an error of order 2 / sqrt(N) that is not noise in time: it belongs to those
speckles and lasts as long as they do. Two robust numbers sum it up for each ring: how far C2 lies above or below the
forecast on average, over the whole run and over its last third, weighted by the correlation itself. Replicate rings
with the forecast's field correlation say what these two numbers mean for every later entry, and what stays unknown.
Counting noise is in both numbers, too, but does not last: the dimmer the run, the less of them is carried on. Where
they are larger than speckles and counting would have them, the forecast itself is off, which lasts like the speckles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.contrast import contrasts
from beamline_ml.dynamics.counting_noise import counting_covariance
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.shown_noise import speckle_counts
from beamline_ml.dynamics.speckle_noise import unit_deviations
from beamline_ml.records import BoolArray, Float64Array

LATE_PART = 2.0 / 3.0
LEAST_NOISE = 0.01
"""Of the variance of the two numbers: replicates are finite in number, and so is what they know."""


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
    rings = [_ring(observations, k, n_seen, mean, rng) for k, mean in enumerate(f2)]
    excess = _excess(rings)
    carried = [_continued(ring, n_seen, excess) for ring in rings]
    c2_mean, c2_sd, s_sd = (np.stack(part) for part in zip(*carried, strict=True))
    return CarryOver(c2_mean, c2_sd, s_sd)


@dataclass(frozen=True)
class _Ring:
    """The two numbers of a ring, and what others would have had."""

    found: Float64Array
    """(2,) as measured."""
    others: Float64Array
    """(n_replicates, 2)."""
    counting: Float64Array
    """(2, 2) covariance that counting adds."""
    c2: Float64Array
    """(n_replicates, n, n)."""
    log_s: Float64Array
    """(n_replicates, n)."""


def _ring(
    observations: CorrelationObservations, k: int, n_seen: int, f2: Float64Array, rng: np.random.Generator
) -> _Ring:
    seen = k, slice(n_seen), slice(n_seen)
    contrast = contrasts(observations)[0][k]
    weights = _weights(observations.measured[seen], f2)
    deviation = np.nan_to_num(observations.c2[seen]) - 1.0 - contrast * f2[:n_seen, :n_seen]
    of_entries = weights[:, observations.measured[seen]]
    f = np.sqrt(np.clip(f2, 0.0, 1.0))
    np.fill_diagonal(f, 1.0)
    counting = counting_covariance(observations, k, f[:n_seen, :n_seen], float(contrast))
    c2, log_s = _replicates(observations, k, f, rng)
    return _Ring(
        found=_summary(deviation, weights),
        others=_summary(c2[:, :n_seen, :n_seen], weights),
        counting=of_entries @ counting @ of_entries.T,
        c2=c2,
        log_s=log_s,
    )


def _excess(rings: list[_Ring]) -> float:
    """By how much the numbers' mean square, free of counting, exceeds that of speckles; at least one."""
    speckles = np.stack([ring.others.var(axis=0) for ring in rings])
    counting = np.stack([np.diagonal(ring.counting) for ring in rings])
    found = np.stack([ring.found for ring in rings])
    weight = 1.0 / np.maximum(speckles + counting, 1e-300)
    return max(1.0, float((weight * (found**2 - counting)).sum() / max(float((weight * speckles).sum()), 1e-300)))


def _continued(ring: _Ring, n_seen: int, excess: float) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Expected deviation of C2 and what stays unknown of it (n, n), and of log S (n,)."""
    everything = ring.c2.reshape(len(ring.c2), -1)
    covariance = np.cov(ring.others, rowvar=False) + ring.counting / excess
    covariance += LEAST_NOISE * np.trace(covariance) / 2.0 * np.eye(2)
    cross = everything.T @ (ring.others - ring.others.mean(axis=0)) / (len(everything) - 1)
    gain = np.linalg.solve(covariance, cross.T).T
    left = np.sqrt(np.maximum(everything.var(axis=0) - np.einsum("ij,ij->i", gain, cross), 0.0))
    s_sd = (ring.log_s - ring.log_s[:, :n_seen].mean(axis=1, keepdims=True)).std(axis=0)
    shape = ring.c2.shape[1:]
    return (gain @ ring.found).reshape(shape), left.reshape(shape), s_sd


def _weights(entries: BoolArray, f2: Float64Array) -> Float64Array:
    """(2, n_seen, n_seen) that sum deviations of C2 up to two means in units of F: over all entries, over late ones."""
    n_seen = len(entries)
    weight = np.where(entries, np.clip(f2[:n_seen, :n_seen], 0.0, 1.0) + 1e-3, 0.0)
    late = weight * (np.arange(n_seen) >= LATE_PART * n_seen)[:, None]
    return np.stack([w / max(float((w * weight).sum()), 1e-12) for w in (weight, late)])


def _summary(deviation: Float64Array, weights: Float64Array) -> Float64Array:
    """(..., 2) the two numbers of deviations (..., n_seen, n_seen)."""
    return np.asarray(np.tensordot(deviation, weights, axes=([-2, -1], [1, 2])), np.float64)


def _replicates(
    observations: CorrelationObservations, k: int, f: Float64Array, rng: np.random.Generator
) -> tuple[Float64Array, Float64Array]:
    """Deviations of C2 (n_replicates, n, n) and log S (n_replicates, n) of other speckles with this correlation."""
    contrast, contrast_err = (values[k] for values in contrasts(observations))
    c2, log_s = unit_deviations(f, float(contrast), rng)
    scale = 1.0 / np.sqrt(speckle_counts(observations)[k])
    of_contrast = contrast_err * rng.standard_normal((len(c2), 1, 1)) * f**2
    return scale * c2 + of_contrast, scale * log_s
