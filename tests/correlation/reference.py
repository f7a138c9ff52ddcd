"""C2 and g2 written down from their definitions, one frame pair at a time where it matters, in int64 and float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation import QMap


def numerator(frames: NDArray[Any], qmap: QMap, bin_number: int) -> NDArray[np.int64]:
    """(n, n) sums of products of one bin."""
    counts = frames[:, qmap.labels == bin_number].astype(np.int64)
    return np.einsum("ip,jp->ij", counts, counts)


def plain(frames: NDArray[Any], qmap: QMap, bin_number: int) -> NDArray[np.float64]:
    """(n, n) C2 with the unbiased diagonal."""
    counts = frames[:, qmap.labels == bin_number].astype(np.int64)
    total = counts.sum(axis=1)
    c2 = counts.shape[1] * numerator(frames, qmap, bin_number) / np.outer(total, total)
    np.fill_diagonal(c2, counts.shape[1] * (counts * (counts - 1)).sum(axis=1) / total.astype(float) ** 2)
    return c2


def static(frames: NDArray[Any], qmap: QMap, bin_number: int) -> NDArray[np.float64]:
    """(n, n) C2 after dividing every pixel by its static bin's mean in its frame; diagonal as it comes."""
    mine = qmap.labels == bin_number
    counts = frames[:, mine].astype(np.float64)
    for group in np.unique(qmap.static_labels[mine]):
        inside = qmap.static_labels[mine] == group
        mean = counts[:, inside].mean(axis=1)
        counts[:, inside] /= np.where(mean > 0, mean, 1.0)[:, None]
    total = counts.sum(axis=1)
    return counts.shape[1] * counts @ counts.T / np.outer(total, total)


def symmetric_g2(frames: NDArray[Any], qmap: QMap, bin_number: int, lag: int) -> float:
    """Mean over static bins of <I(t) I(t+lag)> / (<I(t)> <I(t+lag)>), averages over pixels and times."""
    values = []
    for group in np.unique(qmap.static_labels[qmap.labels == bin_number]):
        counts = frames[:, qmap.static_labels == group].astype(np.float64)
        early, late = counts[:-lag], counts[lag:]
        values.append((early * late).mean() / (early.mean() * late.mean()))
    return float(np.mean(values))


def off_diagonal(n: int) -> NDArray[np.bool_]:
    return ~np.eye(n, dtype=bool)
