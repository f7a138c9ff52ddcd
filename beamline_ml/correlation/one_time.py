"""g2 from C2: averages along the diagonals, with errors from blocks of time."""

from __future__ import annotations

import numpy as np

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


def g2_from_two_time(
    two_time: TwoTime,
    definition: str = "ratio_of_sums",
    n_blocks: int = DEFAULT_BLOCKS,
    *,
    delay_frames: IntArray | None = None,
    first_frame: int = 0,
    last_frame: int | None = None,
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

    Raises
    ------
    CorrelationError
        Unknown definition, fewer than two frames, or lags outside the run.
    """
    if definition not in ("ratio_of_sums", "mean_of_ratios"):
        raise CorrelationError(
            f"The definition {definition!r} is unknown.", "Choose 'ratio_of_sums' or 'mean_of_ratios'."
        )
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
        g2_err=standard_error(replicates),
        q_inv_angstrom=two_time.q_inv_angstrom,
        definition=definition,
        error_method="block_jackknife",
        replicates=replicates,
    )


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
