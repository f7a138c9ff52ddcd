"""A ring's C2 and intensity, reduced to the few numbers that a smooth evolution can change, with unit noise.

C2 on a time grid has hundreds of entries that share the same speckles. Its smooth part in (log lag, age) and the smooth
part of log S(t) hold what dynamics can say; generalised least squares with the noise covariance of ``speckle_noise``
projects onto them. Baseline, contrast and scale are nuisances with priors, marginalised by adding their spread to the
covariance. After the projection every row has noise of variance one, independent of the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre

from beamline_ml.dynamics.contrast import contrasts, speckle_counts
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.speckle_noise import field_correlation, unit_deviations
from beamline_ml.records import BoolArray, Float64Array

NUGGET_C2 = 0.003
NUGGET_LOG_S = 0.01
BASELINE_SPREAD = 0.01
SCALE_SPREAD = 1.0
ABSOLUTE_SCALE_SPREAD = 0.03
DEGREE = 4
DEGREE_S = 3


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
    log_s = np.log(observations.structure_factor)
    if observations.structure_factor_err is not None:
        log_s += 0.5 * (observations.structure_factor_err / observations.structure_factor) ** 2
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
    covariance = _noise(observations, k, n_times, len(log_s), n_speckles, rng, expected_f2)
    basis = _basis(observations, entries, len(log_s))
    solved = np.linalg.solve(covariance, basis)
    information = basis.T @ solved
    values, vectors = np.linalg.eigh(information)
    held = values > 1e-9 * values[-1]
    weights = (vectors[:, held] / np.sqrt(values[held])).T @ solved.T
    data = np.concatenate([observations.c2[k, :n_times, :n_times][entries], log_s])
    return RingRows(entries, weights, weights @ data)


def _noise(
    observations: CorrelationObservations,
    k: int,
    n_times: int,
    n_s: int,
    n_speckles: float,
    rng: np.random.Generator,
    expected_f2: Float64Array | None,
) -> Float64Array:
    """Covariance of (C2 entries, log S): speckle sampling, counting, nuisances, nugget."""
    c2 = observations.c2[k, :n_times, :n_times]
    entries = observations.measured[k, :n_times, :n_times]
    contrast, contrast_err = (values[k] for values in contrasts(observations))
    f = field_correlation(c2) if expected_f2 is None else np.sqrt(np.clip(expected_f2, 0.0, 1.0))
    c2_deviation, s_deviation = unit_deviations(f, float(contrast), rng)
    deviation = np.hstack([c2_deviation[:, entries], s_deviation[:, :n_s]])
    n_c2 = int(entries.sum())
    starts = _independent_starts(observations, f) if observations.stationary else 1.0
    covariance = np.cov(deviation, rowvar=False) / (n_speckles * starts)
    counting = observations.c2_err[k, :n_times, :n_times][entries], _counting_error_of_log_s(observations, k, n_s)
    diagonal = np.concatenate([counting[0] ** 2 + NUGGET_C2**2, counting[1] ** 2 + NUGGET_LOG_S**2])
    covariance[np.diag_indices_from(covariance)] += diagonal
    covariance[:n_c2, :n_c2] += BASELINE_SPREAD**2
    shape = np.clip((c2[entries] - 1.0) / contrast if expected_f2 is None else expected_f2[entries], 0.0, 1.0)
    covariance[:n_c2, :n_c2] += contrast_err**2 * np.outer(shape, shape)
    scale = ABSOLUTE_SCALE_SPREAD if observations.absolute else SCALE_SPREAD
    covariance[n_c2:, n_c2:] += scale**2
    return covariance


def _counting_error_of_log_s(observations: CorrelationObservations, k: int, n_s: int) -> Float64Array:
    if observations.structure_factor_err is None:
        return np.zeros(n_s)
    return np.asarray(observations.structure_factor_err[k, :n_s] / observations.structure_factor[k, :n_s], np.float64)


def _independent_starts(observations: CorrelationObservations, f: Float64Array) -> float:
    """How many uncorrelated stretches a stationary run averages over: its length over twice the decay time."""
    decay = np.trapezoid(f[0] ** 2, observations.times_s[: f.shape[1]]) + 0.5 * observations.times_s[1]
    return float(max(1.0, observations.duration_s / max(2.0 * decay, 1e-12)))


def _basis(observations: CorrelationObservations, entries: BoolArray, n_s: int) -> Float64Array:
    """Smooth functions of (log lag, age) on the entries and of time on log S, block diagonal."""
    times = observations.times_s[: len(entries)]
    first, second = np.nonzero(entries)
    lag = times[second] - times[first]
    shortest = max(float(lag.min()), 1e-12)
    u = _to_unit(np.log1p(lag / shortest))
    age = _to_unit(0.5 * (times[first] + times[second]))
    columns = []
    for i in range(DEGREE + 1):
        for j in range(1 if observations.stationary else DEGREE + 1 - i):
            columns.append(legendre.legval(u, np.eye(DEGREE + 1)[i]) * legendre.legval(age, np.eye(DEGREE + 1)[j]))
    upper = np.column_stack(columns)
    if n_s == 0:
        return upper
    lower = legendre.legvander(_to_unit(times), min(DEGREE_S, n_s - 1))
    basis = np.zeros((len(upper) + n_s, upper.shape[1] + lower.shape[1]))
    basis[: len(upper), : upper.shape[1]] = upper
    basis[len(upper) :, upper.shape[1] :] = lower
    return basis


def _to_unit(values: Float64Array) -> Float64Array:
    """Linear map onto -1..1."""
    low, high = float(values.min()), float(values.max())
    return 2.0 * (values - low) / max(high - low, 1e-12) - 1.0
