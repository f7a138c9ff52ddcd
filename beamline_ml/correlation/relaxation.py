"""Relaxation times: a stretched exponential for each q bin, with errors that know the noise is correlated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.optimize import least_squares

from beamline_ml.correlation.kww import kww, kww_jacobian
from beamline_ml.correlation.one_time import g2_from_two_time
from beamline_ml.errors import FitRefused
from beamline_ml.records import G2, BoolArray, Float64Array, RelaxationFits, TwoTime

MIN_LAGS = 6
STRETCHING_BOUNDS = (0.2, 3.0)
STRETCHING_PRIOR = 0.7
BASELINE_PRIOR_PER_CONTRAST = 0.3
MIN_SIGNIFICANCE = 3.0
MAX_RELATIVE_TIME_ERROR = 1.0
STEPS_PER_TIME = 8
REACH = 8.0
"""Relaxation times after which nothing is correlated."""


@dataclass(frozen=True, slots=True)
class _BinFit:
    """One bin's parameters (order of kww.PARAMETERS), their covariance, and why not, if not."""

    parameters: Float64Array
    covariance: Float64Array
    reduced_chi2: float
    refused: str | None


def fit_relaxation(g2: G2, two_time: TwoTime | None = None) -> RelaxationFits:
    """Fit baseline + contrast exp(-2 (tau / relaxation_time)^stretching) in every q bin.

    Parameters
    ----------
    g2
        With ``replicates`` (as ``g2_from_two_time`` gives it) the errors follow from them: each block's deviation is
        carried through the fit, so correlations between lags are included. With standard errors only, the noise is
        taken as fully correlated between lags, which can only overstate the errors of the parameters.
    two_time
        Source of the replicates when ``g2`` has none.

    Returns
    -------
    RelaxationFits
        A bin without a trustworthy fit is NaN, and ``refused`` says why. The baseline carries a weak prior (1 within
        30 % of the contrast) and so does the stretching exponent (1 within a factor 2), which matter only where the
        decay is not seen to its end; their width is part of the errors.
    """
    replicates = g2.replicates
    if replicates is None and two_time is not None:
        replicates = g2_from_two_time(two_time, delay_frames=g2.delay_frames).replicates
    fits = [
        _fit_bin(g2.delay_s, g2.g2[q], g2.g2_err[q], None if replicates is None else replicates[:, q])
        for q in range(g2.g2.shape[0])
    ]
    return _record(g2, fits)


def _record(g2: G2, fits: list[_BinFit]) -> RelaxationFits:
    values = np.array([fit.parameters for fit in fits]).reshape(-1, 4)
    errors = np.array([np.sqrt(np.diagonal(fit.covariance)) for fit in fits]).reshape(-1, 4)
    times = np.exp(values[:, 0])
    return RelaxationFits(
        q_inv_angstrom=g2.q_inv_angstrom,
        relaxation_time_s=times,
        relaxation_time_s_err=times * errors[:, 0],
        contrast=values[:, 1],
        contrast_err=errors[:, 1],
        stretching=values[:, 2],
        stretching_err=errors[:, 2],
        baseline=values[:, 3],
        baseline_err=errors[:, 3],
        reduced_chi2=np.array([fit.reduced_chi2 for fit in fits]),
        refused=tuple(fit.refused for fit in fits),
    )


def _fit_bin(delay_s: Float64Array, g2: Float64Array, error: Float64Array, replicates: Float64Array | None) -> _BinFit:
    usable = np.isfinite(g2) & np.isfinite(error) & (error > 0)
    if replicates is not None:
        usable &= np.isfinite(replicates).all(axis=0)
    if usable.sum() < MIN_LAGS:
        return _refusal(f"only {int(usable.sum())} lags have a value and an error; {MIN_LAGS} are needed")
    spread = None if replicates is None else replicates[:, usable]
    try:
        return _judged(delay_s[usable], _solve(delay_s[usable], g2[usable], error[usable], spread))
    except FitRefused as refusal:
        return _refusal(str(refusal))


def _solve(delay_s: Float64Array, g2: Float64Array, error: Float64Array, replicates: Float64Array | None) -> _BinFit:
    sigma = smooth_error(error)
    start = start_values(delay_s, g2)
    prior = np.array([BASELINE_PRIOR_PER_CONTRAST * start[1], STRETCHING_PRIOR])

    def residual(p: Float64Array) -> Float64Array:
        return np.concatenate([(kww(delay_s, p) - g2) / sigma, [(p[3] - 1.0) / prior[0], np.log(p[2]) / prior[1]]])

    def jacobian(p: Float64Array) -> Float64Array:
        rows = np.array([[0, 0, 0, 1 / prior[0]], [0, 0, 1 / (p[2] * prior[1]), 0]])
        return np.concatenate([kww_jacobian(delay_s, p) / sigma[:, None], rows])

    span = np.log([delay_s[0] / 100, delay_s[-1] * 100])
    lower = np.array([span[0], 0.0, STRETCHING_BOUNDS[0], 0.0])
    upper = np.array([span[1], np.inf, STRETCHING_BOUNDS[1], np.inf])
    start = np.clip(start, lower + 1e-9, upper - 1e-9)
    solution = least_squares(residual, start, jacobian, bounds=(lower, upper), x_scale="jac", max_nfev=400)
    if not solution.success:
        raise FitRefused("the fit did not converge", "look at g2 of this bin")
    chi2 = float((solution.fun[:-2] ** 2).sum()) / max(1, delay_s.size - 4)
    between = shared_noise(delay_s, solution.x)
    covariance = _covariance(jacobian(solution.x), sigma, error, replicates, between)
    return _BinFit(solution.x, covariance, chi2, None)


