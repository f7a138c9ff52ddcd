"""g2 from C2: averages along the diagonals, with errors from blocks of time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beamline_ml.correlation.jackknife import (
    MIN_BLOCKS,
    LagSeries,
    block_correction,
    correlated_share,
    embedded,
    field_correlation,
    standard_error,
)
from beamline_ml.correlation.lags import quasi_logarithmic
from beamline_ml.errors import CorrelationError
from beamline_ml.records import G2, Float64Array, IntArray, TwoTime

DEFAULT_BLOCKS = 16
ERRORS = ("block_jackknife", "diagonal_std")


def g2_from_two_time(
    two_time: TwoTime,
    definition: str = "ratio_of_sums",
    n_blocks: int = DEFAULT_BLOCKS,
    *,
    delay_frames: IntArray | None = None,
    first_frame: int = 0,
    last_frame: int | None = None,
    error: str = "block_jackknife",
) -> G2:
    """Intensity correlation function of each q bin, averaged over ages.

    Parameters
    ----------
    two_time
        C2; NaN rows are left out.
    definition
        ``"ratio_of_sums"``: sum of C2 S S' over sum of S S' along the diagonal (every photon pair counts the same).
        ``"mean_of_ratios"``: plain mean of C2 along the diagonal (every frame pair counts the same).
    n_blocks
        Time blocks of the jackknife.
    delay_frames
        Lags in frames, >= 1. Default: quasi-logarithmic up to 3/4 of the run.
    first_frame, last_frame
        Half-open range of ages, to look at one part of an ageing run.
    error
        ``"block_jackknife"``: from blocks of time, with the correlation between them. ``"diagonal_std"``: standard
        deviation of C2 along the diagonal over the square root of its length, as scikit-beam and xpcs-correlator give
        it; too small where the dynamics are slow, because neighbours on a diagonal are not independent. The replicates
        are the jackknife's in either case.

    Raises
    ------
    CorrelationError
        Unknown definition, fewer than two frames, or lags outside the run.
    """
    if definition not in ("ratio_of_sums", "mean_of_ratios"):
        raise CorrelationError(
            f"The definition {definition!r} is unknown.", "Choose 'ratio_of_sums' or 'mean_of_ratios'."
        )
    if error not in ERRORS:
        raise CorrelationError(f"The error {error!r} is unknown.", f"Choose one of {', '.join(ERRORS)}.")
    span = slice(first_frame, two_time.c2.shape[1] if last_frame is None else last_frame)
    n = len(range(two_time.c2.shape[1])[span])
    lags = _lags(n, delay_frames)
    n_q = two_time.c2.shape[0]
    replicates = np.full((max(2 * MIN_BLOCKS, n_blocks), n_q, lags.size), np.nan)
    values = np.full((n_q, lags.size), np.nan)
    for q in range(n_q):
        c2 = two_time.c2[q, span, span].astype(np.float64)
        mean = two_time.frame_sum[q, span] / two_time.n_pixels[q]
        values[q], replicates[:, q] = _one_bin(c2, mean, int(two_time.n_pixels[q]), lags, definition, len(replicates))
    return G2(
        delay_s=lags.astype(np.float64) * two_time.frame_period_s,
        delay_frames=lags,
        g2=values,
        g2_err=standard_error(replicates)
        if error == "block_jackknife"
        else _diagonal_std(two_time.c2[:, span, span], lags),
        q_inv_angstrom=two_time.q_inv_angstrom,
        definition=definition,
        error_method=error,
        replicates=replicates,
    )


def g2_at_ages(two_time: TwoTime, age_s: ArrayLike, width_s: float, definition: str = "ratio_of_sums") -> list[G2]:
    """g2 around each of some ages of an evolving run.

    Parameters
    ----------
    age_s
        (n,) centres of the stretches in s, times since the start of the run as in ``two_time.age_s``.
    width_s
        Length of each stretch in s; parts that lie outside the run are left out.
    definition
        As in :func:`g2_from_two_time`.

    Raises
    ------
    CorrelationError
        A stretch holds fewer than two frames.
    """
    found = []
    for centre in np.atleast_1d(np.asarray(age_s, np.float64)):
        inside = np.flatnonzero(np.abs(two_time.age_s - centre) <= width_s / 2)
        if inside.size < 2:
            raise CorrelationError(
                f"Within {width_s} s around age {centre} s there are {inside.size} frames.",
                f"Choose ages from {two_time.age_s[0]} to {two_time.age_s[-1]} s, and a wider stretch.",
            )
        first, last = int(inside[0]), int(inside[-1]) + 1
        found.append(g2_from_two_time(two_time, definition, first_frame=first, last_frame=last))
    return found


def _diagonal_std(c2: NDArray[Any], lags: IntArray) -> Float64Array:
    """(n_q, n_tau) standard deviation along each diagonal over the square root of the known elements' number."""
    errors = np.full((c2.shape[0], lags.size), np.nan)
    for k, lag in enumerate(lags):
        values = np.diagonal(c2, int(lag), axis1=1, axis2=2).astype(np.float64)
        known = np.isfinite(values)
        n = known.sum(axis=1)
        mean = np.where(known, values, 0.0).sum(axis=1) / np.maximum(n, 1)
        variance = np.where(known, (values - mean[:, None]) ** 2, 0.0).sum(axis=1) / np.maximum(n, 1)
        errors[:, k] = np.where(n > 0, np.sqrt(variance / np.maximum(n, 1)), np.nan)
    return errors


