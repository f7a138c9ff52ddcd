"""g2 from the sums of a multi-tau pass."""

from __future__ import annotations

from dataclasses import dataclass

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
class _Pairs:
    """Usable pairs of rows of one lag, one static group a column."""

    product: Float64Array
    earlier: Float64Array
    later: Float64Array
    n_pixels: Float64Array
    owner: IntArray
    n_q: int

    def g2(self, definition: str, weight: Float64Array) -> Float64Array:
        """(n_sets, n_q) g2 of the weighted pairs; ``weight`` (n_sets, n_pairs) is 0 or 1."""
        return {"symmetric": self._symmetric, "ratio_of_sums": self._ratio, "mean_of_ratios": self._mean}[definition](
            weight
        )

    def _symmetric(self, weight: Float64Array) -> Float64Array:
        n = weight.sum(axis=1, keepdims=True)
        above, below = weight @ self.product, (weight @ self.earlier) * (weight @ self.later)
        ratio = above * n * self.n_pixels / np.where(below > 0, below, np.nan)
        known = np.isfinite(ratio)
        total = self._per_bin(np.where(known, ratio, 0.0))
        count = self._per_bin(known.astype(np.float64))
        return total / np.where(count > 0, count, np.nan)

    def _ratio(self, weight: Float64Array) -> Float64Array:
        above = weight @ self._per_bin(self.product)
        below = weight @ (self._per_bin(self.earlier) * self._per_bin(self.later))
        return above * self._per_bin(self.n_pixels[None]) / np.where(below > 0, below, np.nan)

    def _mean(self, weight: Float64Array) -> Float64Array:
        below = self._per_bin(self.earlier) * self._per_bin(self.later)
        known = below > 0
        ratio = self._per_bin(self.product) * self._per_bin(self.n_pixels[None]) / np.where(known, below, 1.0)
        count = weight @ known.astype(np.float64)
        return weight @ np.where(known, ratio, 0.0) / np.where(count > 0, count, np.nan)

    def _per_bin(self, groups: Float64Array) -> Float64Array:
        return np.add.reduceat(groups, np.searchsorted(self.owner, np.arange(self.n_q)), axis=1)


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
    delays, curves, deviations, whites = [], [], [], []
    for k, (level, level_lags) in enumerate(zip(levels, lags, strict=True)):
        for j, lag in enumerate(level_lags.tolist()):
            pairs = _pairs(level, j, lag, order, qmap.n_q)
            if pairs.product.shape[0] == 0:
                continue
            value, spread = _blocks(pairs, definition)
            delays.append(lag << k)
            curves.append(value)
            deviations.append(spread)
            whites.append((k, pairs))
    if not delays:
        raise CorrelationError("No pair of frames is usable.", "Correlation needs at least two frames without a hole.")
    delay = np.array(delays, np.int64)
    g2 = np.stack(curves, axis=1)
    stretched = _stretched(delay, g2, np.stack(deviations, axis=2), whites)
    error = standard_error(stretched)
    delay_s = delay.astype(np.float64) * frame_period_s
    return G2(delay_s, delay, g2, error, qmap.q_inv_angstrom, definition, "block_jackknife", stretched)


def _pairs(level: LevelSums, j: int, lag: int, order: PixelOrder, n_q: int) -> _Pairs:
    usable = level.valid[lag:] & level.valid[:-lag] if level.valid.size > lag else np.zeros(0, np.bool_)
    return _Pairs(
        product=level.products[lag:, j][usable].astype(np.float64),
        earlier=level.sums[:-lag][usable].astype(np.float64),
        later=level.sums[lag:][usable].astype(np.float64),
        n_pixels=np.diff(order.static_edges).astype(np.float64),
        owner=order.static_owner,
        n_q=n_q,
    )


def _blocks(pairs: _Pairs, definition: str) -> tuple[Float64Array, Float64Array]:
    """g2 (n_q,) and its leave-one-block-out deviations (N_BLOCKS, n_q); NaN when there are fewer than three pairs."""
    n = pairs.product.shape[0]
    value = pairs.g2(definition, np.ones((1, n)))[0]
    m = min(n, N_BLOCKS)
    if m < MIN_BLOCKS:
        return value, np.full((N_BLOCKS, pairs.n_q), np.nan)
    block = np.arange(n) * m // n
    left_out = pairs.g2(definition, (block[None] != np.arange(m)[:, None]).astype(np.float64))
    return value, np.stack([embedded(column, N_BLOCKS) for column in left_out.T], axis=1)


def _stretched(
    delay: IntArray, g2: Float64Array, deviations: Float64Array, whites: list[tuple[int, _Pairs]]
) -> Float64Array:
    """Replicates spread to the true standard error (see ``jackknife.block_correction``)."""
    result = np.empty_like(deviations)
    longest = int(delay.max()) + 1
    for q in range(g2.shape[0]):
        field, contrast = field_correlation(delay, g2[q], 2 * longest)
        for t, (k, pairs) in enumerate(whites):
            variance = float(standard_error(deviations[:, q, t]) ** 2)
            n_pairs = pairs.product.shape[0]
            mine = pairs.owner == q
            n_pixels = float(pairs.n_pixels[mine].sum())
            mean = float(pairs.earlier[:, mine].sum()) / pairs.earlier.shape[0] / n_pixels
            white = (1 + 2 * mean) / (n_pixels * mean**2) if mean > 0 else 0.0
            shares = correlated_share(field[:: 1 << k], int(delay[t]) >> k, contrast, n_pairs)
            factor = block_correction(shares, min(n_pairs, N_BLOCKS), variance, white)
            result[:, q, t] = g2[q, t] + deviations[:, q, t] * np.sqrt(factor)
    return result