def _covariance(
    jacobian: Float64Array,
    sigma: Float64Array,
    error: Float64Array,
    replicates: Float64Array | None,
    between: Float64Array,
) -> Float64Array:
    """Noise carried through the linearised fit: block by block, plus the width of the priors."""
    gain = np.linalg.pinv(jacobian)
    data, priors = gain[:, :-2] / sigma, gain[:, -2:]
    if replicates is None:
        worst = np.abs(data) @ error
        return np.diag(worst**2) + priors @ priors.T
    deviation = (replicates - replicates.mean(axis=0)) @ data.T
    n = replicates.shape[0]
    measured = (n - 1) / n * deviation.T @ deviation
    return widened(measured, (data * error) @ between @ (data * error).T) + priors @ priors.T


def widened(measured: Float64Array, expected: Float64Array) -> Float64Array:
    """The measured covariance, with the errors that are smaller than expected brought up to it.

    Blocks of time tell the noise of one lag, but a frame that two long lags share lies in different blocks of theirs,
    so that what lags have in common, and with it the error of the baseline, comes out too small.
    """
    have, want = np.diagonal(measured), np.diagonal(expected)
    factor = np.sqrt(np.maximum(1.0, want / np.maximum(have, 1e-300)))
    return measured * np.outer(factor, factor)


def shared_noise(delay_s: Float64Array, parameters: Float64Array) -> Float64Array:
    """(n_tau, n_tau) correlation between the noise at two lags, by Wick's theorem for Gaussian fields.

    With s(t) the square of the field correlation, the pairs (t, t + a) and (t + k, t + k + b) have the covariance
    s(k) s(k + b - a) + s(k + b) s(k - a), summed over k; leading order in the contrast.
    """
    time_s, stretching = float(np.exp(parameters[0])), float(parameters[2])
    step = max(float(delay_s[0]), time_s / STEPS_PER_TIME)
    reach = min(float(delay_s[-1]), REACH * time_s) + float(delay_s[-1])
    shift = np.arange(-int(reach / step) - 1, int(reach / step) + 2) * step

    def decay(time: NDArray[Any]) -> NDArray[Any]:
        return np.exp(-2.0 * np.minimum((np.abs(time) / time_s) ** stretching, 300.0))

    one, other, k = delay_s[:, None, None], delay_s[None, :, None], shift[None, None, :]
    covariance = (decay(k) * decay(k + other - one) + decay(k + other) * decay(k - one)).sum(axis=2)
    scale = np.sqrt(np.diagonal(covariance))
    return covariance / np.outer(scale, scale)


def smooth_error(error: Float64Array) -> Float64Array:
    """Weights must not follow the noise of the errors themselves."""
    smooth = median_filter(error, size=min(5, error.size), mode="nearest")
    return np.maximum(smooth, 0.05 * float(np.median(error)))


def start_values(delay_s: Float64Array, g2: Float64Array) -> Float64Array:
    """Parameters, in the order of kww.PARAMETERS, read off the curve."""
    tail = max(2, g2.size // 5)
    baseline = float(np.median(g2[-tail:]))
    contrast = max(float(g2[:2].mean()) - baseline, 1e-6)
    below = np.flatnonzero(g2 - baseline < contrast * np.exp(-2.0))
    index = int(below[0]) if below.size else g2.size - 1
    return np.array([np.log(delay_s[index]), contrast, 1.0, baseline])


def _judged(delay_s: Float64Array, fit: _BinFit) -> _BinFit:
    reason = _doubt(delay_s, fit.parameters, np.sqrt(np.diagonal(fit.covariance)))
    return fit if reason is None else _refusal(reason)


def _doubt(delay_s: Float64Array, value: Float64Array, error: Float64Array) -> str | None:
    time = float(np.exp(value[0]))
    if not np.isfinite(error).all():
        return "the errors of the fit are not finite"
    if time < delay_s[0] / 2:
        return f"the decay ({time:.3g} s) is faster than the shortest lag ({delay_s[0]:.3g} s) resolves"
    if value[1] < MIN_SIGNIFICANCE * error[1]:
        return f"no decay stands out of the noise (contrast {value[1]:.3g} +- {error[1]:.2g})"
    if time > delay_s[-1]:
        return f"the decay ({time:.3g} s) is longer than the longest lag ({delay_s[-1]:.3g} s)"
    if error[0] > MAX_RELATIVE_TIME_ERROR:
        return f"the relaxation time is uncertain by {100 * error[0]:.0f} %"
    return None


def _refusal(reason: str) -> _BinFit:
    return _BinFit(np.full(4, np.nan), np.full((4, 4), np.nan), np.nan, reason)


def usable_bins(fits: RelaxationFits) -> BoolArray:
    """(n_q,) bins with a fit and a known q."""
    held = np.array([reason is None for reason in fits.refused], np.bool_)
    q_known: BoolArray = np.isfinite(fits.q_inv_angstrom) & (fits.q_inv_angstrom > 0)
    return held & q_known
