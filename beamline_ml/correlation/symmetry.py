"""Whole matrices from lower triangles, and C2 from sums, in one pass over memory."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import Float32Array, Float64Array

TILE = 32


def mirrored(lower: NDArray[Any], n: int, *, in_place: bool = False) -> NDArray[Any]:
    """(n_groups, n, n) symmetric matrices whose lower triangles are those of ``lower`` (n_groups, >= n, >= n).

    ``in_place``: where ``lower`` has just this shape, its upper triangles are written and it is returned.
    """
    same = in_place and lower.shape[1] == n
    full = lower if same else np.empty((lower.shape[0], n, n), lower.dtype)
    for one, result in zip(lower, full, strict=True):
        if not same:
            _copy_lower(one, result)
        _mirror(result)
    return full


def normalised(
    numerator: NDArray[Any],
    weight: Float64Array,
    scale: float,
    diagonal: Float64Array,
    c2: Float32Array,
    first: int = 0,
) -> None:
    """Fill ``c2`` (n, n) with scale * numerator * weight(t1) * weight(t2), and ``diagonal`` (n,) in its place.

    With ``first``, these are the rows (n - first, n) from there on, and their diagonal (n - first,).
    """
    _normalise(numerator, weight, scale, diagonal, c2, first)


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
def _mirror(full: Any) -> None:
    """Square by square, so that what is read down the columns is still in cache; what is written lies in a row."""
    n = full.shape[0]
    for row in range(0, n, TILE):
        for col in range(0, row + TILE, TILE):
            for j in range(col, min(col + TILE, n)):
                upper = full[j]
                for i in range(max(row, j + 1), min(row + TILE, n)):
                    upper[i] = full[i, j]


@numba.njit(cache=True)
def _normalise(numerator: Any, weight: Any, scale: Any, diagonal: Any, c2: Any, first: Any) -> None:
    for i in range(numerator.shape[0]):
        for j in range(numerator.shape[1]):
            c2[i, j] = np.float32(numerator[i, j] * (scale * (weight[first + i] * weight[j])))
        c2[i, first + i] = np.float32(diagonal[i])
