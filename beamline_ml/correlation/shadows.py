"""What stands between sample and detector: a beam stop and its arm, the edge of a flight tube, a dead chip."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import uniform_filter
from skimage.measure import label
from skimage.morphology import dilation, footprint_rectangle

from beamline_ml.errors import GeometryError
from beamline_ml.records import BoolArray, Float64Array, IntArray

WINDOWS_PX = (9, 17, 33)
MIN_EXPECTED_IN_WINDOW = 100.0


def shadows(counts: ArrayLike, labels: ArrayLike) -> IntArray:
    """Find dark regions inside lit q bins.

    A square window of 9, 17 or 33 pixels is dark when it holds no count although the means of its pixels' q bins make
    at least 100 expected there. So many counts, spread over many speckles, are never missing by chance: of 9 speckles
    with 11 expected counts each, all are dark once in 5 10^9 windows, even where speckle is frozen and fully coherent.
    Single dead pixels are the business of :func:`bad_pixels`.

    Parameters
    ----------
    counts
        (rows, cols) counts summed over a few hundred frames; NaN counts as nothing.
    labels
        (rows, cols) dynamic q bins, 0 = unused.

    Returns
    -------
    (rows, cols) integers: 0 = lit or unused, 1, 2, ... the shadows, each a connected region of dark windows.

    Raises
    ------
    GeometryError
        When the two shapes differ.
    """
    total, bins = np.nan_to_num(np.asarray(counts, np.float64)), np.asarray(labels, np.int64)
    if total.shape != bins.shape:
        raise GeometryError(
            f"The counts are {total.shape} (rows, cols) but the labels are {bins.shape}.",
            "Give the sum of frames that the q-map was made for.",
        )
    total = np.where(bins > 0, total, 0.0)
    expected = _mean_of_bin(total, bins)
    dark = np.zeros(bins.shape, np.bool_)
    for width_px in WINDOWS_PX:
        if width_px <= min(bins.shape):
            dark |= _dark_windows(total, expected, width_px)
    return np.asarray(label(dark & (bins > 0), connectivity=2), np.int64)


def _mean_of_bin(total: Float64Array, bins: IntArray) -> Float64Array:
    n = np.bincount(bins.ravel())
    mean = np.bincount(bins.ravel(), total.ravel()) / np.maximum(n, 1)
    mean[0] = 0.0
    return mean[bins]


def _dark_windows(total: Float64Array, expected: Float64Array, width_px: int) -> BoolArray:
    seen, due = (uniform_filter(one, width_px, mode="constant") * width_px**2 for one in (total, expected))
    # Sums come out of a running mean: far less than one count is none.
    middles = (seen < 0.5) & (due >= MIN_EXPECTED_IN_WINDOW)
    if not middles.any():
        return middles
    return np.asarray(dilation(middles, footprint_rectangle((width_px, width_px))), np.bool_)