def _lags(n: int, delay_frames: IntArray | None) -> IntArray:
    if n < 2:
        raise CorrelationError(f"There are {n} frames.", "Correlation needs at least two.")
    if delay_frames is None:
        return quasi_logarithmic(max(1, 3 * n // 4))
    lags = np.asarray(delay_frames, np.int64).reshape(-1)
    if lags.size == 0 or lags.min() < 1 or lags.max() >= n:
        raise CorrelationError(f"Lags {lags.tolist()} do not fit {n} frames.", f"Choose lags from 1 to {n - 1}.")
    return lags


def _one_bin(
    c2: Float64Array, mean: Float64Array, n_pixels: int, lags: IntArray, definition: str, n_blocks: int
) -> tuple[Float64Array, Float64Array]:
    """g2 (n_tau,) and its leave-one-block-out values (n_blocks, n_tau), stretched to the true standard error."""
    series = [_series(c2, mean, int(lag), definition) for lag in lags]
    g2 = np.array([one.ratio for one in series])
    field, contrast = field_correlation(lags, g2, c2.shape[0])
    replicates = np.tile(g2, (n_blocks, 1))
    brightness = float(np.nanmean(mean))
    white = (1 + 2 * brightness) / (n_pixels * brightness**2) if brightness > 0 else 0.0
    for k, one in enumerate(series):
        n_pairs = one.numerator.size
        m = min(n_blocks, n_pairs)
        if m < MIN_BLOCKS:
            replicates[:, k] = np.nan
            continue
        deviation = embedded(one.leave_one_out(m), n_blocks)
        variance = float(standard_error(deviation) ** 2)
        shares = correlated_share(field, int(lags[k]), contrast, n_pairs)
        replicates[:, k] += deviation * np.sqrt(block_correction(shares, n_pairs, m, variance, white))
    return g2, replicates


def _series(c2: Float64Array, mean: Float64Array, lag: int, definition: str) -> LagSeries:
    values = np.diagonal(c2, lag)
    usable = np.isfinite(values)
    weight = mean[:-lag] * mean[lag:] if definition == "ratio_of_sums" else np.ones(values.size)
    weight = np.where(usable, weight, 0.0)
    return LagSeries(np.where(usable, values, 0.0) * weight, weight)
