"""From exact sums to C2: the plain and the static normalisation, and a diagonal without shot noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import Float64Array, IntArray


def plain_c2(numerator: NDArray[Any], frame_sum: NDArray[Any], n_pixels: int) -> Float64Array:
    """P sum_p x_p(t1) x_p(t2) / (S(t1) S(t2)) of one bin; NaN where a frame has no intensity.

    Parameters
    ----------
    numerator
        (n, n) sums of products.
    frame_sum
        (n,) sums S(t) over the P pixels.
    """
    total = np.where(frame_sum > 0, frame_sum, np.nan).astype(np.float64)
    return n_pixels * numerator / total[:, None] / total[None, :]


def static_c2(numerators: NDArray[Any], frame_sums: NDArray[Any], n_pixels: IntArray) -> Float64Array:
    """C2 of one dynamic bin after dividing each pixel by its static bin's mean in that frame.

    The mean of a static bin without counts is taken as 1, so the bin contributes nothing to that frame (the
    convention of the ``sqmap`` smoothing in AdvancedPhotonSource/boost_corr).

    Parameters
    ----------
    numerators
        (n_static, n, n) sums of products of each static bin.
    frame_sums
        (n_static, n) sums of counts.
    n_pixels
        (n_static,) pixels of each static bin.
    """
    weight = static_weight(frame_sums, n_pixels)
    smoothed = np.zeros(numerators.shape[1:], np.float64)
    for one, w in zip(numerators, weight, strict=True):
        smoothed += one * w[:, None] * w[None, :]
    total = (weight * frame_sums).sum(axis=0)
    total = np.where(total > 0, total, np.nan)
    return n_pixels.sum() * smoothed / total[:, None] / total[None, :]


def static_weight(frame_sums: NDArray[Any], n_pixels: IntArray) -> Float64Array:
    """(n_static, n) 1 / mean counts per pixel of each static bin, 1 where it has none."""
    mean = frame_sums / n_pixels[:, None].astype(np.float64)
    return 1.0 / np.where(mean > 0, mean, 1.0)


def unbiased_diagonal(
    squares: NDArray[Any], frame_sums: NDArray[Any], n_pixels: IntArray, shot: NDArray[Any]
) -> Float64Array:
    """(n,) C2(t, t) from sum x (x - 1), which Poisson statistics leave without bias.

    Parameters
    ----------
    squares
        (n_static, n) sums of squares; one static bin gives the plain normalisation.
    frame_sums, n_pixels
        As in :func:`static_c2`.
    shot
        (n_static, n) variance that counting adds to ``squares``: the sum of counts, each times its squared weight.
    """
    weight = static_weight(frame_sums, n_pixels)
    pairs = ((squares - shot) * weight**2).sum(axis=0)
    total = (weight * frame_sums).sum(axis=0)
    return n_pixels.sum() * pairs / np.where(total > 0, total, np.nan) ** 2


def neighbour_diagonal(c2: Float64Array) -> Float64Array:
    """(n,) mean of the elements beside the diagonal, for data whose shot noise is unknown (floating point)."""
    n = c2.shape[0]
    if n < 2:
        return np.full(n, np.nan)
    beside = np.diagonal(c2, 1)
    left, right = np.append(np.nan, beside), np.append(beside, np.nan)
    known = (~np.isnan(left)).astype(np.float64) + ~np.isnan(right)
    total = np.nan_to_num(left) + np.nan_to_num(right)
    result = total / np.where(known > 0, known, np.nan)
    result[np.isnan(np.diagonal(c2))] = np.nan
    return result
