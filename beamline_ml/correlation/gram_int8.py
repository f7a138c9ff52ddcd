"""Exact sums over pixels of products of counts by 8-bit matrix multiplication."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import IntArray

if TYPE_CHECKING:
    import torch

BASE = 256
CENTRE = 128
"""Taken from bytes that reach it, so that any byte fits the signed type; put back into the sums exactly."""
INT8_PIXELS = 2**31 // CENTRE**2 - 1
INT8_MAX = BASE**2 - 1
STRIP = 256
NARROW = 128
COLUMNS = 64


@dataclass(frozen=True, slots=True)
class _Digit:
    """One digit to the base 256 of some rows' counts."""

    values: torch.Tensor
    """(n, n_pixels) int8, the digit less ``centre``; then zeros, for products of few columns are not to be trusted."""
    n_pixels: int
    sums: IntArray
    """(n,) sums of ``values``."""
    centre: int
    weight: int
    """256 to the power of its place."""


class Int8Gram:
    """Products of whole frames as matrices of bytes, for counts up to 65535.

    Parameters
    ----------
    edges
        (n_groups + 1,) pixel index at which each group starts.
    """

    def __init__(self, edges: IntArray) -> None:
        self._edges = edges

    def add(self, gram: NDArray[Any], rows: NDArray[Any], lo: int, hi: int, n: int) -> None:
        """As in ``PairKernel``."""
        for k, (first, last) in enumerate(pairwise(self._edges)):
            for start in range(int(first), int(last), INT8_PIXELS):
                digits = _digits(rows[:n, start : min(start + INT8_PIXELS, last)])
                _add_new(gram[k], digits, lo, hi, n, start == first)

    def load(self, rows: NDArray[Any], lo: int, hi: int) -> None:
        """Nothing to know: rows are read where they are."""


def _add_new(gram: NDArray[Any], digits: list[_Digit], lo: int, hi: int, n: int, fresh: bool) -> None:
    """New rows against earlier ones, among themselves, and against later ones."""
    for (top, bottom), (left, right) in [*_lower_blocks(lo, hi), ((hi, n), (lo, hi))]:
        if bottom > top and right > left:
            _add_block(gram[top:bottom, left:right], digits, (top, bottom), (left, right), fresh)


def _lower_blocks(lo: int, hi: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Rows and columns of wide strips, which multiply fast, and narrow ones at the diagonal, which waste little."""
    blocks = []
    for first in range(lo, hi, STRIP):
        last = min(first + STRIP, hi)
        blocks.append(((first, last), (0, first)))
        for top in range(first, last, NARROW):
            bottom = min(top + NARROW, last)
            blocks.append(((top, bottom), (first, bottom)))
    return blocks


def _add_block(
    target: NDArray[Any], digits: list[_Digit], rows: tuple[int, int], columns: tuple[int, int], fresh: bool
) -> None:
    import torch

    down, across = slice(*rows), slice(*columns)
    for one in digits:
        for other in digits:
            product = torch._int_mm(one.values[down], other.values[across].T).numpy()
            below, beside = one.sums[down] * other.centre, other.sums[across] * one.centre
            constant = one.centre * other.centre * one.n_pixels
            _add_shifted(target, product, below, beside, constant, one.weight * other.weight, not fresh)
            fresh = False


def _digits(rows: NDArray[Any]) -> list[_Digit]:
    """One digit for counts up to 255, two above."""
    largest = int(rows.max(initial=0))
    return [_digit(rows, place, largest) for place in range(1 if largest < BASE else 2)]


def _digit(rows: NDArray[Any], place: int, largest: int) -> _Digit:
    import torch

    shift = 8 * place
    centre = CENTRE if min(largest >> shift, BASE - 1) >= CENTRE or (place == 0 and largest >= BASE) else 0
    n, n_pixels = rows.shape
    values, sums = np.empty((n, -(-n_pixels // COLUMNS) * COLUMNS), np.int8), np.empty(n, np.int64)
    values[:, n_pixels:] = 0
    if rows.dtype == np.uint8:
        _centred_bytes(rows, np.uint8(centre), values.view(np.uint8), sums)
    else:
        _centred(rows, shift, centre, values, sums)
    return _Digit(torch.from_numpy(values), n_pixels, sums, centre, BASE**place)


@numba.njit(cache=True)
def _centred_bytes(rows: Any, flip: Any, values: Any, sums: Any) -> None:
    """Taking 128 from a byte, as a signed one, is to flip its highest bit."""
    for i in range(rows.shape[0]):
        row, result = rows[i], values[i]
        total = np.int64(0)
        for p in range(row.size):
            result[p] = row[p] ^ flip
        for p in range(row.size):
            total += row[p]
        sums[i] = total - np.int64(flip) * row.size


@numba.njit(cache=True)
def _centred(rows: Any, shift: Any, centre: Any, values: Any, sums: Any) -> None:
    for i in range(rows.shape[0]):
        total = np.int64(0)
        for p in range(rows.shape[1]):
            value = ((np.int64(rows[i, p]) >> shift) & 255) - centre
            values[i, p] = value
            total += value
        sums[i] = total


@numba.njit(cache=True)
def _add_shifted(target: Any, product: Any, below: Any, beside: Any, constant: Any, weight: Any, add: Any) -> None:
    """Put, or add, weight * sum (a + c)(b + d) = weight * (sum a b + d sum a + c sum b + c d P)."""
    for i in range(target.shape[0]):
        shifted, row, total = below[i] + constant, product[i], target[i]
        if add:
            for j in range(row.size):
                total[j] += weight * (np.int64(row[j]) + shifted + beside[j])
        else:
            for j in range(row.size):
                total[j] = weight * (np.int64(row[j]) + shifted + beside[j])
