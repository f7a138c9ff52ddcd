"""Lower triangles of sums, and C2 from them in one pass over memory."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import Float32Array, Float64Array

TILE = 32


def lower_square(lower: NDArray[Any], n: int) -> NDArray[Any]:
    """(n_groups, n, n) matrices with the lower triangles of ``lower`` (n_groups, >= n, >= n): itself, if it has n."""
    if lower.shape[1] == n:
        return lower
    square = np.zeros((lower.shape[0], n, n), lower.dtype)
    for one, result in zip(lower, square, strict=True):
        _copy_lower(one, result)
    return square


def normalised(
    numerator: NDArray[Any],
    weight: Float64Array,
    scale: float,
    diagonal: Float64Array,
    c2: Float32Array,
    first: int = 0,
) -> None:
    """Fill ``c2`` (n, n) with scale * numerator * weight(t1) * weight(t2), and ``diagonal`` (n,) in its place.

    Of ``numerator`` the lower triangle is read. With ``first``, these are the whole rows (n - first, n) from there on,
    and their diagonal (n - first,).
    """
    if first == 0:
        _normalise_lower(numerator, weight, scale, diagonal, c2)
    else:
        _normalise_rows(numerator, weight, scale, diagonal, c2, first)


def lower_strip(lower: NDArray[Any], first: int, n: int) -> NDArray[Any]:
    """(n_groups, n - first, n) last rows of the symmetric matrices whose lower triangles are those of ``lower``."""
    strip = lower[:, first:n, :n].copy()
    square = np.tril(strip[:, :, first:])
    strip[:, :, first:] = square + np.tril(square, -1).transpose(0, 2, 1)
    return strip


@numba.njit(cache=True)
def _copy_lower(lower: Any, full: Any) -> None:
    for i in range(full.shape[0]):
        full[i, : i + 1] = lower[i, : i + 1]


@numba.njit(cache=True)
def _normalise_lower(numerator: Any, weight: Any, scale: Any, diagonal: Any, c2: Any) -> None:
    """Strip by strip, each mirrored while it is in cache."""
    n = c2.shape[0]
    square, turned = np.empty((TILE, TILE), c2.dtype), np.empty((TILE, TILE), c2.dtype)
    for first in range(0, n, TILE):
        last = min(first + TILE, n)
        _normalise_lower_strip(numerator, weight, scale, c2, first, last)
        n_mirrored = first if last - first == TILE else 0
        for col in range(0, n_mirrored, TILE):
            _mirror_square(c2, first, col, square, turned)
        for i in range(first, last):
            for j in range(n_mirrored, i):
                c2[j, i] = c2[i, j]
            c2[i, i] = np.float32(diagonal[i])


@numba.njit(cache=True)
def _normalise_lower_strip(numerator: Any, weight: Any, scale: Any, c2: Any, first: Any, last: Any) -> None:
    for i in range(first, last):
        sums, result, mine = numerator[i], c2[i], weight[i]
        for j in range(i):
            result[j] = np.float32(sums[j] * (scale * (mine * weight[j])))


@numba.njit(cache=True)
def _mirror_square(c2: Any, row: Any, col: Any, square: Any, turned: Any) -> None:
    """In three steps, each of which a compiler turns into wide moves."""
    for i in range(TILE):
        mine = c2[row + i]
        for j in range(TILE):
            square[i, j] = mine[col + j]
    for j in range(TILE):
        for i in range(TILE):
            turned[j, i] = square[i, j]
    for j in range(TILE):
        upper = c2[col + j]
        for i in range(TILE):
            upper[row + i] = turned[j, i]


@numba.njit(cache=True)
def _normalise_rows(numerator: Any, weight: Any, scale: Any, diagonal: Any, c2: Any, first: Any) -> None:
    for i in range(numerator.shape[0]):
        for j in range(numerator.shape[1]):
            c2[i, j] = np.float32(numerator[i, j] * (scale * (weight[first + i] * weight[j])))
        c2[i, first + i] = np.float32(diagonal[i])
