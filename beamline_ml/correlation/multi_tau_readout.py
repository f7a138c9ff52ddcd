"""g2 from the sums of a multi-tau pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from beamline_ml.correlation.age_sums import AgeSums
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
from beamline_ml.records import G2, Float64Array, IntArray

N_BLOCKS = 16
DEFINITIONS = ("symmetric", "ratio_of_sums", "mean_of_ratios")


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

    def terms(self, definition: str, level: AgeSums, lag: int) -> list[Any]:
        """What the definition sums over pairs, (n_ages, columns) each, for one lag of a level."""
        used = slice(0, level.n_ages)
        if definition == "symmetric":
            sums = (level.product, level.earlier, level.later)
            return [*(one[used, lag].astype(np.float64) for one in sums), level.pairs[used, lag, None].astype(float)]
        if definition == "ratio_of_sums":
            return [self.per_bin(level.product[used, lag].astype(np.float64)), level.cross[used, lag]]
        return [level.ratio[used, lag], level.known[used, lag].astype(np.float64)]

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
    levels: Sequence[AgeSums], order: PixelOrder, qmap: QMap, frame_period_s: float, definition: str
) -> G2:
    """Normalise each lag of each level, with block-jackknife errors; ``definition``: one of DEFINITIONS."""
    if definition not in DEFINITIONS:
        raise CorrelationError(f"The definition {definition!r} is unknown.", f"Choose one of {DEFINITIONS}.")
    bins = _Bins.of(order, qmap.n_q)
    found = [
        _lag(level, k, j, lag, bins, definition)
        for k, level in enumerate(levels)
        for j, lag in enumerate(level.lags.tolist())
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


def _lag(level: AgeSums, k: int, j: int, lag: int, bins: _Bins, definition: str) -> _Lag | None:
    pairs = level.pairs[: level.n_ages, j]
    n = int(pairs.sum())
    if n == 0:
        return None
    edges = _block_edges(pairs, min(n, N_BLOCKS))
    terms = tuple(np.add.reduceat(term, edges, axis=0) for term in bins.terms(definition, level, j))
    counts = level.earlier[: level.n_ages, j].sum(axis=0).astype(np.float64)
    brightness = bins.per_bin(counts) / n / bins.per_bin(bins.n_pixels)
    return _Lag(k, lag, n, terms, brightness)


def _block_edges(pairs: IntArray, n_blocks: int) -> IntArray:
    """First age of each of ``n_blocks`` stretches with as nearly as possible the same number of pairs, or of fewer."""
    n, before = int(pairs.sum()), np.cumsum(pairs) - pairs
    wanted = -(-np.arange(n_blocks) * n // n_blocks)
    edges = np.unique(np.searchsorted(before, wanted))
    filled = [edge for edge, end in zip(edges, [*edges[1:], pairs.size], strict=True) if pairs[edge:end].any()]
    return np.array([0, *filled[1:]], np.int64)


def _deviations(one: _Lag, bins: _Bins, definition: str) -> Float64Array:
    """(N_BLOCKS, n_q) deviations of g2 without each block of time; NaN when there are fewer than three blocks."""
    if one.terms[0].shape[0] < MIN_BLOCKS:
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
            factor = block_correction(shares, one.n_pairs, one.terms[0].shape[0], variance, white)
            result[:, q, t] = g2[q, t] + deviations[:, q, t] * np.sqrt(factor)
    return result
