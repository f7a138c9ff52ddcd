"""Sums over pairs of rows, kept apart by age: as fine as the run is short, and never more than a fixed number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import BoolArray, IntArray

MAX_AGES = 1024
"""Ages that are kept; when there are more, neighbours are added and an age covers twice as many rows."""
START = 64
PAIR_SUMS = ("pairs", "product", "earlier", "later", "cross", "ratio", "known")


class AgeSums:
    """What every definition of g2 needs of the pairs (t, t - lag) of one level, summed over ages of ``chunk`` rows.

    A pair belongs to the age of its later row. Rows come one after the other; how they are cut into calls changes
    nothing, not even rounding.

    Parameters
    ----------
    lags
        (n_lags,) in rows, >= 1.
    first_group
        (n_q,) first group of pixels of each bin.
    n_groups
        Groups of pixels in all.
    """

    def __init__(self, lags: IntArray, first_group: IntArray, n_groups: int) -> None:
        self.lags = lags
        self.chunk = 1
        """Rows per age, a power of 2."""
        self.n_rows = 0
        self._group_edges: IntArray = np.append(first_group, n_groups).astype(np.int64)
        n_lags, n_q = lags.size, first_group.size
        self.pairs: IntArray = np.zeros((START, n_lags), np.int64)
        """(n_ages, n_lags) usable pairs."""
        self.product: IntArray = np.zeros((START, n_lags, n_groups), np.int64)
        """(n_ages, n_lags, n_groups) sums of products of counts."""
        self.earlier: IntArray = np.zeros((START, n_lags, n_groups), np.int64)
        self.later: IntArray = np.zeros((START, n_lags, n_groups), np.int64)
        """Sums of the counts of the earlier and of the later row."""
        self.cross: NDArray[np.float64] = np.zeros((START, n_lags, n_q))
        """(n_ages, n_lags, n_q) sums of S S', S the counts of a bin."""
        self.ratio: NDArray[np.float64] = np.zeros((START, n_lags, n_q))
        """Sums of product / (S S') over the pairs in which that is known."""
        self.known: IntArray = np.zeros((START, n_lags, n_q), np.int64)
        self.last_sums: IntArray = np.zeros((int(lags[-1]), n_groups), np.int64)
        """(longest lag, n_groups) counts of the latest rows, oldest first."""
        self.last_valid: BoolArray = np.zeros(int(lags[-1]), np.bool_)

    @property
    def first_group(self) -> IntArray:
        """(n_q,) first group of each bin."""
        return self._group_edges[:-1]

    @property
    def n_ages(self) -> int:
        """Ages that have begun."""
        return -(-self.n_rows // self.chunk)

    def add(self, products: IntArray, sums: IntArray, valid: BoolArray) -> None:
        """Take in the next rows.

        Parameters
        ----------
        products
            (n, n_lags, n_groups) sums of products of row t and row t - lag.
        sums
            (n, n_groups) counts of the rows.
        valid
            (n,) whether all frames of a row are there.
        """
        done = 0
        while done < sums.shape[0]:
            n = min(sums.shape[0] - done, self._room())
            part = slice(done, done + n)
            self._add(products[part], sums[part], valid[part])
            done += n

    def _room(self) -> int:
        """Rows that fit before neighbours have to be added."""
        if self.n_rows == MAX_AGES * self.chunk:
            for name in PAIR_SUMS:
                fine = getattr(self, name)
                merged = np.zeros_like(fine)
                merged[: MAX_AGES // 2] = fine[0::2] + fine[1::2]
                setattr(self, name, merged)
            self.chunk *= 2
        return MAX_AGES * self.chunk - self.n_rows

    def _add(self, products: IntArray, sums: IntArray, valid: BoolArray) -> None:
        needed = -(-(self.n_rows + sums.shape[0]) // self.chunk)
        if needed > self.pairs.shape[0]:
            size = min(MAX_AGES, max(needed, 2 * self.pairs.shape[0]))
            for name in PAIR_SUMS:
                setattr(self, name, _lengthened(getattr(self, name), size))
        every_sum = np.concatenate([self.last_sums, sums])
        every_valid = np.concatenate([self.last_valid, valid])
        totals = (self.pairs, self.product, self.earlier, self.later, self.cross, self.ratio, self.known)
        _add_pairs(products, every_sum, every_valid, self.lags, self._group_edges, self.n_rows, self.chunk, *totals)
        n_last = self.last_valid.size
        self.last_sums, self.last_valid = every_sum[-n_last:].copy(), every_valid[-n_last:].copy()
        self.n_rows += sums.shape[0]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The state as named arrays."""
        kept = {name: getattr(self, name)[: self.n_ages].copy() for name in PAIR_SUMS}
        rest = {"lags": self.lags, "group_edges": self._group_edges}
        counters = {"chunk": np.array(self.chunk), "n_rows": np.array(self.n_rows)}
        return kept | rest | counters | {"last_sums": self.last_sums, "last_valid": self.last_valid}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The sums in the state that :meth:`to_arrays` returned."""
        edges = np.array(arrays["group_edges"])
        self = cls(np.array(arrays["lags"]), edges[:-1], int(edges[-1]))
        self.chunk, self.n_rows = int(arrays["chunk"]), int(arrays["n_rows"])
        for name in PAIR_SUMS:
            setattr(self, name, _lengthened(np.asarray(arrays[name]), max(START, self.n_ages)))
        self.last_sums, self.last_valid = np.array(arrays["last_sums"]), np.array(arrays["last_valid"])
        return self


def _lengthened(array: NDArray[Any], n: int) -> NDArray[Any]:
    longer = np.zeros((n, *array.shape[1:]), array.dtype)
    longer[: array.shape[0]] = array
    return longer


@numba.njit(cache=True)
def _add_pairs(
    products: Any,
    sums: Any,
    valid: Any,
    lags: Any,
    group_edges: Any,
    n_rows: Any,
    chunk: Any,
    pairs: Any,
    product: Any,
    earlier: Any,
    later: Any,
    cross: Any,
    ratio: Any,
    known: Any,
) -> None:
    n_before = valid.size - products.shape[0]
    shift = 0
    while (1 << shift) < chunk:
        shift += 1
    for t in range(products.shape[0]):
        age, now = (n_rows + t) >> shift, n_before + t
        for k in range(lags.size):
            then = now - lags[k]
            if not (valid[now] and valid[then]):
                continue
            pairs[age, k] += 1
            for q in range(group_edges.size - 1):
                above, here, there = np.int64(0), np.int64(0), np.int64(0)
                for g in range(group_edges[q], group_edges[q + 1]):
                    product[age, k, g] += products[t, k, g]
                    earlier[age, k, g] += sums[then, g]
                    later[age, k, g] += sums[now, g]
                    above += products[t, k, g]
                    here += sums[now, g]
                    there += sums[then, g]
                below = np.float64(here) * np.float64(there)
                cross[age, k, q] += below
                if below > 0:
                    known[age, k, q] += 1
                    if above > 0:
                        ratio[age, k, q] += above / below
