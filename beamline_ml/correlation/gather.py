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

    source: IntArray
    """(n_used,) flat detector index of each regrouped pixel."""
    run_source: IntArray
    """(n_runs,) first flat detector index of each stretch that is contiguous on both sides."""
    run_start: IntArray
    """(n_runs + 1,) first regrouped index of each stretch, closed by n_used."""
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
        source = used[np.lexsort((static[used], labels[used]))]
        breaks = np.flatnonzero(np.diff(source) != 1) + 1
        start = np.concatenate([[0], breaks])
        groups = np.flatnonzero(np.diff(static[source])) + 1
        edges = np.concatenate([[0], groups, [source.size]])
        dynamic = labels[source]
        return cls(
            source=source,
            run_source=source[start],
            run_start=np.append(start, source.size),
            static_edges=edges,
            static_owner=dynamic[edges[:-1]] - 1,
            dynamic_edges=np.searchsorted(dynamic, np.arange(1, qmap.n_q + 2)),
        )

    def gather(self, frames: NDArray[Any]) -> NDArray[Any]:
        """(n, rows, cols) frames to (n, n_used) rows of the same dtype."""
        flat = np.ascontiguousarray(frames).reshape(frames.shape[0], -1)
        rows = np.empty((flat.shape[0], self.source.size), flat.dtype)
        if not rows.dtype.isnative:
            return np.take(flat, self.source, axis=1).astype(rows.dtype.newbyteorder("="))
        _copy_runs(flat, self.run_source, self.run_start, rows)
        return rows


@numba.njit(cache=True)
def _copy_runs(flat: Any, run_source: Any, run_start: Any, rows: Any) -> None:
    for frame in range(flat.shape[0]):
        for run in range(run_source.size):
            lo, hi = run_start[run], run_start[run + 1]
            source = run_source[run]
            for i in range(hi - lo):
                rows[frame, lo + i] = flat[frame, source + i]
