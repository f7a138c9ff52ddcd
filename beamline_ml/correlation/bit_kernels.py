"""Inner loops on frames packed one bit a pixel."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from beamline_ml.correlation.tally import EIGHT
from beamline_ml.correlation.vectors import occupied, popcount_tile

TALL = 256
"""Rows that go past such a block before the next, so that they stay in the second cache."""
CACHED_WORDS = 3000
"""What a processor's fastest cache holds besides the rows at work: 24 KB."""


def _typed_popcount(_context: Any, _word: Any) -> Any:
    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


_popcount: Any = intrinsic(_typed_popcount)


@numba.njit(cache=True)
def pack_rows(rows: Any, edges: Any, word_edges: Any, bits: Any, first: Any, place: Any, count: Any, used: Any) -> Any:
    """Bits of each row; from ``used`` on, the place (bit number) and count - 1 of pixels with several photons.

    Returns how many rows were packed before ``place`` was full, and how much of it is used.
    """
    several = np.empty(bits.shape[1], np.uint64)
    for i in range(rows.shape[0]):
        row, packed = rows[i], bits[i]
        for k in range(edges.size - 1):
            _pack_group(
                row, edges[k], edges[k + 1], packed[word_edges[k] : word_edges[k + 1]], several[word_edges[k] :]
            )
        if place.size - used < row.size and place.size - used < _n_bits(several):
            return i, used
        for k in range(edges.size - 1):
            first[i, k] = used
            shift = edges[k] - word_edges[k] * 64
            for w in range(word_edges[k], word_edges[k + 1]):
                word = several[w]
                while word:
                    b = w * 64 + _popcount((word & (~word + np.uint64(1))) - np.uint64(1))
                    word &= word - np.uint64(1)
                    place[used] = b
                    count[used] = np.int64(row[shift + b]) - 1
                    used += 1
        first[i, edges.size - 1] = used
    return rows.shape[0], used


@numba.njit(cache=True)
def _pack_group(row: Any, start: Any, end: Any, packed: Any, several: Any) -> None:
    """Bits of the pixels start..end of a row, 64 a word, and of those with several photons."""
    full = (end - start) // 64
    for w in range(full):
        packed[w], several[w] = occupied(row, start + w * 64)
    packed[full:] = 0
    several[full : packed.size] = 0
    for b in range(start + full * 64, end):
        shift = np.uint64(b - start - full * 64)
        packed[full] |= np.uint64(row[b] > 0) << shift
        several[full] |= np.uint64(row[b] > 1) << shift


@numba.njit(cache=True)
def _n_bits(words: Any) -> Any:
    total = 0
    for w in range(words.size):
        total += _popcount(words[w])
    return total


@numba.njit(cache=True)
def popcount_pairs(gram: Any, bits: Any, lo: Any, hi: Any, n: Any, first: Any, last: Any) -> None:
    """Write what rows lo..hi share with every row into the lower triangle.

    Blocks of earlier rows stay in cache; two rows go by four at a time, which keeps the loads few.
    """
    flat, width = bits.reshape(-1), bits.shape[1]
    sums = np.empty(8, np.int64)
    size = min(64, max(4, CACHED_WORDS // max(1, last - first) // 4 * 4))
    for top in range(lo, hi, TALL):
        for block in range(0, n, size):
            bottom, end = min(top + TALL, hi), min(block + size, n)
            _popcount_block(gram, flat, width, top, bottom, lo, hi, block, end, first, last, sums)


@numba.njit(cache=True)
def _popcount_block(
    gram: Any,
    flat: Any,
    width: Any,
    top: Any,
    bottom: Any,
    lo: Any,
    hi: Any,
    block: Any,
    end: Any,
    first: Any,
    last: Any,
    sums: Any,
) -> None:
    """Rows top..bottom of the new rows lo..hi against rows block..end."""
    for i in range(top, bottom, 2):
        i1 = min(i + 1, bottom - 1)
        for j in range(block, end, 4):
            if j > i1 and j >= lo and j + 4 <= hi:
                continue
            j1, j2, j3 = min(j + 1, end - 1), min(j + 2, end - 1), min(j + 3, end - 1)
            starts = (
                i * width + first,
                i1 * width + first,
                j * width + first,
                j1 * width + first,
                j2 * width + first,
                j3 * width + first,
            )
            popcount_tile(flat, starts, last - first, sums)
            for row, at in ((i, 0), (i1, 4)):
                _write(gram, row, (j, j1, j2, j3), sums, at, hi)


@numba.njit(cache=True)
def _write(gram: Any, row: Any, columns: Any, sums: Any, at: Any, hi: Any) -> None:
    """Four sums of a new row; a pair of new rows is left to the later one of them."""
    for k, column in enumerate(columns):
        if column <= row:
            gram[row, column] = sums[at + k]
        elif column >= hi:
            gram[column, row] = sums[at + k]


@numba.njit(cache=True)
def transpose_bits(bits: Any, words: Any, first_block: Any, last_block: Any) -> None:
    """words[pixel, block] holds the pixel's bits of 64 consecutive rows, by swapping ever smaller squares."""
    square = np.empty(64, np.uint64)
    for w in range(bits.shape[1]):
        for block in range(first_block, last_block):
            for i in range(64):
                square[i] = bits[block * 64 + i, w]
            size, mask = 32, np.uint64(0x00000000FFFFFFFF)
            while size:
                shift = np.uint64(size)
                for i in range(64):
                    if not i & size:
                        swap = ((square[i] >> shift) ^ square[i + size]) & mask
                        square[i + size] ^= swap
                        square[i] ^= swap << shift
                size >>= 1
                mask ^= mask << np.uint64(size)
            for i in range(64):
                words[w * 64 + i, block] = square[i]


@numba.njit(cache=True)
def n_photon_pixels(bits: Any) -> Any:
    """Pixels of some rows of bits that have a photon."""
    total = 0
    for i in range(bits.shape[0]):
        total += _n_bits(bits[i])
    return total


@numba.njit(cache=True)
def list_photons(bits: Any, first_place: Any, nothing: Any, first: Any, starts: Any) -> None:
    """Pixels that have a photon, row by row: eight times their place, and ``nothing`` until there are eight of eight.

    Those of row i are starts[first[i] : first[i + 1]].
    """
    used = 0
    for i in range(bits.shape[0]):
        first[i] = used
        for w in range(bits.shape[1]):
            word = bits[i, w]
            while word:
                b = w * 64 + _popcount((word & (~word + np.uint64(1))) - np.uint64(1))
                word &= word - np.uint64(1)
                starts[used] = (first_place + b) * EIGHT
                used += 1
        while used % EIGHT:
            starts[used] = nothing * EIGHT
            used += 1
    first[bits.shape[0]] = used
