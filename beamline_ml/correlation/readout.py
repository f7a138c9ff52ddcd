"""What the sums of an accumulator say: a TwoTime record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.gather import PixelOrder
from beamline_ml.correlation.gram import gram_float
from beamline_ml.correlation.normalize import plain_c2, static_c2
from beamline_ml.correlation.qmap import QMap
from beamline_ml.correlation.quality import quality_of_totals
from beamline_ml.correlation.rows import RowStore
from beamline_ml.correlation.symmetry import lower_square
from beamline_ml.records import BoolArray, Float32Array, Float64Array, IntArray, TwoTime

FLOAT_TILE = 256


@dataclass(frozen=True, slots=True)
class PairSums:
    """Sums over the pixels of each group of a q-map (static bins, or dynamic bins when they are enough)."""

    numerator: NDArray[Any]
    """(n_groups, n, n) sums of products of counts, the lower triangle, 0 in the rows of absent frames."""
    frame_sum: NDArray[Any]
    """(n_groups, n) sums of counts."""
    shot: NDArray[Any] | None
    """(n_groups, n) what shot noise adds to the diagonal of ``numerator``; None when it is not known."""
    n_pixels: IntArray
    """(n_groups,)."""
    owner: IntArray
    """(n_groups,) 0-based dynamic bin."""


class CountSums(Protocol):
    """What read-out needs to know of the frames, besides the sums of their products."""

    qmap: QMap
    order: PixelOrder
    group_sums: NDArray[Any]
    """(>= n, n_static_groups) sums of counts."""
    saturated: BoolArray
    """(>= n,) rows with a saturated pixel."""


def integer_sums(store: CountSums, gram: NDArray[Any], edges: IntArray, n: int) -> PairSums:
    """Sums of integer frames; ``gram`` holds the lower triangle, and comes back as the numerator if it has n rows."""
    frame_sum = sums_of_frames(store, edges, n)
    first = np.searchsorted(store.order.static_edges[:-1], edges[:-1])
    return PairSums(lower_square(gram, n), frame_sum, frame_sum, np.diff(edges), store.order.static_owner[first])


def sums_of_frames(store: CountSums, edges: IntArray, n: int) -> IntArray:
    """(n_groups, n) sums of counts of each frame, over the pixels of each group."""
    first = np.searchsorted(store.order.static_edges[:-1], edges[:-1])
    return np.add.reduceat(store.group_sums[:n].T, first, axis=0)


def float_sums(store: RowStore, edges: IntArray, n: int) -> PairSums:
    """Sums of floating-point frames, or of integer frames divided by the flat field.

    Every tile of 256 x 256 frames is computed from rows of one fixed shape and place, so that the rounding does not
    depend on how the frames arrived.
    """
    gain = None if store.qmap.flatfield is None else store.qmap.flatfield.ravel()[store.order.source]
    numerator = np.zeros((edges.size - 1, n, n))
    frame_sum, shot = np.zeros((edges.size - 1, n)), np.zeros((edges.size - 1, n))
    for k, (lo, hi) in enumerate(pairwise(edges)):
        weight = 1.0 if gain is None else 1.0 / gain[lo:hi]
        tiles = [_tile(store.rows[:n, lo:hi], i, weight) for i in range(0, n, FLOAT_TILE)]
        frame_sum[k] = np.concatenate([t.sum(axis=1) for t in tiles])[:n]
        shot[k] = np.concatenate([(t * weight).sum(axis=1) for t in tiles])[:n]
        numerator[k] = _tiled_gram(tiles, n)
    first = np.searchsorted(store.order.static_edges[:-1], edges[:-1])
    known_shot = shot if store.is_integer else None
    return PairSums(numerator, frame_sum, known_shot, np.diff(edges), store.order.static_owner[first])


def _tile(rows: NDArray[Any], lo: int, weight: Float64Array | float) -> Float64Array:
    tile = np.zeros((FLOAT_TILE, rows.shape[1]))
    part = rows[lo : lo + FLOAT_TILE]
    tile[: part.shape[0]] = part * weight
    return tile


def _tiled_gram(tiles: list[Float64Array], n: int) -> Float64Array:
    total = np.zeros((n, n))
    for i, a in enumerate(tiles):
        for j, b in enumerate(tiles[: i + 1]):
            lo, left = i * FLOAT_TILE, j * FLOAT_TILE
            total[lo : lo + FLOAT_TILE, left : left + FLOAT_TILE] = gram_float(a, b)[: n - lo, : n - left]
    return total


def read_out(
    store: CountSums,
    sums: PairSums,
    normalization: str,
    frame_period_s: float,
    present: BoolArray,
    age_s: Float64Array | None = None,
    memory: NDArray[np.uint8] | None = None,
) -> TwoTime:
    """Normalise the sums; rows that are not ``present`` (n,) become NaN. C2 takes ``memory`` where that fits."""
    n_q, n = store.qmap.n_q, present.size
    c2 = _room_for_c2((n_q, n, n), memory)
    for bin_index in range(n_q):
        _c2_of_bin(sums, sums.owner == bin_index, normalization, c2[bin_index])
    if not present.all():
        c2[:, ~present, :] = np.nan
        c2[:, :, ~present] = np.nan
    frame_sum = _per_bin(sums.frame_sum, sums.owner, n_q)
    quality = quality_of_totals(present, frame_sum.sum(axis=0), store.saturated[:n], store.qmap.n_bad_pixels)
    return TwoTime(
        c2=c2,
        lower_sums=_per_bin(sums.numerator, sums.owner, n_q),
        frame_sum=frame_sum,
        n_pixels=store.qmap.n_pixels,
        q_inv_angstrom=store.qmap.q_inv_angstrom,
        age_s=np.arange(n, dtype=np.float64) * frame_period_s if age_s is None else age_s,
        frame_period_s=frame_period_s,
        normalization=normalization,
        quality=quality,
    )


def _room_for_c2(shape: tuple[int, int, int], memory: NDArray[np.uint8] | None) -> Float32Array:
    """Memory that is there already comes without the time that the system takes to find and clear other."""
    n_bytes = 4 * math.prod(shape)
    # A result must not keep far more memory than it needs.
    if memory is None or not n_bytes <= memory.size <= 2 * n_bytes:
        return np.empty(shape, np.float32)
    return memory[:n_bytes].view(np.float32).reshape(shape)


def _c2_of_bin(sums: PairSums, mine: BoolArray, normalization: str, c2: Float32Array) -> None:
    first, last = (int(k) for k in np.flatnonzero(mine)[[0, -1]])
    groups = slice(first, last + 1)
    numerator, frame_sum, n_pixels = sums.numerator[groups], sums.frame_sum[groups], sums.n_pixels[groups]
    shot = None if sums.shot is None else sums.shot[groups]
    if normalization == "static":
        static_c2(numerator, frame_sum, n_pixels, shot, c2)
        return
    whole = numerator[0] if len(numerator) == 1 else numerator.sum(axis=0)
    total_shot = None if shot is None else shot.sum(axis=0)
    plain_c2(whole, frame_sum.sum(axis=0), int(n_pixels.sum()), total_shot, c2)


def _per_bin(groups: NDArray[Any], owner: IntArray, n_q: int) -> NDArray[Any]:
    if groups.shape[0] == n_q:
        return groups
    wide = np.promote_types(groups.dtype, np.int64)
    return np.add.reduceat(groups, np.searchsorted(owner, np.arange(n_q)), axis=0, dtype=wide)
