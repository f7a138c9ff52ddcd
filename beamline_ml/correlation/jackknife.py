"""Standard errors of a correlation function from blocks of its own time series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.records import Float64Array, IntArray

MAX_CORRECTION = 30.0
MIN_BLOCKS = 3


@dataclass(frozen=True, slots=True)
class LagSeries:
    """The pairs (t, t + lag) of one bin and one lag, in order of t."""

    numerator: Float64Array
    """(n_pairs,) what is summed above the line, 0 where the pair is not usable."""
    weight: Float64Array
    """(n_pairs,) what is summed below the line, 0 where the pair is not usable."""

    @property
    def ratio(self) -> float:
        """Sum over sum, NaN without a usable pair."""
        total = self.weight.sum()
        return float(self.numerator.sum() / total) if total > 0 else np.nan

    def leave_one_out(self, n_blocks: int) -> Float64Array:
        """(n_blocks,) the ratio without each of ``n_blocks`` stretches of equal length."""
        edges = np.linspace(0, self.numerator.size, n_blocks + 1).astype(np.int64)[:-1]
        above = np.add.reduceat(self.numerator, edges)
        below = np.add.reduceat(self.weight, edges)
        rest = below.sum() - below
        return np.where(rest > 0, (above.sum() - above) / np.where(rest > 0, rest, 1.0), self.ratio)


def standard_error(replicates: Float64Array) -> Float64Array:
    """Jackknife standard error over the first axis, (n_blocks, ...)."""
    n = replicates.shape[0]
    return np.sqrt((n - 1) / n * ((replicates - replicates.mean(axis=0)) ** 2).sum(axis=0))


def embedded(leave_one_out: Float64Array, n_blocks: int) -> Float64Array:
    """(n_blocks,) deviations with the standard error of the (m,) leave-one-out values, m <= n_blocks, 0 elsewhere."""
    m = leave_one_out.size
    centred = (leave_one_out - leave_one_out.mean()) * np.sqrt((m - 1) / m * n_blocks / (n_blocks - 1))
    result = np.zeros(n_blocks)
    result[np.arange(m) * n_blocks // m] = centred
    return result


def correlated_share(field: Float64Array, lag: int, contrast: float, n_pairs: int) -> Float64Array:
    """(<= n_pairs,) autocovariance at shift k of the speckle noise in the pairs (t, t + lag), 1 at k = 0.

    The array ends where nothing is correlated any more.

    For Gaussian fields with correlation ``field`` (f(0) = 1, f(1), ...) and contrast b, the noise of a normalised pair
    is dI dI' - b f(lag)^2 (dI + dI') with dI the relative intensity fluctuation: the second part is what dividing by
    the frames' means takes away. Wick's theorem gives its autocovariance: the pairings
    f(k)^4 + f(k+lag)^2 f(k-lag)^2, and with one more power of b the 4-cycles, minus the 3-cycles, plus the pairs.
    """
    last = field.size - 1
    # The curve falls, so that its zeros are the last entries.
    support = last if field[-1] > 0 else last - int(np.searchsorted(field[::-1], 0.0, side="right"))
    k = np.arange(min(n_pairs, support + lag + 1))
    here, at_lag = field[np.minimum(k, last)], field[min(lag, last)]
    plus, minus = field[np.minimum(k + lag, last)], field[np.minimum(np.abs(k - lag), last)]
    four = 2 * (at_lag**2 * plus * minus + at_lag**2 * here**2 + here**2 * plus * minus)
    three = 4 * at_lag**3 * here * (plus + minus)
    two = at_lag**4 * (2 * here**2 + plus**2 + minus**2)
    covariance = here**4 + plus**2 * minus**2 + contrast * (four - three + two)
    return covariance / covariance[0]


def block_correction(shares: Float64Array, n: int, n_blocks: int, variance: float, white: float) -> float:
    """Factor on the jackknife variance for blocks that are not independent.

    With autocovariance s^2 rho(k) plus white noise w^2, a block of length L has the mean's variance
    (s^2 S(L) + w^2) / L, S(L) = sum over |k| < L of (1 - |k|/L) rho(k). The jackknife sees the difference between
    blocks and the whole, divided by n_blocks - 1; this solves it for s^2 and returns (true variance) / (jackknife
    variance).

    Parameters
    ----------
    shares
        rho(k) of :func:`correlated_share`.
    n
        Number of pairs.
    variance
        Jackknife variance of the mean.
    white
        w^2, variance of one pair by counting statistics.
    """
    if n_blocks < MIN_BLOCKS or not variance > 0:
        return 1.0
    length = max(1, n // n_blocks)
    s_block, s_all = _summed(shares, length), _summed(shares, n)
    spread = (s_block / length - s_all / n) / (n_blocks - 1)
    white_part = white * (1 / length - 1 / n) / (n_blocks - 1)
    speckle = max(0.0, variance - white_part) / max(spread, s_block / length / MAX_CORRECTION / n_blocks)
    true = max(speckle * s_all / n + white / n, 0.0)
    return float(np.clip(true / variance, 0.5, MAX_CORRECTION))


def _summed(shares: Float64Array, length: int) -> float:
    k = np.arange(min(length, shares.size))
    return float(2 * ((1 - k / length) * shares[:length]).sum() - shares[0])


def field_correlation(lags: IntArray, g2: Float64Array, n: int) -> tuple[Float64Array, float]:
    """(n,) |f| at lags 0, 1, ... and the contrast, both roughly, from a measured g2 at thinned lags.

    The curve is made to fall monotonically to 0, so that noise in the tail is not taken for correlation.
    """
    usable = np.isfinite(g2)
    if not usable.any():
        return np.append(1.0, np.zeros(n)), 1.0
    lags, g2 = lags[usable], g2[usable]
    floor = min(1.0, float(np.median(g2[-max(1, g2.size // 5) :])))
    contrast = max(float(g2[:2].mean()) - floor, 1e-12)
    squared = np.minimum.accumulate(np.clip((g2 - floor) / contrast, 0.0, 1.0))
    squared[squared < 0.02] = 0.0
    full = np.interp(np.arange(n), np.append(0, lags), np.append(1.0, squared), right=float(squared[-1]))
    return np.sqrt(full), contrast
