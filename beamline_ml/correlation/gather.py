"""Pixels regrouped once: from detector order to rows in which each bin is one contiguous stretch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.qmap import QMap
from beamline_ml.records import IntArray


@dataclass(frozen=True, slots=True)
class PixelOrder:
    """Used pixels sorted by (dynamic bin, static bin, place on the detector)."""

    source: NDArray[np.int32]
    """(n_used,) flat detector index of each regrouped pixel."""
    static_edges: IntArray
    """(n_groups + 1,) regrouped index at which each static group starts."""
    static_owner: IntArray
    """(n_groups,) 0-based dynamic bin of each static group."""
    dynamic_edges: IntArray
    """(n_q + 1,) regrouped index at which each dynamic bin starts."""

    @classmethod
    def of(cls, qmap: QMap) -> PixelOrder:
        """Sort the pixels of a q-map."""
        labels, static = qmap.labels.ravel(), qmap.static_labels.ravel()
        used = np.flatnonzero(labels)
        source = used[np.lexsort((static[used], labels[used]))].astype(np.int32)
        groups = np.flatnonzero(np.diff(static[source])) + 1
        edges = np.concatenate([[0], groups, [source.size]])
        dynamic = labels[source]
        return cls(
            source=source,
            static_edges=edges,
            static_owner=dynamic[edges[:-1]] - 1,
            dynamic_edges=np.searchsorted(dynamic, np.arange(1, qmap.n_q + 2)),
        )

    def gather(self, frames: NDArray[Any], rows: NDArray[Any], sums: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Regroup (n, rows, cols) frames into ``rows`` (n, n_used), adding up each static group in ``sums`` on the way.

        Returns the smallest and largest value of each frame; where they do not fit the dtype of ``rows``, what was
        written there is to be thrown away.
        """
        flat = np.ascontiguousarray(frames).reshape(frames.shape[0], -1)
        if not flat.dtype.isnative:
            flat = flat.astype(flat.dtype.newbyteorder("="))
        return _gather(flat, self.source, self.static_edges, rows, sums)


@numba.njit(cache=True)
def _gather(flat: Any, source: Any, edges: Any, rows: Any, sums: Any) -> Any:
    smallest, largest = np.empty(flat.shape[0], flat.dtype), np.empty(flat.shape[0], flat.dtype)
    for i in range(flat.shape[0]):
        frame, row = flat[i], rows[i]
        low = high = frame[source[0]]
        for k in range(edges.size - 1):
            total = sums[i, k] * 0
            for p in range(edges[k], edges[k + 1]):
                value = frame[source[p]]
                row[p] = value
                total += value
                low, high = min(low, value), max(high, value)
            sums[i, k] = total
        smallest[i], largest[i] = low, high
    return smallest, largest
