"""From exact sums to C2: the plain and the static normalisation, and a diagonal without shot noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.symmetry import normalised
from beamline_ml.records import BoolArray, Float32Array, Float64Array, IntArray


def plain_c2(
    numerator: NDArray[Any],
    frame_sum: NDArray[Any],
    n_pixels: int,
    shot: NDArray[Any] | None,
    c2: Float32Array,
    first: int = 0,
) -> None:
    """Fill ``c2`` (n, n) with P sum_p x_p(t1) x_p(t2) / (S(t1) S(t2)) of one bin; NaN where a frame has no intensity.

    With ``first``, ``c2`` and ``numerator`` are whole rows (n - first, n) from there on, and ``shot`` must be known.

    Parameters
    ----------
    numerator
        (n, n) sums of products, the lower triangle.
    frame_sum
        (n,) sums S(t) over the P pixels.
    shot
        (n,) what counting adds to the diagonal of ``numerator``; None: unknown, the diagonal follows its neighbours.
    """
    total = np.where(frame_sum > 0, frame_sum, np.nan).astype(np.float64)
    weight = 1.0 / total
    if shot is None:
        beside = n_pixels * np.diagonal(numerator, -1) * weight[1:] * weight[:-1]
        diagonal = neighbour_diagonal(beside, np.isnan(weight))
    else:
        diagonal = n_pixels * (np.diagonal(numerator, first) - shot[first:]) / total[first:] ** 2
    normalised(numerator, weight, float(n_pixels), diagonal, c2, first)


def static_c2(
    numerators: NDArray[Any],
    frame_sums: NDArray[Any],
    n_pixels: IntArray,
    shot: NDArray[Any] | None,
    c2: Float32Array,
) -> None:
    """Fill ``c2`` (n, n) with C2 of one dynamic bin after dividing each pixel by its static bin's mean in that frame.

    The mean of a static bin without counts is taken as 1, so the bin contributes nothing to that frame (the
    convention of the ``sqmap`` smoothing in AdvancedPhotonSource/boost_corr).

    Parameters
    ----------
    numerators
        (n_static, n, n) sums of products of each static bin, the lower triangles.
    frame_sums, shot
        (n_static, n), as in :func:`plain_c2`.
    n_pixels
        (n_static,) pixels of each static bin.
    """
    weight = static_weight(frame_sums, n_pixels)
    smoothed = np.zeros(numerators.shape[1:], np.float64)
    for one, w in zip(numerators, weight, strict=True):
        smoothed += one * w[:, None] * w[None, :]
    smoothed_shot = None if shot is None else (shot * weight**2).sum(axis=0)
    plain_c2(smoothed, (weight * frame_sums).sum(axis=0), int(n_pixels.sum()), smoothed_shot, c2)


def static_weight(frame_sums: NDArray[Any], n_pixels: IntArray) -> Float64Array:
    """(n_static, n) 1 / mean counts per pixel of each static bin, 1 where it has none."""
    mean = frame_sums / n_pixels[:, None].astype(np.float64)
    return 1.0 / np.where(mean > 0, mean, 1.0)


def neighbour_diagonal(beside: Float64Array, dark: BoolArray) -> Float64Array:
    """(n,) mean of the elements beside the diagonal, for data whose shot noise is unknown (floating point).

    Parameters
    ----------
    beside
        (n - 1,) C2(t, t + 1).
    dark
        (n,) frames whose diagonal is NaN.
    """
    left, right = np.append(np.nan, beside), np.append(beside, np.nan)
    known = (~np.isnan(left)).astype(np.float64) + ~np.isnan(right)
    total = np.nan_to_num(left) + np.nan_to_num(right)
    return np.where(dark | (known == 0), np.nan, total / np.maximum(known, 1.0))
