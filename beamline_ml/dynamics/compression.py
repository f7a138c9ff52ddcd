"""A ring's C2 and intensity, reduced to the few numbers that a smooth evolution can change, with unit noise.

C2 on a time grid has hundreds of entries that share the same speckles. Its smooth part in (log lag, age) and the smooth
part of log S(t) hold what dynamics can say; generalised least squares with the noise covariance of ``speckle_noise``
projects onto them. Baseline, contrast and scale are nuisances with priors, marginalised by adding their spread to the
covariance. After the projection every row has noise of variance one, independent of the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.contrast import contrasts
from beamline_ml.dynamics.counting_noise import relative_counting_variance
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.ring_noise import ring_noise
from beamline_ml.dynamics.shown_noise import speckle_counts
from beamline_ml.dynamics.smooth_evolution import smooth_in_lag_and_age, smooth_in_time
from beamline_ml.records import BoolArray, Float64Array

SCALE_SPREAD = 1.0
ABSOLUTE_SCALE_SPREAD = 0.03


@dataclass(frozen=True)
class RingRows:
    """Projection of one ring."""

    entries: BoolArray
    """(n_times, n_times) measured t1 < t2 within the horizon."""
    weights: Float64Array
    """(n_rows, n_entries + n_log_s): rows = weights @ observables."""
    measured: Float64Array
    """(n_rows,) the data, projected."""


@dataclass(frozen=True)
class Compressed:
    """All rings up to a horizon."""

    rings: tuple[RingRows, ...]
    n_times: int
    contrast: Float64Array
    """(n_q,) prior mean of the contrast."""
    with_s: bool

    @property
    def n_rows(self) -> int:
        """Number of independent unit-noise rows."""
        return sum(len(ring.measured) for ring in self.rings)

    def differences(self, f2: Float64Array, log_s: Float64Array) -> Float64Array:
        """Model minus data, (n_rows,), from f^2 (n_q, n_times, n_times) and log S (n_q, n_times)."""
        rows = []
        for k, ring in enumerate(self.rings):
            c2 = 1.0 + self.contrast[k] * f2[k, : self.n_times, : self.n_times][ring.entries]
            observable = np.concatenate([c2, log_s[k, : self.n_times]]) if self.with_s else c2
            rows.append(ring.weights @ observable - ring.measured)
        return np.concatenate(rows)

    def derivatives(self, d_f2: Float64Array, d_log_s: Float64Array) -> Float64Array:
        """(n_rows, n_parameters) from derivatives of f^2 and log S with a trailing parameter axis."""
        rows = []
        for k, ring in enumerate(self.rings):
            d_c2 = self.contrast[k] * d_f2[k, : self.n_times, : self.n_times][ring.entries]
            d_observable = np.concatenate([d_c2, d_log_s[k, : self.n_times]]) if self.with_s else d_c2
            rows.append(ring.weights @ d_observable)
        return np.concatenate(rows)


def log_s_of(observations: CorrelationObservations) -> Float64Array:
    """(n_q, n_times) logarithm of the structure factor; each ring starts at zero unless it is absolute.

    The logarithm of a noisy mean is on average too small by half its relative variance, which is added.
    """
    log_s = np.log(observations.structure_factor) + 0.5 * relative_counting_variance(observations)
    return log_s if observations.absolute else log_s - log_s[:, :1]


def compress(
    observations: CorrelationObservations,
    n_times: int,
    rng: np.random.Generator,
    use_s: bool = True,
    expected_f2: Float64Array | None = None,
) -> Compressed:
    """Project the first ``n_times`` blocks; ``use_s`` False leaves S(q, t) out.

    Noise that grows with the signal must not be weighed by the measured signal: entries that happen to be low would
    count for more, and the fit would decay too fast (Peelle's puzzle; D'Agostini, Nucl. Instrum. Methods A 346, 306
    (1994)). ``expected_f2`` (n_q, n_times or more, ...), a model's f^2, takes its place where there is one.
    """
    log_s = log_s_of(observations)
    speckles = speckle_counts(observations)
    contrast, _ = contrasts(observations)
    with_s = use_s and not observations.stationary
    rings = [
        _compress_ring(
            observations,
            k,
            n_times,
            log_s[k, :n_times] if with_s else np.empty(0),
            speckles[k],
            rng,
            None if expected_f2 is None else expected_f2[k, :n_times, :n_times],
        )
        for k in range(len(contrast))
    ]
    return Compressed(tuple(rings), n_times, contrast, with_s)


def _compress_ring(
    observations: CorrelationObservations,
    k: int,
    n_times: int,
    log_s: Float64Array,
    n_speckles: float,
    rng: np.random.Generator,
    expected_f2: Float64Array | None,
) -> RingRows:
    entries = observations.measured[k, :n_times, :n_times]
    covariance = _with_nuisances(observations, k, n_times, len(log_s), n_speckles, rng, expected_f2)
    basis = _basis(observations, entries, len(log_s))
    solved = np.linalg.solve(covariance, basis)
    information = basis.T @ solved
    values, vectors = np.linalg.eigh(information)
    held = values > 1e-9 * values[-1]
    weights = (vectors[:, held] / np.sqrt(values[held])).T @ solved.T
    data = np.concatenate([observations.c2[k, :n_times, :n_times][entries], log_s])
    return RingRows(entries, weights, weights @ data)


def _with_nuisances(
    observations: CorrelationObservations,
    k: int,
    n_times: int,
    n_s: int,
    n_speckles: float,
    rng: np.random.Generator,
    expected_f2: Float64Array | None,
) -> Float64Array:
    """Covariance of (C2 entries, log S): noise, contrast and scale."""
    c2 = observations.c2[k, :n_times, :n_times]
    entries = observations.measured[k, :n_times, :n_times]
    contrast, contrast_err = (float(values[k]) for values in contrasts(observations))
    covariance = ring_noise(observations, k, n_times, n_s, n_speckles, contrast, rng, expected_f2)
    n_c2 = int(entries.sum())
    shape = np.clip((c2[entries] - 1.0) / contrast if expected_f2 is None else expected_f2[entries], 0.0, 1.0)
    covariance[:n_c2, :n_c2] += contrast_err**2 * np.outer(shape, shape)
    scale = ABSOLUTE_SCALE_SPREAD if observations.absolute else SCALE_SPREAD
    covariance[n_c2:, n_c2:] += scale**2
    return covariance


def _basis(observations: CorrelationObservations, entries: BoolArray, n_s: int) -> Float64Array:
    """Smooth functions of (log lag, age) on the entries and of time on log S, block diagonal."""
    times = observations.times_s[: len(entries)]
    upper = smooth_in_lag_and_age(times, entries, observations.stationary)
    if n_s == 0:
        return upper
    lower = smooth_in_time(times[:n_s])
    basis = np.zeros((len(upper) + n_s, upper.shape[1] + lower.shape[1]))
    basis[: len(upper), : upper.shape[1]] = upper
    basis[len(upper) :, upper.shape[1] :] = lower
    return basis
