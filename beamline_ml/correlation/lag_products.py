"""Exact sums over pixels of products of frames a few steps apart."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.vectors import DOT_FLUSH_STEPS, DOT_MAX_COUNT, DOT_PIXELS, N_DOTS, dot_rows
from beamline_ml.records import IntArray

MIN_RUN = 256


def lag_products(rows: NDArray[Any], first: int, lags: IntArray, edges: IntArray, largest: int) -> IntArray:
    """(n_rows - first, n_lags, n_groups) int64 sums of rows[t] * rows[t - lag] over each group of pixels, t >= first.

    Parameters
    ----------
    rows
        (n_rows, n_pixels) counts.
    first
        First row that is multiplied, no less than the longest lag.
    lags
        (n_lags,) consecutive, in rows, >= 1.
    edges
        (n_groups + 1,) pixel index at which each group starts.
    largest
        No count is larger.
    """
    # Runs short enough for 32-bit sums are several times faster than 64-bit ones, and 16-bit ones faster still.
    run = (2**31 - 1) // max(1, largest) ** 2
    sums = np.zeros((rows.shape[0] - first, lags.size, edges.size - 1), np.int64)
    widest = int(np.diff(edges).max())
    if rows.dtype == np.uint8 and largest <= DOT_MAX_COUNT and widest <= run and lags.size >= N_DOTS:
        _byte_products(rows, first, int(lags[0]), edges, sums)
    elif run >= MIN_RUN:
        _narrow_products(rows, first, lags, edges, run, sums)
    else:
        _wide_products(rows, first, lags, edges, sums)
    return sums


@numba.njit(cache=True)
def _byte_products(rows: Any, first: Any, shortest: Any, edges: Any, sums: Any) -> None:
    """Four lags at a time; the last four overlap those before where the number of lags is no multiple of four."""
    flat, width = rows.reshape(-1), rows.shape[1]
    parts = np.zeros((N_DOTS, DOT_PIXELS // 2), np.int32)
    for group in range(edges.size - 1):
        n_steps = (edges[group + 1] - edges[group]) // DOT_PIXELS
        rest = edges[group] + n_steps * DOT_PIXELS
        for t in range(first, rows.shape[0]):
            for at in range(0, sums.shape[1], N_DOTS):
                k = min(at, sums.shape[1] - N_DOTS)
                then = t - shortest - k
                parts[:] = 0
                for step in range(0, n_steps, DOT_FLUSH_STEPS):
                    start = edges[group] + step * DOT_PIXELS
                    base = then * width + start
                    starts = (base, base - width, base - 2 * width, base - 3 * width)
                    n = min(DOT_FLUSH_STEPS, n_steps - step)
                    dot_rows(flat, t * width + start, starts, n, parts.reshape(-1))
                for j in range(N_DOTS):
                    total = np.int64(0)
                    for lane in range(parts.shape[1]):
                        total += parts[j, lane]
                    for p in range(rest, edges[group + 1]):
                        total += np.int64(rows[t, p]) * np.int64(rows[then - j, p])
                    sums[t - first, k + j, group] = total


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


def exact_dots(a: NDArray[Any], b: NDArray[Any], largest: int) -> IntArray:
    """(n_a, n_b) int64 sums over pixels of a * b, none of them above ``largest``: for a few rows against many."""
    run = (2**31 - 1) // max(1, largest) ** 2
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
