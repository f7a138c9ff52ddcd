"""Exact sums over pixels of products of frames a few steps apart."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import IntArray

MIN_RUN = 256


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
    both = np.concatenate([history, rows])
    largest = max(1, int(both.max(initial=0)))
    # Runs short enough for 32-bit sums are several times faster than 64-bit ones.
    run = (2**31 - 1) // largest**2
    sums = np.zeros((rows.shape[0], lags.size, edges.size - 1), np.int64)
    if run >= MIN_RUN:
        _narrow_products(both, history.shape[0], lags, edges, run, sums)
    else:
        _wide_products(both, history.shape[0], lags, edges, sums)
    return sums


@numba.njit(cache=True)
def _narrow_products(rows: Any, first: Any, lags: Any, edges: Any, run: Any, sums: Any) -> None:
    """Group by group, so that the rows of all lags stay in cache."""
    for group in range(edges.size - 1):
        for t in range(first, rows.shape[0]):
            for k in range(lags.size):
                total = np.int64(0)
                for lo in range(edges[group], edges[group + 1], run):
                    hi = min(lo + run, edges[group + 1])
                    total += _narrow_dot(rows[t, lo:hi], rows[t - lags[k], lo:hi])
                sums[t - first, k, group] = total


@numba.njit(cache=True)
def _narrow_dot(a: Any, b: Any) -> Any:
    total = np.int32(0)
    for i in range(a.size):
        total += np.int32(a[i]) * np.int32(b[i])
    return np.int64(total)


@numba.njit(cache=True)
def _wide_products(rows: Any, first: Any, lags: Any, edges: Any, sums: Any) -> None:
    for group in range(edges.size - 1):
        for t in range(first, rows.shape[0]):
            for k in range(lags.size):
                total = np.int64(0)
                for i in range(edges[group], edges[group + 1]):
                    total += np.int64(rows[t, i]) * np.int64(rows[t - lags[k], i])
                sums[t - first, k, group] = total


def exact_dots(a: NDArray[Any], b: NDArray[Any]) -> IntArray:
    """(n_a, n_b) int64 sums over pixels of a * b, row by row: for a few rows against many."""
    largest = max(1, int(a.max(initial=0)), int(b.max(initial=0)))
    run = (2**31 - 1) // largest**2
    sums = np.zeros((a.shape[0], b.shape[0]), np.int64)
    if run >= MIN_RUN:
        _narrow_dots(a, b, run, sums)
    else:
        _wide_dots(a, b, sums)
    return sums


@numba.njit(cache=True)
def _narrow_dots(a: Any, b: Any, run: Any, sums: Any) -> None:
    for j in range(b.shape[0]):
        for i in range(a.shape[0]):
            total = np.int64(0)
            for lo in range(0, a.shape[1], run):
                total += _narrow_dot(a[i, lo : lo + run], b[j, lo : lo + run])
            sums[i, j] = total


@numba.njit(cache=True)
def _wide_dots(a: Any, b: Any, sums: Any) -> None:
    for j in range(b.shape[0]):
        for i in range(a.shape[0]):
            total = np.int64(0)
            for p in range(a.shape[1]):
                total += np.int64(a[i, p]) * np.int64(b[j, p])
            sums[i, j] = total
