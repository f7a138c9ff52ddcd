"""C2 of long runs against age and a logarithmic lag, from the sums of a multi-tau pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.age_sums import MAX_AGES, AgeSums
from beamline_ml.correlation.gather import PixelOrder
from beamline_ml.correlation.qmap import QMap
from beamline_ml.errors import CorrelationError
from beamline_ml.records import AgeLagTwoTime, Float64Array


def read_out_ages(
    levels: Sequence[AgeSums], order: PixelOrder, qmap: QMap, frame_period_s: float, n_ages: int
) -> AgeLagTwoTime:
    """Bring the ages of all levels onto one grid and normalise; see ``MultiTauAccumulator.age_lag``."""
    if not 1 <= n_ages <= MAX_AGES:
        raise CorrelationError(f"Cannot tell {n_ages} ages apart.", f"Choose from 1 to {MAX_AGES}.")
    n_frames = levels[0].n_rows
    frames_per_age = levels[0].chunk
    while -(-n_frames // frames_per_age) > n_ages:
        frames_per_age *= 2
    count = -(-n_frames // frames_per_age)
    product, cross, pairs = (
        np.concatenate(parts, axis=1)
        for parts in zip(*(_on_grid(k, level, frames_per_age, count) for k, level in enumerate(levels)), strict=True)
    )
    n_pixels = np.diff(order.dynamic_edges).astype(np.float64)
    c2 = product * n_pixels / np.where(cross > 0, cross, np.nan)
    delay = np.concatenate([level.lags << k for k, level in enumerate(levels)])
    known = pairs.any(axis=0)
    if not known.any():
        raise CorrelationError("No pair of frames is usable.", "Correlation needs at least two frames without a hole.")
    return AgeLagTwoTime(
        age_s=_mid_ages(n_frames, frames_per_age) * frame_period_s,
        delay_s=delay[known] * float(frame_period_s),
        delay_frames=delay[known],
        c2=c2[:, known].transpose(2, 0, 1),
        n_pairs=pairs[:, known],
        frames_per_age=frames_per_age,
        q_inv_angstrom=qmap.q_inv_angstrom,
    )


def _mid_ages(n_frames: int, frames_per_age: int) -> Float64Array:
    """Mean frame index of each age; the last may be shorter."""
    first = np.arange(0, n_frames, frames_per_age)
    return (first + np.minimum(first + frames_per_age, n_frames) - 1) / 2


def _on_grid(k: int, level: AgeSums, frames_per_age: int, count: int) -> tuple[NDArray[Any], ...]:
    """(count, n_lags, ...) sums of products and of S S' of each bin, and pairs, of one level."""
    used = slice(0, level.n_ages)
    product = np.add.reduceat(level.product[used], level.first_group, axis=2).astype(np.float64)
    found = (product, level.cross[used], level.pairs[used])
    frames = level.chunk << k
    if frames > frames_per_age:
        return tuple(_fitted(np.repeat(one, frames // frames_per_age, axis=0), count) for one in found)
    together = frames_per_age // frames
    edges = np.arange(0, level.n_ages, together)
    return tuple(_fitted(np.add.reduceat(one, edges, axis=0), count) for one in found)


def _fitted(array: NDArray[Any], n: int) -> NDArray[Any]:
    """The first n entries, with zeros where there are fewer."""
    result = np.zeros((n, *array.shape[1:]), array.dtype)
    result[: array.shape[0]] = array[:n]
    return result
