"""Pixels that do not count photons: dead, hot, stuck at a mark, or overflowing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from beamline_ml.errors import CorrelationError
from beamline_ml.records import BoolArray, Float64Array

NEIGHBOURHOOD = 7
COUNTING_SIGMAS = 7.0
MIN_HOT_FACTOR = 5.0
HOT_OVER_PERCENTILE = 4.0
MIN_EXPECTED_FOR_DEAD = 25.0
SENTINELS = tuple(2**bits - 1 for bits in (8, 12, 16, 24, 31, 32, 64)) + tuple(2**bits - 2 for bits in (16, 32))


def bad_pixels(frames: NDArray[Any], saturation: float | None = None) -> BoolArray:
    """Find pixels that should not be correlated.

    A pixel is bad when it (1) holds NaN, infinity or a negative integer count in any frame, (2) stands at a detector's
    mark (2^16-1, 2^32-1, ... or the largest value of its type) in most frames, or ever at one that lies far above the
    rest of the data, (3) reaches ``saturation``, (4) is hot: its sum over its neighbourhood's median is more than
    4 times what 99 % of the pixels show (bright static speckle is not hot), and more than counting statistics allow,
    or (5) is dead: it never counts although its neighbourhood counts at least 25 photons in the same time.

    Parameters
    ----------
    frames
        (n_frames, rows, cols); a few hundred frames tell more than ten.
    saturation
        Counts from which the detector is no longer linear. Default: not tested.

    Returns
    -------
    (rows, cols) bool, **True = bad**. ``qmap.without(bad)`` takes them out.
    """
    block = np.asarray(frames)
    if block.ndim != 3 or block.shape[0] == 0 or block.dtype.kind not in "iufb":
        raise CorrelationError(
            f"Cannot judge pixels from an array of shape {block.shape} and dtype {block.dtype}.",
            "Give (n_frames, rows, cols) counts.",
        )
    broken = _broken(block) | _marked(block)
    if saturation is not None:
        broken |= (block >= saturation).any(axis=0)
    with np.errstate(invalid="ignore"):  # of broken pixels, which are left out
        counts = np.where(broken, 0.0, block.sum(axis=0, dtype=np.float64))
    around = _neighbourhood_median(counts, broken)
    return broken | _hot(counts, around) | _dead(counts, around)


def _broken(block: NDArray[Any]) -> BoolArray:
    if block.dtype.kind == "f":
        return ~np.isfinite(block).all(axis=0)
    if block.dtype.kind != "i":
        return np.zeros(block.shape[1:], np.bool_)
    negative: BoolArray = block.min(axis=0) < 0
    return negative


def _marked(block: NDArray[Any]) -> BoolArray:
    """Pixels at one of the numbers with which detectors mark gaps, dead pixels and overflow."""
    peak = np.nan_to_num(block.max(axis=0).astype(np.float64), nan=0.0, posinf=0.0)
    floor = np.nan_to_num(block.min(axis=0).astype(np.float64), nan=0.0, neginf=0.0)
    marks = {float(mark) for mark in SENTINELS}
    if block.dtype.kind in "iu":
        marks |= {float(np.iinfo(block.dtype).max)}
    at_mark = np.isin(peak, sorted(marks))
    ordinary = peak[~at_mark]
    ceiling = 4.0 * float(ordinary.max()) if ordinary.size else 0.0
    stuck = at_mark & (floor == peak) & (peak > 0)
    return stuck | (at_mark & (peak >= 255) & (peak > ceiling))


def _neighbourhood_median(counts: Float64Array, broken: BoolArray) -> Float64Array:
    """Median over a 7 x 7 neighbourhood, with broken pixels replaced by the median of the rest first."""
    good = counts[~broken]
    filled = np.where(broken, np.median(good) if good.size else 0.0, counts)
    return median_filter(filled, size=NEIGHBOURHOOD, mode="nearest")


def _hot(counts: Float64Array, around: Float64Array) -> BoolArray:
    expected = np.maximum(around, 1.0)
    factor = max(MIN_HOT_FACTOR, HOT_OVER_PERCENTILE * float(np.percentile(counts / expected, 99)))
    counting = expected + COUNTING_SIGMAS * np.sqrt(expected) + COUNTING_SIGMAS
    return counts > np.maximum(factor * expected, counting)


def _dead(counts: Float64Array, around: Float64Array) -> BoolArray:
    return (counts == 0) & (around >= MIN_EXPECTED_FOR_DEAD)
