"""Coarser time rows, exactly: counts add, so their products add."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.normalize import plain_c2
from beamline_ml.errors import CorrelationError
from beamline_ml.records import BoolArray, Float32Array, FrameQuality, TwoTime


def bin_time(two_time: TwoTime, factor: int) -> TwoTime:
    """C2 of a movie whose frames were added in groups of ``factor``: equal to correlating the summed frames.

    A row is missing only when all of its frames are; frames after the last whole group are left out.

    Parameters
    ----------
    two_time
        With the plain normalisation (a static normalisation needs the sums of each static bin: bin the accumulator's
        frames instead).
    factor
        Frames per new row.

    Raises
    ------
    CorrelationError
        ``factor`` is not between 1 and the number of frames, or the normalisation is static.
    """
    n = two_time.frame_sum.shape[1]
    if not 1 <= factor <= n:
        raise CorrelationError(f"Cannot bin {n} frames by {factor}.", f"Choose a factor from 1 to {n}.")
    if factor == 1:
        return two_time
    if two_time.normalization != "plain":
        raise CorrelationError(
            f"C2 with the {two_time.normalization} normalisation does not add.",
            "Bin C2 with the plain normalisation, or add the frames before correlating.",
        )
    m = n // factor
    numerator = sums_of_blocks(two_time.numerator, factor)
    frame_sum = two_time.frame_sum[:, : m * factor].reshape(-1, m, factor).sum(axis=2)
    quality = bin_quality(two_time.quality, factor)
    return TwoTime(
        c2=_normalised(numerator, frame_sum, two_time.n_pixels, ~quality.missing),
        lower_sums=numerator,
        frame_sum=frame_sum,
        n_pixels=two_time.n_pixels,
        q_inv_angstrom=two_time.q_inv_angstrom,
        age_s=two_time.age_s[: m * factor].reshape(m, factor).mean(axis=1),
        frame_period_s=two_time.frame_period_s * factor,
        normalization="plain",
        quality=quality,
    )


def coarser_rows(two_time: TwoTime, factor: int) -> TwoTime:
    """The same with ``factor`` frames per row, whatever the normalisation.

    The plain normalisation is binned exactly (:func:`bin_time`); of any other, whose sums do not add, each entry is
    the mean of its block.
    """
    if factor == 1 or two_time.normalization == "plain":
        return bin_time(two_time, factor)
    rows = bin_time(replace(two_time, normalization="plain"), factor)
    means = np.stack([_block_means(one, factor) for one in two_time.c2])
    return replace(rows, c2=means, normalization=two_time.normalization)


def _block_means(c2: Float32Array, factor: int) -> Float32Array:
    m = len(c2) // factor
    blocks = c2[: m * factor, : m * factor].reshape(m, factor, m, factor)
    known = np.isfinite(blocks)
    n_known = known.sum(axis=(1, 3))
    total = np.where(known, blocks, 0).sum(axis=(1, 3), dtype=np.float64)
    return np.where(n_known > 0, total / np.maximum(n_known, 1), np.nan).astype(np.float32)


def sums_of_blocks(numerator: NDArray[Any], factor: int) -> NDArray[Any]:
    """(n_q, rows // factor, cols // factor) sums over blocks of ``factor`` squared; what is left over falls away."""
    if factor == 1:
        return numerator
    rows, cols = (n // factor for n in numerator.shape[1:])
    n_q, whole = len(numerator), numerator[:, : rows * factor, : cols * factor]
    # Whole rows are added first: they lie together in memory.
    tall = whole.reshape(n_q, rows, factor, cols * factor).sum(axis=2)
    return tall.reshape(n_q, rows, cols, factor).sum(axis=3)


def _normalised(
    numerator: NDArray[Any], frame_sum: NDArray[Any], n_pixels: NDArray[np.int64], present: BoolArray
) -> Float32Array:
    c2 = np.empty(numerator.shape, np.float32)
    for k in range(numerator.shape[0]):
        shot = None if numerator.dtype.kind == "f" else frame_sum[k]
        plain_c2(numerator[k], frame_sum[k], int(n_pixels[k]), shot, c2[k])
    c2[:, ~present, :] = np.nan
    c2[:, :, ~present] = np.nan
    return c2


def bin_quality(quality: FrameQuality, factor: int) -> FrameQuality:
    """What is wrong with which row of ``factor`` frames."""
    if factor == 1:
        return quality
    m = quality.missing.size // factor

    def grouped(flags: BoolArray) -> BoolArray:
        return flags[: m * factor].reshape(m, factor)

    gone = grouped(quality.missing)
    missing: BoolArray = np.all(gone, axis=1)
    zero: BoolArray = np.all(grouped(quality.zero) | gone, axis=1) & ~missing
    saturated: BoolArray = np.any(grouped(quality.saturated), axis=1)
    outlier: BoolArray = np.any(grouped(quality.outlier), axis=1)
    return FrameQuality(missing, zero, saturated, outlier, quality.n_masked_pixels)
