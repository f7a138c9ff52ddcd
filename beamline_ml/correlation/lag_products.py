"""Exact sums over pixels of products of frames a few steps apart."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import IntArray


def lag_products(history: NDArray[Any], rows: NDArray[Any], lags: IntArray, edges: IntArray) -> IntArray:
    """(n_rows, n_lags, n_groups) int64 sums of rows[t] * rows[t - lag] over each group of pixels.

    Parameters
    ----------
    history
        (n_history, n_pixels) the rows before ``rows``, oldest first; n_history >= the longest lag.
    rows
        (n_rows, n_pixels) counts.
    lags
        (n_lags,) in rows, >= 1.
    edges
        (n_groups + 1,) pixel index at which each group starts.
    """
    return _products(np.concatenate([history, rows]), history.shape[0], lags, edges)


@numba.njit(cache=True)
def _products(rows: Any, first: Any, lags: Any, edges: Any) -> Any:
    sums = np.zeros((rows.shape[0] - first, lags.size, edges.size - 1), np.int64)
    for t in range(first, rows.shape[0]):
        for k in range(lags.size):
            for group in range(edges.size - 1):
                total = np.int64(0)
                for i in range(edges[group], edges[group + 1]):
                    total += np.int64(rows[t, i]) * np.int64(rows[t - lags[k], i])
                sums[t - first, k, group] = total
    return sums
