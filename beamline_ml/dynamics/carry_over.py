"""What the speckles of this very run add to its C2, carried on into the future (optimal linear prediction, kriging).

A ring of N speckles measures C2 with an error of order 2 / sqrt(N) that is not noise in time: it belongs to those
speckles and lasts as long as they do. From replicate rings with the forecast's field correlation follow the covariance
of that error between observed and future entries, hence its best guess, and how much remains unforeseeable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.compression import Compressed, RingRows, compress, contrasts, speckle_counts
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.speckle_noise import unit_deviations
from beamline_ml.records import Float64Array, IntArray


@dataclass(frozen=True)
class CarryOver:
    """Best guess of what these speckles add to the ensemble mean, and what remains unknown."""

    c2: Float64Array
    """(n_q, n, n) expected deviation of C2."""
    c2_sd: Float64Array
    """(n_q, n, n) standard deviation about it."""
    log_s: Float64Array
    """(n_q, n) expected deviation of log S."""
    log_s_sd: Float64Array


def carried_on(
    observations: CorrelationObservations, n_seen: int, f2: Float64Array, log_s: Float64Array, seed: int
) -> CarryOver:
    """Continue the deviations of the first ``n_seen`` blocks from a forecast.

    Parameters
    ----------
    f2, log_s
        The forecast's ensemble mean on a grid that begins with the observed times: (n_q, n, n), and (n_q, n) on the
        scale of ``compression.log_s_of``.
    """
    rng = np.random.default_rng(seed)
    target = compress(observations, n_seen, rng)
    difference = -target.differences(f2, log_s)
    n_rows = [len(ring.measured) for ring in target.rings]
    parts = np.split(difference, np.cumsum(n_rows)[:-1])
    rings = [_ring(observations, target, k, part, f2[k], rng) for k, part in enumerate(parts)]
    c2, c2_sd, s, s_sd = (np.stack(part) for part in zip(*rings, strict=True))
    return CarryOver(c2, c2_sd, s, s_sd)


def _ring(
    observations: CorrelationObservations,
    target: Compressed,
    k: int,
    difference: Float64Array,
    f2: Float64Array,
    rng: np.random.Generator,
) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array]:
    n = len(f2)
    everything = _replicates(observations, k, f2, rng)
    seen = everything[:, _columns(target.rings[k], n, target.with_s)] @ target.rings[k].weights.T
    # Counting noise and nuisances are in the rows but not in the replicates; where the model is right, rows have unit
    # variance, so what the replicates lack is made up for.
    gram = np.cov(seen, rowvar=False)
    values, vectors = np.linalg.eigh(gram)
    gram = (vectors * np.maximum(values, 1.0)) @ vectors.T
    cross = everything.T @ seen / (len(everything) - 1)
    gain = np.linalg.solve(gram, cross.T).T
    expected = gain @ difference
    left = np.sqrt(np.maximum(everything.var(axis=0) - np.einsum("ij,ij->i", gain, cross), 0.0))
    return expected[: n * n].reshape(n, n), left[: n * n].reshape(n, n), expected[n * n :], left[n * n :]


def _replicates(
    observations: CorrelationObservations, k: int, f2: Float64Array, rng: np.random.Generator
) -> Float64Array:
    """(n_replicates, n * n + n) deviations of C2 and log S of other rings of speckles with this field correlation."""
    f = np.sqrt(np.clip(f2, 0.0, 1.0))
    np.fill_diagonal(f, 1.0)
    contrast, contrast_err = (values[k] for values in contrasts(observations))
    c2, log_s = unit_deviations(f, float(contrast), rng)
    scale = 1.0 / np.sqrt(speckle_counts(observations)[k])
    of_contrast = contrast_err * rng.standard_normal((len(c2), 1, 1)) * np.clip(f2, 0.0, 1.0)
    of_scale = 0.0 if observations.absolute else rng.standard_normal((len(c2), 1))
    return np.concatenate([(scale * c2 + of_contrast).reshape(len(c2), -1), scale * log_s + of_scale], axis=1)


def _columns(ring: RingRows, n: int, with_s: bool) -> IntArray:
    """Where a ring's observables lie in a replicate."""
    first, second = np.nonzero(ring.entries)
    columns = first * n + second
    return np.concatenate([columns, n * n + np.arange(len(ring.entries))]) if with_s else columns
