"""Gaussian process on logit F over (log age, log lag): the forecast without any physics."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import expit, logit

from beamline_ml.dynamics.baselines.observed import Observed, all_pairs, on_grid
from beamline_ml.records import Float64Array

MOST_POINTS = 120
_EDGE = 1e-3
_MIN_POINTS = 8
_BOUNDS = [(-1.5, 2.5), (-1.5, 2.5), (-2.0, 3.0), (-4.0, 1.0)]


def gaussian_process(observed: Observed, times_s: Float64Array) -> Float64Array:
    """Squared-exponential kernel in log age and log lag about a linear trend, hyperparameters by marginal likelihood.

    Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equations 2.23-2.26 and 5.8.
    """
    earlier, later, first_s, second_s = all_pairs(times_s)
    asked = _coordinates(first_s, second_s)
    rings = [_forecast(observed, ring, asked) for ring in range(len(observed.q_inv_um))]
    return on_grid(np.stack(rings), earlier, later, len(times_s))


def _coordinates(first_s: Float64Array, second_s: Float64Array) -> Float64Array:
    return np.stack([np.log(0.5 * (first_s + second_s)), np.log(second_s - first_s)], axis=1)


def _forecast(observed: Observed, ring: int, asked: Float64Array) -> Float64Array:
    earlier, later = observed.pairs(ring)
    if len(earlier) < _MIN_POINTS:
        return np.ones(len(asked))
    chosen = np.unique(np.linspace(0, len(earlier) - 1, MOST_POINTS).round().astype(int))
    earlier, later = earlier[chosen], later[chosen]
    x = _coordinates(observed.times_s[earlier], observed.times_s[later])
    f = np.clip(observed.f[ring, earlier, later], _EDGE, 1 - _EDGE)
    noise = observed.f_err[ring, earlier, later] / (f * (1 - f))
    return np.asarray(expit(_predict(x, np.asarray(logit(f)), np.minimum(noise, 3.0), asked)), dtype=np.float64)


def _predict(x: Float64Array, y: Float64Array, noise: Float64Array, asked: Float64Array) -> Float64Array:
    trend = np.linalg.lstsq(_linear(x), y, rcond=None)[0]
    residual = y - _linear(x) @ trend

    def minus_log_likelihood(p: Float64Array) -> float:
        factor, lower = cho_factor(_covariance(x, x, p) + np.diag(noise**2 + np.exp(2 * p[3]) + 1e-8), lower=True)
        solved = cho_solve((factor, lower), residual)
        return float(0.5 * residual @ solved + np.log(np.diagonal(factor)).sum())

    p = minimize(minus_log_likelihood, np.array([0.0, 0.0, 0.0, -2.0]), method="L-BFGS-B", bounds=_BOUNDS).x
    gram = _covariance(x, x, p) + np.diag(noise**2 + np.exp(2 * p[3]) + 1e-8)
    mean = _covariance(asked, x, p) @ cho_solve(cho_factor(gram, lower=True), residual)
    return np.asarray(_linear(asked) @ trend + mean, dtype=np.float64)


def _linear(x: Float64Array) -> Float64Array:
    return np.column_stack([np.ones(len(x)), x])


def _covariance(a: Float64Array, b: Float64Array, p: Float64Array) -> Float64Array:
    scaled = (a[:, None, :] - b[None, :, :]) / np.exp(p[:2])
    return np.asarray(np.exp(2 * p[2] - 0.5 * (scaled**2).sum(axis=-1)), dtype=np.float64)
