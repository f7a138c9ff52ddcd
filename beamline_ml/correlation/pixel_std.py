"""The error that boost_corr gives: how much g2 of single pixels scatters within a bin."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import BoolArray, Float64Array, IntArray


class PixelSums:
    """Sums over time, pixel by pixel, of the pairs (t, t - lag) of one level.

    Parameters
    ----------
    lags
        (n_lags,) in rows, >= 1.
    n_pixels
        Used pixels.
    """

    def __init__(self, lags: IntArray, n_pixels: int) -> None:
        self.lags = lags
        self.pairs: IntArray = np.zeros(lags.size, np.int64)
        self.sums: IntArray = np.zeros((3, lags.size, n_pixels), np.int64)
        """Sums of the product, of the earlier and of the later counts."""

    def add(self, rows: NDArray[Any], first: int, valid: BoolArray) -> None:
        """Pair rows (n_rows, n_pixels) from ``first`` on with those before; ``valid`` (n_rows,) where all is there."""
        _add_pixels(rows, first, valid, self.lags, self.pairs, self.sums)

    def standard_error(self, lag: int, edges: IntArray) -> Float64Array:
        """(n_q,) standard deviation (n - 1) of the pixels' g2, <I I'> / (<I> <I'>), over the root of their number.

        A pixel without counts has g2 = 0, as in AdvancedPhotonSource/boost_corr. NaN for bins of one pixel.
        """
        product, earlier, later = self.sums[:, lag].astype(np.float64)
        below = earlier * later
        g2 = np.where(below > 0, product * self.pairs[lag] / np.where(below > 0, below, 1.0), 0.0)
        parts = np.split(g2, edges[1:-1])
        return np.array([part.std(ddof=1) / np.sqrt(part.size) if part.size > 1 else np.nan for part in parts])


@numba.njit(cache=True)
def _add_pixels(rows: Any, first: Any, valid: Any, lags: Any, pairs: Any, sums: Any) -> None:
    for k in range(lags.size):
        product, earlier, later = sums[0, k], sums[1, k], sums[2, k]
        for t in range(first, rows.shape[0]):
            if not (valid[t] and valid[t - lags[k]]):
                continue
            pairs[k] += 1
            now, then = rows[t], rows[t - lags[k]]
            for p in range(product.size):
                x, y = np.int64(now[p]), np.int64(then[p])
                product[p] += x * y
                earlier[p] += y
                later[p] += x
