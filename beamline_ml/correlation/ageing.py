"""Relaxation times that change with age: one stretched exponential for all ages of a q bin."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import least_squares

from beamline_ml.correlation.kww import kww
from beamline_ml.correlation.lags import quasi_logarithmic
from beamline_ml.correlation.one_time import g2_from_two_time
from beamline_ml.correlation.relaxation import (
    BASELINE_PRIOR_PER_CONTRAST,
    MAX_RELATIVE_TIME_ERROR,
    MIN_LAGS,
    MIN_SIGNIFICANCE,
    STRETCHING_BOUNDS,
    STRETCHING_PRIOR,
    shared_noise,
    smooth_error,
    start_values,
    widened,
)
from beamline_ml.errors import CorrelationError, FitRefused
from beamline_ml.records import AgeingFits, Float64Array, TwoTime

LAWS = ("linear", "power")
MIN_WINDOWS = 3
MIN_FRAMES = 16
EXPONENT_BOUND = 5.0
TINY_SHARE = 1e-3
"""A linear law that would reach 0 inside the run stops at this share of the reference."""


@dataclass(frozen=True, slots=True)
class _Window:
    """g2 of one bin around one age."""

    age_s: float
    delay_s: Float64Array
    g2: Float64Array
    sigma: Float64Array
    """Smoothed standard errors."""
    deviations: Float64Array
    """(n_blocks, n_tau) of the jackknife."""


@dataclass(frozen=True, slots=True)
class _Fit:
    """log of the time at the reference age, ageing, contrast, stretching, baseline; or why not."""

    parameters: Float64Array
    covariance: Float64Array
    reduced_chi2: float
    refused: str | None


def fit_ageing(two_time: TwoTime, law: str = "linear", n_windows: int = 6) -> AgeingFits:
    """Fit baseline + contrast exp(-2 (tau / relaxation_time(age))^stretching) to a whole run, for every q bin.

    Parameters
    ----------
    two_time
        C2 of a run that evolves slowly: the relaxation time hardly changes within a window.
    law
        ``"linear"``: relaxation_time(age) = time + ageing (age - reference age), both in s, so that ``ageing`` has no
        unit (1 is full ageing, negative is rejuvenation). ``"power"``: time (age / reference age)^ageing. The reference
        age is the middle of the run; an age is the mean of a pair's two times, counted from half a frame before 0.
    n_windows
        Stretches of equal length into which the run is cut, 3 or more.

    Returns
    -------
    AgeingFits
        With the covariance of the five parameters: each window's jackknife replicates are carried through the fit, so
        correlations between lags are in it; windows count as independent. Priors on baseline and stretching as in
        ``fit_relaxation``. A bin without a trustworthy fit is NaN, and ``refused`` says why.

    Raises
    ------
    CorrelationError
        Unknown law, or windows of fewer than 16 frames.
    """
    n = two_time.c2.shape[1]
    if law not in LAWS:
        raise CorrelationError(f"The ageing law {law!r} is unknown.", f"Choose one of {', '.join(LAWS)}.")
    if n_windows < MIN_WINDOWS or n // n_windows < MIN_FRAMES:
        raise CorrelationError(
            f"{n} frames do not make {n_windows} windows.", f"Use {MIN_WINDOWS} or more, of {MIN_FRAMES} frames each."
        )
    windows = _windows(two_time, n_windows)
    reference_s = n * two_time.frame_period_s / 2
    fits = [_fit_bin([window for window in bins if window is not None], law, reference_s) for bins in windows]
    return _record(two_time, fits, law, reference_s)


def _windows(two_time: TwoTime, n_windows: int) -> list[list[_Window | None]]:
    """For each bin, g2 of each stretch; None where fewer than 6 lags have a value and an error."""
    edges = np.linspace(0, two_time.c2.shape[1], n_windows + 1).astype(int)
    lags = quasi_logarithmic(3 * int(np.diff(edges).min()) // 4)
    found: list[list[_Window | None]] = [[] for _ in range(two_time.c2.shape[0])]
    for first, last in pairwise(edges.tolist()):
        g2 = g2_from_two_time(two_time, delay_frames=lags, first_frame=first, last_frame=last)
        replicates = g2.replicates if g2.replicates is not None else np.full((1, *g2.g2.shape), np.nan)
        age_s = (first + last) / 2 * two_time.frame_period_s
        for q, bins in enumerate(found):
            usable = np.isfinite(g2.g2[q]) & (g2.g2_err[q] > 0) & np.isfinite(replicates[:, q]).all(axis=0)
            if usable.sum() < MIN_LAGS:
                bins.append(None)
                continue
            sigma, spread = smooth_error(g2.g2_err[q, usable]), replicates[:, q][:, usable]
            bins.append(_Window(age_s, g2.delay_s[usable], g2.g2[q, usable], sigma, spread - spread.mean(axis=0)))
    return found


def _relaxation_time_s(parameters: Float64Array, law: str, age_s: float, reference_s: float) -> float:
    time_s, ageing = float(np.exp(parameters[0])), float(parameters[1])
    if law == "power":
        return time_s * (age_s / reference_s) ** ageing
    return max(time_s + ageing * (age_s - reference_s), TINY_SHARE * time_s)


def _fit_bin(windows: list[_Window], law: str, reference_s: float) -> _Fit:
    if len(windows) < MIN_WINDOWS:
        return _refusal(f"only {len(windows)} windows have enough lags with a value and an error")
    try:
        fit = _solve(windows, law, reference_s)
    except FitRefused as refusal:
        return _refusal(str(refusal))
    reason = _doubt(fit, windows, law, reference_s)
    return fit if reason is None else _refusal(reason)


def _solve(windows: list[_Window], law: str, reference_s: float) -> _Fit:
    start = _start(windows)
    prior = np.array([BASELINE_PRIOR_PER_CONTRAST * start[2], STRETCHING_PRIOR])

    def residual(p: Float64Array) -> Float64Array:
        parts = [(_model(p, window, law, reference_s) - window.g2) / window.sigma for window in windows]
        return np.concatenate([*parts, [(p[4] - 1.0) / prior[0], np.log(p[3]) / prior[1]]])

    span = np.log([windows[0].delay_s[0] / 100, windows[0].delay_s[-1] * 100])
    steepest = EXPONENT_BOUND if law == "power" else np.inf
    lower = np.array([span[0], -steepest, 0.0, STRETCHING_BOUNDS[0], 0.0])
    upper = np.array([span[1], steepest, np.inf, STRETCHING_BOUNDS[1], np.inf])
    start = np.clip(start, lower + 1e-9, upper - 1e-9)
    solution = least_squares(residual, start, "3-point", bounds=(lower, upper), x_scale="jac", max_nfev=400)
    if not solution.success:
        raise FitRefused("the fit did not converge", "look at g2 of this bin")
    n_values = solution.fun.size - 2
    chi2 = float((solution.fun[:-2] ** 2).sum()) / max(1, n_values - 5)
    covariance = _covariance(solution.jac, windows, solution.x, law, reference_s)
    return _Fit(solution.x, covariance, chi2, None)


def _model(p: Float64Array, window: _Window, law: str, reference_s: float) -> Float64Array:
    log_time = np.log(_relaxation_time_s(p, law, window.age_s, reference_s))
    return kww(window.delay_s, np.array([log_time, p[2], p[3], p[4]]))


def _start(windows: list[_Window]) -> Float64Array:
    """The middle window alone, and no ageing."""
    middle = windows[len(windows) // 2]
    log_time, contrast, stretching, baseline = start_values(middle.delay_s, middle.g2)
    return np.array([log_time, 0.0, contrast, stretching, baseline])


def _covariance(
    jacobian: Float64Array, windows: list[_Window], parameters: Float64Array, law: str, reference_s: float
) -> Float64Array:
    """Noise carried through the linearised fit, window by window and block by block, plus the width of the priors."""
    gain = np.linalg.pinv(jacobian)
    covariance = gain[:, -2:] @ gain[:, -2:].T
    at = 0
    for window in windows:
        share = gain[:, at : at + window.g2.size] / window.sigma
        at += window.g2.size
        moved = window.deviations @ share.T
        n_blocks = moved.shape[0]
        time_s = _relaxation_time_s(parameters, law, window.age_s, reference_s)
        between = shared_noise(window.delay_s, np.array([np.log(time_s), parameters[2], parameters[3]]))
        expected = (share * window.sigma) @ between @ (share * window.sigma).T
        covariance += widened((n_blocks - 1) / n_blocks * moved.T @ moved, expected)
    return covariance


def _doubt(fit: _Fit, windows: list[_Window], law: str, reference_s: float) -> str | None:
    error = np.sqrt(np.diagonal(fit.covariance))
    times = [_relaxation_time_s(fit.parameters, law, window.age_s, reference_s) for window in windows]
    shortest, longest = windows[0].delay_s[0], windows[0].delay_s[-1]
    if not np.isfinite(error).all():
        return "the errors of the fit are not finite"
    if fit.parameters[2] < MIN_SIGNIFICANCE * error[2]:
        return f"no decay stands out of the noise (contrast {fit.parameters[2]:.3g} +- {error[2]:.2g})"
    if max(times) < shortest / 2:
        return f"the decay ({max(times):.3g} s) is faster than the shortest lag ({shortest:.3g} s) resolves"
    if np.median(times) > longest:
        return f"the decay ({np.median(times):.3g} s) is longer than the longest lag of a window ({longest:.3g} s)"
    if error[0] > MAX_RELATIVE_TIME_ERROR:
        return f"the relaxation time is uncertain by {100 * error[0]:.0f} %"
    if min(times) <= 1.01 * TINY_SHARE * float(np.exp(fit.parameters[0])):
        return "the linear law reaches a relaxation time of 0 within the run; try the power law"
    return None


def _refusal(reason: str) -> _Fit:
    return _Fit(np.full(5, np.nan), np.full((5, 5), np.nan), np.nan, reason)


def _record(two_time: TwoTime, fits: list[_Fit], law: str, reference_s: float) -> AgeingFits:
    values = np.array([fit.parameters for fit in fits]).reshape(-1, 5)
    time_s = np.exp(values[:, 0])
    to_time = np.stack([np.diag([time, 1.0, 1.0, 1.0, 1.0]) for time in time_s])
    covariance = to_time @ np.array([fit.covariance for fit in fits]) @ to_time
    error = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return AgeingFits(
        q_inv_angstrom=two_time.q_inv_angstrom,
        law=law,
        reference_age_s=reference_s,
        relaxation_time_s=time_s,
        relaxation_time_s_err=error[:, 0],
        ageing=values[:, 1],
        ageing_err=error[:, 1],
        contrast=values[:, 2],
        contrast_err=error[:, 2],
        stretching=values[:, 3],
        stretching_err=error[:, 3],
        baseline=values[:, 4],
        baseline_err=error[:, 4],
        covariance=covariance,
        reduced_chi2=np.array([fit.reduced_chi2 for fit in fits]),
        refused=tuple(fit.refused for fit in fits),
    )
