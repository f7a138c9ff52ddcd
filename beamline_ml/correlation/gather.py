"""Pixels regrouped once: from detector order to rows in which each bin is one contiguous stretch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.qmap import QMap
from beamline_ml.correlation.vectors import COPY, copy_piece
from beamline_ml.records import IntArray


@dataclass(frozen=True, slots=True)
class PixelOrder:
    """Used pixels sorted by (dynamic bin, static bin, place on the detector)."""

    source: NDArray[np.uint32]
    """(n_used,) flat detector index of each regrouped pixel."""
    static_edges: IntArray
    """(n_groups + 1,) regrouped index at which each static group starts."""
    static_owner: IntArray
    """(n_groups,) 0-based dynamic bin of each static group."""
    dynamic_edges: IntArray
    """(n_q + 1,) regrouped index at which each dynamic bin starts."""
    pieces: NDArray[np.int32]
    """(n_pieces, 3) regrouped index, detector index and length of neighbours that stay together, 16 at most."""
    n_whole: int
    """Pieces that come first and may be copied 16 at a time: what is copied too much is overwritten later."""

    @classmethod
    def of(cls, qmap: QMap) -> PixelOrder:
        """Sort the pixels of a q-map."""
        labels, static = qmap.labels.ravel(), qmap.static_labels.ravel()
        used = np.flatnonzero(labels)
        source = used[np.lexsort((static[used], labels[used]))].astype(np.uint32)
        groups = np.flatnonzero(np.diff(static[source])) + 1
        edges = np.concatenate([[0], groups, [source.size]])
        dynamic = labels[source]
        pieces, n_whole = _pieces(source.astype(np.int64), labels.size)
        return cls(
            source=source,
            static_edges=edges,
            static_owner=dynamic[edges[:-1]] - 1,
            dynamic_edges=np.searchsorted(dynamic, np.arange(1, qmap.n_q + 2)),
            pieces=pieces,
            n_whole=n_whole,
        )

    def gather(self, frames: NDArray[Any], rows: NDArray[Any]) -> int:
        """Regroup (n, rows, cols) frames into ``rows`` (n, n_used).

        Returns all integer values ORed: negative when one is, and else no smaller than the largest. Where that does not
        fit the dtype of ``rows``, what was written there is to be thrown away. 0 for floating point, 255 for bytes.
        """
        flat = np.ascontiguousarray(frames).reshape(frames.shape[0], -1)
        if not flat.dtype.isnative:
            flat = flat.astype(flat.dtype.newbyteorder("="))
        if flat.dtype.kind == "f":
            _gather_plain(flat, self.source, rows)
            return 0
        if flat.dtype == rows.dtype == np.uint8:
            _gather_bytes(flat, self.pieces, self.n_whole, rows)
            return int(np.iinfo(np.uint8).max)
        return int(_gather_integers(flat, self.source, rows))

    def group_sums(self, rows: NDArray[Any]) -> NDArray[Any]:
        """(n, n_groups) sums over each static group of (n, n_used) rows: int64, or float64 in a fixed order."""
        return self.sums_and_largest(rows)[0]

    def sums_and_largest(self, rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """What :meth:`group_sums` gives, and the (n,) largest value of each row, no less than 0."""
        sums = np.empty((rows.shape[0], self.static_owner.size), np.float64 if rows.dtype.kind == "f" else np.int64)
        largest = np.zeros(rows.shape[0], rows.dtype)
        _group_sums(rows, self.static_edges, sums, largest)
        return sums, largest


def _pieces(source: IntArray, n_detector: int) -> tuple[NDArray[np.int32], int]:
    """Stretches of neighbours cut into pieces of 16; those that end a row or a frame come last."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(source) != 1) + 1])
    lengths = np.diff(np.append(starts, source.size))
    n_pieces = -(-lengths // COPY)
    place = np.arange(n_pieces.sum()) - np.repeat(np.cumsum(n_pieces) - n_pieces, n_pieces)
    target = np.repeat(starts, n_pieces) + COPY * place
    length = np.minimum(COPY, np.repeat(lengths, n_pieces) - COPY * place)
    whole = (target + COPY <= source.size) & (source[target] + COPY <= n_detector)
    order = np.argsort(~whole, kind="stable")
    # As few bytes as will do: the table is read once a frame.
    return np.stack([target, source[target], length], axis=1)[order].astype(np.int32), int(whole.sum())


# Unsigned indices spare numba its check for negative ones, which would double the time.
@numba.njit(cache=True)
def _gather_integers(flat: Any, source: Any, rows: Any) -> Any:
    seen = flat[0, 0] & 0
    for i in range(flat.shape[0]):
        frame, row = flat[i], rows[i]
        for p in range(source.size):
            value = frame[source[p]]
            row[p] = value
            seen |= value
    return seen


@numba.njit(cache=True)
def _gather_plain(flat: Any, source: Any, rows: Any) -> None:
    for i in range(flat.shape[0]):
        frame, row = flat[i], rows[i]
        for p in range(source.size):
            row[p] = frame[source[p]]


@numba.njit(cache=True)
def _gather_bytes(flat: Any, pieces: Any, n_whole: Any, rows: Any) -> None:
    for i in range(flat.shape[0]):
        frame, row = flat[i], rows[i]
        for k in range(n_whole):
            copy_piece(row, pieces[k, 0], frame, pieces[k, 1])
        for k in range(n_whole, pieces.shape[0]):
            for j in range(pieces[k, 2]):
                row[pieces[k, 0] + j] = frame[pieces[k, 1] + j]


@numba.njit(cache=True)
def _group_sums(rows: Any, edges: Any, sums: Any, largest: Any) -> None:
    for i in range(rows.shape[0]):
        for k in range(edges.size - 1):
            total = sums[i, k] * 0
            highest = largest[i]
            for value in rows[i, edges[k] : edges[k + 1]]:
                total += value
            for value in rows[i, edges[k] : edges[k + 1]]:
                highest = max(highest, value)
            sums[i, k] = total
            largest[i] = highest
