"""Exact sums over pixels of products of counts by matrix multiplication.

torch is imported where it multiplies: it takes seconds, and whoever only fits curves or asks for a plan does without.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import CorrelationError
from beamline_ml.records import Float64Array, IntArray

if TYPE_CHECKING:
    import torch

FLOAT32_EXACT = 2**24
FLOAT64_EXACT = 2**53
MIN_PIXELS = 64
STRIP = 128

Precision = Literal["float32", "float64"]


class PairKernel(Protocol):
    """One way to sum products over pixels; all ways give the same integers."""

    def add(self, gram: NDArray[Any], rows: NDArray[Any], lo: int, hi: int, n: int) -> None:
        """Fill gram[k, i, j] (lower triangle) for rows lo..hi against themselves and all other rows up to n.

        ``gram`` is of a signed integer type that holds the sums.
        """

    def load(self, rows: NDArray[Any], lo: int, hi: int) -> None:
        """Know rows lo..hi, whose pairs are summed already."""


class MatrixGram:
    """Products of whole frames as matrices, in the floating-point format in which they are exact.

    Parameters
    ----------
    edges
        (n_groups + 1,) pixel index at which each group starts.
    """

    def __init__(self, edges: IntArray) -> None:
        self._edges = edges

    def add(self, gram: NDArray[Any], rows: NDArray[Any], lo: int, hi: int, n: int) -> None:
        """As in :class:`PairKernel`."""
        for k, (first, last) in enumerate(pairwise(self._edges)):
            mine = rows[:n, first:last]
            if _largest_energy(mine[:hi]) <= FLOAT32_EXACT:
                _add_float32(gram[k], mine, lo, hi)
            else:
                gram[k, lo:hi, :hi] = gram_exact(mine[lo:hi], mine[:hi])
            if hi < n:
                gram[k, hi:n, lo:hi] = gram_exact(mine[hi:n], mine[lo:hi])

    def load(self, rows: NDArray[Any], lo: int, hi: int) -> None:
        """Nothing to know: rows are read where they are."""


def _add_float32(gram: NDArray[Any], rows: NDArray[Any], lo: int, hi: int) -> None:
    """Narrow strips, which leave out most of the upper triangle, of rows that are converted once."""
    every = _tensor(rows[:hi], "float32")
    for first in range(lo, hi, STRIP):
        last = min(first + STRIP, hi)
        gram[first:last, :last] = (every[first:last] @ every[:last].T).cpu().numpy()


def gram_exact(a: NDArray[Any], b: NDArray[Any]) -> IntArray:
    """(n_a, n_b) int64 sums over pixels of a * b, exact, through floating-point matrix products.

    Sums of products of counts grow monotonically, and by Cauchy and Schwarz none is larger than the largest sum of
    squares. Where that is below 2^24 every partial sum is an integer that float32 holds; otherwise pixels are halved
    until it is, or float64 (2^53) takes over.
    """
    largest = max(_largest_energy(a), _largest_energy(b))
    n_pixels = a.shape[1]
    if largest <= FLOAT32_EXACT:
        return _product(a, b, "float32")
    if n_pixels >= 2 * MIN_PIXELS and largest < FLOAT32_EXACT * n_pixels / MIN_PIXELS:
        half = n_pixels // 2
        return gram_exact(a[:, :half], b[:, :half]) + gram_exact(a[:, half:], b[:, half:])
    return _product(a, b, "float64")


def gram_float(a: Float64Array, b: Float64Array) -> Float64Array:
    """(n_a, n_b) float64 sums over pixels of a * b; the same inputs in the same shapes give the same bits."""
    import torch

    # Fresh, aligned tensors: BLAS may round differently for operands that are aligned differently.
    left, right = (torch.from_numpy(np.array(rows, np.float64, order="C")) for rows in (a, b))
    return (left @ right.T).numpy()


def check_range(max_count: int, n_pixels: int) -> None:
    """Raise :class:`CorrelationError` when counts are so large that exact sums do not fit 64 bits."""
    if max_count**2 * max(1, n_pixels) < 2**62 and max_count**2 * MIN_PIXELS < FLOAT64_EXACT:
        return
    raise CorrelationError(
        f"A used pixel holds {max_count} counts, too large for exact sums over {n_pixels} pixels.",
        "It is most likely the detector's mark for a dead or saturated pixel: find such pixels with bad_pixels(frames) "
        "and leave them out (qmap.without(bad)).",
    )


def _product(a: NDArray[Any], b: NDArray[Any], precision: Precision) -> IntArray:
    return (_tensor(a, precision) @ _tensor(b, precision).T).cpu().numpy().astype(np.int64)


def _tensor(rows: NDArray[Any], precision: Precision) -> torch.Tensor:
    """Counts as floating-point numbers, on the GPU when there is one."""
    import torch

    # torch converts few unsigned types; wider counts go through a signed type that holds them.
    narrow = rows if rows.dtype == np.uint8 else rows.astype(np.int64)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.from_numpy(narrow).to(device).to(getattr(torch, precision))


def _largest_energy(rows: NDArray[Any]) -> int:
    """Largest sum of squares of a row."""
    largest = max(1, int(rows.max(initial=0)))
    return int(_largest_energy_in_runs(rows, (2**31 - 1) // min(largest, 2**15) ** 2, largest < 2**15))


@numba.njit(cache=True)
def _largest_energy_in_runs(rows: Any, run: Any, narrow: Any) -> Any:
    largest = np.int64(0)
    for i in range(rows.shape[0]):
        energy = np.int64(0)
        for lo in range(0, rows.shape[1], run):
            part = rows[i, lo : lo + run]
            energy += _narrow_energy(part) if narrow else _wide_energy(part)
        largest = max(largest, energy)
    return largest


@numba.njit(cache=True)
def _narrow_energy(row: Any) -> Any:
    energy = np.int32(0)
    for p in range(row.size):
        energy += np.int32(row[p]) * np.int32(row[p])
    return np.int64(energy)


@numba.njit(cache=True)
def _wide_energy(row: Any) -> Any:
    energy = np.int64(0)
    for p in range(row.size):
        energy += np.int64(row[p]) * np.int64(row[p])
    return energy
