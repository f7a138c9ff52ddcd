"""One photon lights up several pixels of a thin-pixel detector: gather its hits and count it once."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from beamline_ml.errors import FramesError
from beamline_ml.records import IntArray

CLUSTER_TICKS = 64
"""100 ns: hits of one photon arrive within the drift time of its charge."""


@dataclass(frozen=True, slots=True)
class Hits:
    """Hits or photons, all arrays of the same length."""

    tick: IntArray
    """Arrival time in units of 1.5625 ns."""
    row: IntArray
    column: IntArray
    over_threshold: IntArray
    """Time over threshold in units of 25 ns: how much charge."""


def photons_of(hits: Hits, photon_at: str, window_ticks: int = CLUSTER_TICKS) -> Hits:
    """One photon for each cluster of touching hits (corners too) that arrive within ``window_ticks`` of each other.

    Parameters
    ----------
    hits
        In order of time.
    photon_at
        ``"centroid"`` (weighted with time over threshold, rounded to a pixel), ``"brightest"`` pixel, or ``"hits"``:
        every hit is a photon.

    Returns
    -------
    photons
        In order of time, each with its cluster's earliest arrival and total time over threshold.

    Raises
    ------
    FramesError
        When ``photon_at`` is something else.
    """
    if photon_at == "hits":
        return hits
    if photon_at not in ("centroid", "brightest"):
        raise FramesError(f"photon_at = {photon_at!r} is unknown.", "Choose 'centroid', 'brightest' or 'hits'.")
    cluster = np.arange(hits.tick.size, dtype=np.int64)
    _join(hits.tick, hits.row, hits.column, window_ticks, cluster)
    first, cluster = np.unique(cluster, return_index=True, return_inverse=True)[1:]
    total = np.bincount(cluster, hits.over_threshold).astype(np.int64)
    row, column = _brightest(hits, cluster) if photon_at == "brightest" else _centroid(hits, cluster)
    return Hits(hits.tick[first], row, column, total)


def _centroid(hits: Hits, cluster: IntArray) -> tuple[IntArray, IntArray]:
    # A hit just over the threshold may have time 0, but is there.
    weight = np.maximum(hits.over_threshold, 1)
    total = np.bincount(cluster, weight)
    row, column = (np.bincount(cluster, weight * place) / total for place in (hits.row, hits.column))
    return np.floor(row + 0.5).astype(np.int64), np.floor(column + 0.5).astype(np.int64)


def _brightest(hits: Hits, cluster: IntArray) -> tuple[IntArray, IntArray]:
    """The pixel that was longest over threshold; of equals, the earliest."""
    order = np.lexsort((-hits.over_threshold, cluster))
    chosen = order[np.flatnonzero(np.diff(cluster[order], prepend=-1))]
    return hits.row[chosen], hits.column[chosen]


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _join(tick: IntArray, row: IntArray, column: IntArray, window: int, parent: IntArray) -> None:
    """Give every hit the index of the earliest hit of its cluster (union-find with the smaller index as root)."""
    for i in range(tick.size):
        k = i - 1
        while k >= 0 and tick[i] - tick[k] <= window:
            if abs(row[i] - row[k]) <= 1 and abs(column[i] - column[k]) <= 1:
                a, b = i, k
                while parent[a] != a:
                    a = parent[a]
                while parent[b] != b:
                    b = parent[b]
                parent[max(a, b)] = min(a, b)
            k -= 1
    # A parent comes before its child, so one pass in order flattens the trees.
    for i in range(tick.size):
        parent[i] = parent[parent[i]]
