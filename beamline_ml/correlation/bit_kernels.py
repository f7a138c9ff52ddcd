"""Inner loops on frames packed one bit a pixel."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic


def _typed_popcount(_context: Any, _word: Any) -> Any:
    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


_popcount: Any = intrinsic(_typed_popcount)


@numba.njit(cache=True)
def count_multiple(rows: Any) -> Any:
    """Pixels with several photons in all rows together."""
    total = np.int64(0)
    for i in range(rows.shape[0]):
        row = rows[i]
        for j in range(row.size):
            total += row[j] > 1
    return total


@numba.njit(cache=True)
def pack_rows(
    rows: Any, lanes: Any, edges: Any, word_edges: Any, bits: Any, first: Any, place: Any, count: Any, used: Any
) -> None:
    """Bits of each row; from ``used`` on, the place (bit number) and count - 1 of pixels with several photons.

    ``lanes`` (n_rows, n) holds the rows eight pixels a word, where they are bytes; else n is 0.
    """
    for i in range(rows.shape[0]):
        row = rows[i]
        for k in range(edges.size - 1):
            first[i, k] = used
            for w in range(word_edges[k], word_edges[k + 1]):
                start = edges[k] + (w - word_edges[k]) * 64
                width = min(64, edges[k + 1] - start)
                if lanes.shape[1] and width == 64:
                    packed, several = _pack_lanes(lanes[i], np.uint64(start))
                else:
                    packed, several = _pack_pixels(row[start : start + width])
                bits[i, w] = packed
                if several:
                    for b in range(width):
                        if row[start + b] > 1:
                            place[used] = w * 64 + b
                            count[used] = np.int64(row[start + b]) - 1
                            used += 1
        first[i, edges.size - 1] = used


@numba.njit(cache=True)
def _pack_lanes(lanes: Any, start: Any) -> Any:
    """64 pixels from the byte ``start`` on: their bits, and whether any has several photons."""
    low, shift = np.uint64(0x7F7F7F7F7F7F7F7F), np.uint64(8) * (start & np.uint64(7))
    packed = several = np.uint64(0)
    at = start >> np.uint64(3)
    for b in range(8):
        lane = lanes[at + np.uint64(b)] >> shift
        if shift:
            lane |= lanes[at + np.uint64(b + 1)] << (np.uint64(64) - shift)
        filled = (((lane & low) + low) | lane) & ~low
        # The product moves the top bit of each byte into the highest byte.
        packed |= (((filled >> np.uint64(7)) * np.uint64(0x0102040810204080)) >> np.uint64(56)) << np.uint64(8 * b)
        several |= lane & np.uint64(0xFEFEFEFEFEFEFEFE)
    return packed, several != 0


@numba.njit(cache=True)
def _pack_pixels(row: Any) -> Any:
    packed = np.uint64(0)
    several = False
    for b in range(row.size):
        packed |= np.uint64(row[b] > 0) << np.uint64(b)
        several |= row[b] > 1
    return packed, several


@numba.njit(cache=True)
def popcount_pairs(gram: Any, bits: Any, lo: Any, hi: Any, n: Any, first: Any, last: Any) -> None:
    """Blocks of earlier rows that stay in cache; two rows by four at a time, which keeps the loads few."""
    for block in range(0, n, 64):
        end = min(block + 64, n)
        for i in range(lo, hi, 2):
            i1 = min(i + 1, hi - 1)
            if block > i1 and end <= hi:
                continue
            for j in range(block, end, 4):
                if j > i1 and j + 4 <= hi:
                    continue
                j1, j2, j3 = min(j + 1, end - 1), min(j + 2, end - 1), min(j + 3, end - 1)
                # Slices from 0 spare numba its checks for negative indices, so that the loop becomes vector code.
                x, y = bits[i, first:last], bits[i1, first:last]
                p, q, r, s = bits[j, first:last], bits[j1, first:last], bits[j2, first:last], bits[j3, first:last]
                a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = np.int64(0)
                for w in range(x.size):
                    a0 += _popcount(x[w] & p[w])
                    a1 += _popcount(x[w] & q[w])
                    a2 += _popcount(x[w] & r[w])
                    a3 += _popcount(x[w] & s[w])
                    b0 += _popcount(y[w] & p[w])
                    b1 += _popcount(y[w] & q[w])
                    b2 += _popcount(y[w] & r[w])
                    b3 += _popcount(y[w] & s[w])
                gram[max(i, j), min(i, j)] = a0
                gram[max(i, j1), min(i, j1)] = a1
                gram[max(i, j2), min(i, j2)] = a2
                gram[max(i, j3), min(i, j3)] = a3
                gram[max(i1, j), min(i1, j)] = b0
                gram[max(i1, j1), min(i1, j1)] = b1
                gram[max(i1, j2), min(i1, j2)] = b2
                gram[max(i1, j3), min(i1, j3)] = b3


@numba.njit(cache=True)
def transpose_bits(bits: Any, columns: Any, first_block: Any, last_block: Any) -> None:
    """columns[block, pixel] holds the pixel's bits of 64 consecutive rows, by swapping ever smaller squares."""
    square = np.empty(64, np.uint64)
    for block in range(first_block, last_block):
        for w in range(bits.shape[1]):
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
                columns[block, w * 64 + i] = square[i]


@numba.njit(cache=True)
def extra_pairs(
    gram: Any, columns: Any, first: Any, last: Any, place: Any, count: Any, lo: Any, hi: Any, n: Any
) -> None:
    """Add (count - 1) of each pixel with several photons to the pairs with every row that has a photon there."""
    for i in range(n):
        new = lo <= i < hi
        first_block, last_block = (0, (n + 63) // 64) if new else (lo // 64, (hi + 63) // 64)
        for e in range(first[i], last[i]):
            extra = count[e]
            for block in range(first_block, last_block):
                word = columns[block, place[e]]
                while word:
                    j = block * 64 + _popcount((word & (~word + np.uint64(1))) - np.uint64(1))
                    word &= word - np.uint64(1)
                    if new or lo <= j < hi:
                        # A row with itself has the product twice: e b + b e.
                        gram[max(i, j), min(i, j)] += extra if i != j else 2 * extra
