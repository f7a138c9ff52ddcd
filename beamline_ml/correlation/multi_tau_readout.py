"""g2 from the sums of a multi-tau pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from beamline_ml.correlation.gather import PixelOrder
from beamline_ml.correlation.jackknife import (
    MIN_BLOCKS,
    block_correction,
    correlated_share,
    embedded,
    field_correlation,
    standard_error,
)
from beamline_ml.correlation.qmap import QMap
from beamline_ml.errors import CorrelationError
from beamline_ml.records import G2, BoolArray, Float64Array, IntArray

N_BLOCKS = 16
DEFINITIONS = ("symmetric", "ratio_of_sums", "mean_of_ratios")


@dataclass(frozen=True, slots=True)
class LevelSums:
    """Sums of one level; row t is the t-th group of 2^level frames."""

    products: IntArray
    """(n, n_lags, n_groups) sums over pixels of row t times row t - lag."""
    sums: IntArray
    """(n, n_groups) sums of counts."""
    valid: BoolArray
    """(n,) whether all frames of the row arrived."""


@dataclass(frozen=True, slots=True)
class _Lag:
    """One lag of one level, summed over blocks of time."""

    level: int
    lag: int
    n_pairs: int
    terms: tuple[Float64Array, ...]
    """(n_blocks, columns) each: what the definition sums over pairs of rows."""
    brightness: Float64Array
    """(n_q,) mean counts per pixel and row."""


@dataclass(frozen=True, slots=True)
class _Bins:
    """Static groups of pixels and the dynamic bins they lie in."""

    n_pixels: Float64Array
    first: IntArray
    """(n_q,) first group of each bin."""

    @classmethod
    def of(cls, order: PixelOrder, n_q: int) -> _Bins:
        first = np.searchsorted(order.static_owner, np.arange(n_q))
        return cls(np.diff(order.static_edges).astype(np.float64), first)

    def per_bin(self, groups: Float64Array) -> Float64Array:
        """(..., n_groups) summed to (..., n_q)."""
        return np.add.reduceat(groups, self.first, axis=-1)

    def terms(self, definition: str, product: Float64Array, earlier: Float64Array, later: Float64Array) -> list[Any]:
        """What the definition sums over the pairs (n_pairs, n_groups) of a lag."""
        if definition == "symmetric":
            return [product, earlier, later, np.ones((product.shape[0], 1))]
        above, below = self.per_bin(product), self.per_bin(earlier) * self.per_bin(later)
        if definition == "ratio_of_sums":
            return [above, below]
        known = below > 0
        return [np.where(known, above / np.where(known, below, 1.0), 0.0), known.astype(np.float64)]

    def g2(self, definition: str, terms: Sequence[Float64Array]) -> Float64Array:
        """(..., n_q) g2 from summed terms (..., columns)."""
        if definition == "symmetric":
            above, earlier, later, n = terms
            below = earlier * later
            ratio = above * n * self.n_pixels / np.where(below > 0, below, np.nan)
            known = np.isfinite(ratio)
            count = self.per_bin(known.astype(np.float64))
            return self.per_bin(np.where(known, ratio, 0.0)) / np.where(count > 0, count, np.nan)
        above, below = terms
        return above * self.per_bin(self.n_pixels) / np.where(below > 0, below, np.nan)


def read_out_levels(
    levels: list[LevelSums],
    lags: list[IntArray],
    order: PixelOrder,
    qmap: QMap,
    frame_period_s: float,
    definition: str,
) -> G2:
    """Normalise each lag of each level, with block-jackknife errors.

    ``definition``: ``"symmetric"`` (mean over static bins of <I I'> / (<I> <I'>), each average over the pairs of that
    lag), ``"ratio_of_sums"`` or ``"mean_of_ratios"`` as for C2.
    """
    if definition not in DEFINITIONS:
        raise CorrelationError(f"The definition {definition!r} is unknown.", f"Choose one of {DEFINITIONS}.")
    bins = _Bins.of(order, qmap.n_q)
    found = [
        _lag(level, k, j, lag, bins, definition)
        for k, (level, level_lags) in enumerate(zip(levels, lags, strict=True))
        for j, lag in enumerate(level_lags.tolist())
    ]
    known = [one for one in found if one is not None]
    if not known:
        raise CorrelationError("No pair of frames is usable.", "Correlation needs at least two frames without a hole.")
    delay = np.array([one.lag << one.level for one in known], np.int64)
    g2 = np.stack([bins.g2(definition, [term.sum(axis=0) for term in one.terms]) for one in known], axis=1)
    deviations = np.stack([_deviations(one, bins, definition) for one in known], axis=2)
    stretched = _stretched(delay, g2, deviations, known, bins)
    error = standard_error(stretched)
    delay_s = delay.astype(np.float64) * frame_period_s
    return G2(delay_s, delay, g2, error, qmap.q_inv_angstrom, definition, "block_jackknife", stretched)


def _lag(level: LevelSums, k: int, j: int, lag: int, bins: _Bins, definition: str) -> _Lag | None:
    if level.valid.size <= lag:
        return None
    usable = np.flatnonzero(level.valid[lag:] & level.valid[:-lag])
    n = usable.size
    if n == 0:
        return None
    m = min(n, N_BLOCKS)
    edges = -(-np.arange(m) * n // m)
    product = level.products[usable + lag, j].astype(np.float64)
    earlier, later = (level.sums[at].astype(np.float64) for at in (usable, usable + lag))
    terms = tuple(np.add.reduceat(term, edges, axis=0) for term in bins.terms(definition, product, earlier, later))
    brightness = bins.per_bin(earlier.sum(axis=0)) / n / bins.per_bin(bins.n_pixels)
    return _Lag(k, lag, n, terms, brightness)


def _deviations(one: _Lag, bins: _Bins, definition: str) -> Float64Array:
    """(N_BLOCKS, n_q) deviations of g2 without each block of time; NaN when there are fewer than three pairs."""
    if one.n_pairs < MIN_BLOCKS:
        return np.full((N_BLOCKS, bins.first.size), np.nan)
    left_out = bins.g2(definition, [term.sum(axis=0) - term for term in one.terms])
    return np.stack([embedded(column, N_BLOCKS) for column in left_out.T], axis=1)


def _stretched(
    delay: IntArray, g2: Float64Array, deviations: Float64Array, known: list[_Lag], bins: _Bins
) -> Float64Array:
    """Replicates spread to the true standard error (see ``jackknife.block_correction``)."""
    result = np.empty_like(deviations)
    n_pixels = bins.per_bin(bins.n_pixels)
    for q in range(g2.shape[0]):
        field, contrast = field_correlation(delay, g2[q], 2 * int(delay.max()) + 2)
        for t, one in enumerate(known):
            variance = float(standard_error(deviations[:, q, t]) ** 2)
            mean = one.brightness[q]
            white = (1 + 2 * mean) / (n_pixels[q] * mean**2) if mean > 0 else 0.0
            shares = correlated_share(field[:: 1 << one.level], one.lag, contrast, one.n_pairs)
            factor = block_correction(shares, one.n_pairs, min(one.n_pairs, N_BLOCKS), variance, white)
            result[:, q, t] = g2[q, t] + deviations[:, q, t] * np.sqrt(factor)
    return result
