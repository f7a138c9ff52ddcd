"""Inner loops on frames packed one bit a pixel."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from beamline_ml.correlation.tally import add_pixels
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
def popcount_pairs(
    gram: Any, bits: Any, lo: Any, hi: Any, n: Any, first: Any, last: Any, by_new: Any, by_old: Any
) -> None:
    """Write the sums of rows lo..hi with every row into the lower triangle, those of ``extra_sums`` included.

    Blocks of earlier rows stay in cache; two rows go by four at a time, which keeps the loads few. ``by_new`` without
    rows: there is nothing to include.
    """
    flat, width = bits.reshape(-1), bits.shape[1]
    sums = np.empty(8, np.int64)
    size = min(64, max(4, CACHED_WORDS // max(1, last - first) // 4 * 4))
    for top in range(lo, hi, TALL):
        for block in range(0, n, size):
            bottom, end = min(top + TALL, hi), min(block + size, n)
            _popcount_block(gram, flat, width, top, bottom, lo, hi, block, end, first, last, sums)
            if by_new.shape[0]:
                _add_extra(gram, by_new, by_old, top, bottom, lo, hi, block, end)


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
def _add_extra(
    gram: Any, by_new: Any, by_old: Any, top: Any, bottom: Any, lo: Any, hi: Any, block: Any, end: Any
) -> None:
    """Add both ways round what several photons add; a row with itself has the product twice."""
    # Spelled out: unsigned and signed numbers would be added as floating-point ones.
    base = lo // 64 * 64
    for i in range(top, bottom):
        mine = by_new[i - lo]
        for j in range(block, min(end, lo)):
            gram[i, j] += np.int64(mine[j]) + np.int64(by_old[j, i - base])
        for j in range(max(block, lo), min(end, i + 1)):
            gram[i, j] += np.int64(mine[j]) + np.int64(by_new[j - lo, i])
        for j in range(max(block, hi), end):
            gram[j, i] += np.int64(mine[j]) + np.int64(by_old[j, i - base])


@numba.njit(cache=True)
def transpose_bits(bits: Any, columns: Any, fresh: Any, first_block: Any, last_block: Any) -> None:
    """columns[pixel, block] holds the pixel's bits of 64 consecutive rows, by swapping ever smaller squares.

    fresh[pixel, block - first_block] holds the same, where it has rows.
    """
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
                columns[w * 64 + i, block] = square[i]
            if fresh.shape[1]:
                # An assignment of slices would take seconds to compile, for its error message.
                for i in range(64):
                    fresh[w * 64 + i, block - first_block] = square[i]


@numba.njit(cache=True)
def extra_sums(
    columns: Any,
    fresh: Any,
    first: Any,
    last: Any,
    place: Any,
    count: Any,
    lo: Any,
    hi: Any,
    n: Any,
    by_new: Any,
    by_old: Any,
    room: Any,
) -> None:
    """Sums of (count - 1) of each row's pixels with several photons that have a photon in another row.

    ``by_new`` (hi - lo, n rounded up to 64, or more): of the rows lo..hi with every row. ``by_old`` (n, lo..hi rounded
    to 64, or more): of the others with these. The last row of ``columns`` and of ``fresh`` is 0; ``room``: that of
    ``tally``.
    """
    every, new = columns.reshape(-1), fresh.reshape(-1)
    n_words, n_new_words = (n + 63) // 64, (hi + 63) // 64 - lo // 64
    nothing = columns.shape[0] - 1
    starts, planes = room
    by_new[:] = 0
    by_old[:] = 0
    for i in range(n):
        places, counts = place[first[i] : last[i]], count[first[i] : last[i]]
        if lo <= i < hi:
            add_pixels(by_new[i - lo], every, columns.shape[1], n_words, places, counts, nothing, starts, planes)
        else:
            add_pixels(by_old[i], new, fresh.shape[1], n_new_words, places, counts, nothing, starts, planes)
