"""What is wrong with which frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from beamline_ml.correlation.qmap import QMap
from beamline_ml.correlation.rows import RowStore
from beamline_ml.records import BoolArray, Float64Array, FrameQuality

OUTLIER_SIGMAS = 6.0
NEIGHBOURS = 31
MAD_TO_SIGMA = 1.4826
TINY = 1e-9


def frame_quality(
    frames: NDArray[Any], qmap: QMap, saturation: float | None = None, n_frames: int | None = None
) -> FrameQuality:
    """Judge every frame of a run by its used pixels.

    Parameters
    ----------
    frames
        (n, rows, cols) counts.
    qmap
        Which pixels are used.
    saturation
        Counts from which a pixel counts as saturated. Default: the largest value of the integer type.
    n_frames
        Length of the run; frames beyond those given are missing. Default: n.

    Raises
    ------
    CorrelationError, GeometryError
        The frames cannot be read or do not fit the q-map.
    """
    store = RowStore(qmap, n_frames, saturation)
    store.add(frames, 0)
    total = store.group_sums.sum(axis=1) if store.is_integer else store.rows.sum(axis=1)
    return quality_of_totals(store.present, total, store.saturated, qmap.n_bad_pixels)


def quality_of_totals(
    present: BoolArray, total: NDArray[Any], saturated: BoolArray, n_masked_pixels: int = 0
) -> FrameQuality:
    """Judge frames by their total counts (n_frames,) in used pixels."""
    zero = present & (total == 0)
    # Counting statistics bound the scatter from below only where the numbers are counts.
    counting = 1.0 if total.dtype.kind == "i" else 0.0
    return FrameQuality(
        missing=~present,
        zero=zero,
        saturated=present & saturated,
        outlier=_outliers(np.asarray(total, np.float64), present & ~zero, counting),
        n_masked_pixels=n_masked_pixels,
    )


def _outliers(total: Float64Array, usable: BoolArray, counting: float) -> BoolArray:
    """Frames whose total is far from the running median, by the scatter of this run or by counting statistics."""
    flagged = np.zeros(total.size, np.bool_)
    values = total[usable]
    if values.size < 5:
        return flagged
    centre = median_filter(values, size=min(NEIGHBOURS, values.size), mode="nearest")
    residual = values - centre
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(residual)))
    sigma = np.maximum(scatter, counting * np.sqrt(np.maximum(centre, 1.0)) + TINY * np.abs(centre))
    flagged[usable] = np.abs(residual) > OUTLIER_SIGMAS * sigma
    return flagged
