"""Sums over the pixels of one frame that have a photon in another, for many frames and 512 others at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.tally import EIGHT, FRAMES, add_bright_pixel, add_pixels

TILE = 128


@numba.njit(cache=True)
def add_photons(sums: Any, words: Any, first: Any, starts: Any, planes: Any) -> None:
    """Add to row i of ``sums`` (n, 512) how many of its pixels (``list_photons``) have a photon in each frame."""
    for i in range(sums.shape[0]):
        add_pixels(sums[i], words, starts[first[i] : first[i + 1]], planes)


@numba.njit(cache=True)
def add_excess(sums: Any, words: Any, first: Any, last: Any, place: Any, count: Any, nothing: Any, planes: Any) -> None:
    """Add to row i of ``sums`` (n, 512) the counts less one of its pixels that have a photon in each frame.

    These pixels, and their counts less one, stand from first[i] to last[i].
    """
    starts = np.empty(int((last - first).max()) + EIGHT if first.size else EIGHT, np.int64)
    for i in range(sums.shape[0]):
        n = 0
        for e in range(first[i], last[i]):
            start = np.int64(place[e]) * EIGHT
            if count[e] == 1:
                starts[n] = start
                n += 1
            else:
                add_bright_pixel(sums[i], words, start, count[e])
        while n % EIGHT:
            starts[n] = np.int64(nothing) * EIGHT
            n += 1
        add_pixels(sums[i], words, starts[:n], planes)


@numba.njit(cache=True)
def add_both_ways(target: Any, there: Any, back: Any, n_before: Any) -> None:
    """target[i, j] += there[i, j] + back[j, i] for j <= i + n_before.

    Square by square: what would be read down the columns is turned in cache.
    """
    square, turned = np.zeros((TILE, TILE), there.dtype), np.zeros((TILE, TILE), there.dtype)
    n_rows, n_columns = target.shape
    for row in range(0, n_rows, TILE):
        height = min(TILE, n_rows - row)
        for column in range(0, min(n_columns, row + height + n_before), TILE):
            _turn(back[column : column + TILE, row : row + TILE], square, turned)
            for i in range(height):
                _add_row(
                    target[row + i, column : min(column + TILE, n_columns, row + i + n_before + 1)],
                    there[row + i, column : column + TILE],
                    turned[i],
                )


@numba.njit(cache=True)
def _turn(part: Any, square: Any, turned: Any) -> None:
    """Two steps, each of which a compiler turns into wide moves."""
    for j in range(part.shape[0]):
        for i in range(part.shape[1]):
            square[j, i] = part[j, i]
    for i in range(part.shape[1]):
        for j in range(part.shape[0]):
            turned[i, j] = square[j, i]


@numba.njit(cache=True)
def _add_row(target: Any, there: Any, back: Any) -> None:
    # Spelled out: unsigned and signed numbers would be added as floating-point ones.
    for j in range(target.size):
        target[j] += np.int64(there[j]) + np.int64(back[j])


class NewPairs:
    """Sums of one group of pixels that are still to be put in: of new rows lo..hi with all n rows there are.

    Parameters
    ----------
    lo, hi, n
        New rows, and how many there are.
    largest
        No sum is larger.
    with_excess
        Whether any pixel holds several photons.
    """

    def __init__(self, lo: int, hi: int, n: int, largest: int, with_excess: bool) -> None:
        self._lo, self._hi, self._n = lo, hi, n
        self._first_piece, self._end_piece = lo // FRAMES, -(-hi // FRAMES)
        dtype = np.uint16 if largest <= np.iinfo(np.uint16).max else np.int64
        self._there = np.zeros((hi - lo, -(-n // FRAMES) * FRAMES), dtype)
        """What the photons of new rows find in every row."""
        n_back = n if with_excess else 0
        self._back = np.zeros((n_back, (self._end_piece - self._first_piece) * FRAMES), dtype)
        """What the excess of every row finds in new rows."""

    def clear(self) -> None:
        """Begin another group."""
        self._there[:] = 0
        self._back[:] = 0

    def there(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Pieces of 512 frames, the first of the new rows whose pairs with them are wanted, and their sums."""
        for piece in range(-(-self._n // FRAMES)):
            # Of two new rows the later one has the pair; rows that were there before come with all new ones.
            later = (piece + 1) * FRAMES > self._hi and self._n > self._hi
            first = self._lo if later else max(self._lo, piece * FRAMES)
            if first < self._hi:
                yield piece, first, self._there[first - self._lo :, piece * FRAMES : (piece + 1) * FRAMES]

    def back(self) -> Iterator[tuple[int, slice, NDArray[Any]]]:
        """Pieces of 512 frames with new rows, the rows whose pairs with these are wanted, and their sums."""
        for piece in range(self._first_piece, self._end_piece):
            start = (piece - self._first_piece) * FRAMES
            for rows in (slice(0, min(self._hi, (piece + 1) * FRAMES)), slice(self._hi, self._n)):
                yield piece, rows, self._back[rows, start : start + FRAMES]

    def put(self, gram: NDArray[Any]) -> None:
        """Add to the lower triangle: new rows with earlier ones, and later rows with the new ones."""
        lo, hi, n = self._lo, self._hi, self._n
        if not len(self._back):
            gram[lo:hi, :hi] += self._there[:, :hi]
            gram[hi:n, lo:hi] += self._there[:, hi:n].T
            return
        back = self._back[:, lo % FRAMES :][:, : hi - lo]
        add_both_ways(gram[lo:hi, :hi], self._there[:, :hi], back[:hi], lo)
        if n > hi:
            add_both_ways(gram[hi:n, lo:hi], back[hi:n], self._there[:, hi:n], n)
