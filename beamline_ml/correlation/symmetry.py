"""Whole matrices from lower triangles, and C2 from sums, in one pass over memory."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import Float32Array, Float64Array


def mirrored(lower: NDArray[Any], n: int) -> NDArray[Any]:
    """(n_groups, n, n) symmetric matrices whose lower triangles are those of ``lower`` (n_groups, >= n, >= n)."""
    full = np.empty((lower.shape[0], n, n), lower.dtype)
    for one, result in zip(lower, full, strict=True):
        _mirror(one, result)
    return full


def normalised(numerator: NDArray[Any], weight: Float64Array, scale: float, diagonal: Float64Array) -> Float32Array:
    """(n, n) float32 of scale * numerator * weight(t1) * weight(t2), with ``diagonal`` (n,) in its place."""
    c2 = np.empty(numerator.shape, np.float32)
    _normalise(numerator, weight, scale, diagonal, c2)
    return c2


@numba.njit(cache=True)
def _mirror(lower: Any, full: Any) -> None:
    n = full.shape[0]
    for row in range(0, n, 64):
        for col in range(0, row + 64, 64):
            for i in range(row, min(row + 64, n)):
                for j in range(col, min(col + 64, i + 1)):
                    full[i, j] = lower[i, j]
                    full[j, i] = lower[i, j]


@numba.njit(cache=True)
def _normalise(numerator: Any, weight: Any, scale: Any, diagonal: Any, c2: Any) -> None:
    for i in range(numerator.shape[0]):
        for j in range(numerator.shape[1]):
            c2[i, j] = np.float32(numerator[i, j] * (scale * (weight[i] * weight[j])))
        c2[i, i] = np.float32(diagonal[i])
