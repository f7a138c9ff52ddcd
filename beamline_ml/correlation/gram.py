"""Exact sums over pixels of products of counts, for two sets of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from beamline_ml.errors import CorrelationError
from beamline_ml.records import Float64Array, IntArray

FLOAT32_EXACT = 2**24
FLOAT64_EXACT = 2**53
MIN_FLOAT32_PIXELS = 64


def gram_exact(a: NDArray[Any], b: NDArray[Any], max_count: int) -> IntArray:
    """(n_a, n_b) int64 sums over pixels of a * b, exact.

    Floating-point matrix products of integers are exact as long as every partial sum fits the mantissa; pixels are
    taken in stretches short enough for that.

    Parameters
    ----------
    a, b
        (n_a, n_pixels) and (n_b, n_pixels) unsigned counts.
    max_count
        No count is larger.
    """
    square = max(1, max_count) ** 2
    check_range(max_count, a.shape[1])
    single = FLOAT32_EXACT // square >= MIN_FLOAT32_PIXELS
    dtype = torch.float32 if single else torch.float64
    step = (FLOAT32_EXACT if single else FLOAT64_EXACT) // square
    total = np.zeros((a.shape[0], b.shape[0]), np.int64)
    for lo in range(0, a.shape[1], step):
        part = _tensor(a[:, lo : lo + step], dtype) @ _tensor(b[:, lo : lo + step], dtype).T
        total += part.numpy().astype(np.int64)
    return total


def gram_float(a: Float64Array, b: Float64Array) -> Float64Array:
    """(n_a, n_b) float64 sums over pixels of a * b; the same inputs in the same shapes give the same bits."""
    # Fresh, aligned tensors: BLAS may round differently for operands that are aligned differently.
    return (_tensor(a, torch.float64) @ _tensor(b, torch.float64).T).numpy()


def check_range(max_count: int, n_pixels: int) -> None:
    """Raise :class:`CorrelationError` when counts are so large that exact sums do not fit 64 bits."""
    if max_count**2 * max(1, n_pixels) < 2**62 and max_count**2 < FLOAT64_EXACT:
        return
    raise CorrelationError(
        f"A used pixel holds {max_count} counts, too large for exact sums over {n_pixels} pixels.",
        "It is most likely the detector's mark for a dead or saturated pixel: find such pixels with bad_pixels(frames) "
        "and leave them out (qmap.without(bad)).",
    )


def _tensor(rows: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    numpy_dtype = np.float32 if dtype == torch.float32 else np.float64
    return torch.from_numpy(np.array(rows, numpy_dtype, order="C"))
