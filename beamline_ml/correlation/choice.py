"""Which way to sum products is quickest for these frames on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.bits import BitGram, TallyGram
from beamline_ml.correlation.events import EventGram
from beamline_ml.correlation.gram import MatrixGram, PairKernel
from beamline_ml.correlation.gram_int8 import INT8_MAX, Int8Gram
from beamline_ml.records import IntArray

KERNELS: dict[str, Callable[[IntArray], PairKernel]] = {
    "float": MatrixGram,
    "int8": Int8Gram,
    "bits": BitGram,
    "tally": TallyGram,
    "events": EventGram,
}
EXTRA_PAIR_S = 5e-11
"""Time to add one pixel with several photons to the sum with another frame."""
SAMPLE = (512, 8192)
SPARSE_SAMPLE = (1536, 4096)
"""More frames than lie side by side in the bits of a pixel."""
REPEATS = 6
FIRST_SAMPLE = (64, 1024)
"""Enough to see that the processor does not know int8 products, which then are very slow."""
FIRST_REPEATS = 16
"""So small a product looks slow whenever one of its threads waits for a processor that is busy."""
SLOW = 1e9
SPARSE_KERNELS = ("bits", "tally", "events")
SPARSE = 0.05
N_SAMPLED_ROWS = 16


def choose_kernel(rows: NDArray[Any], max_count: int) -> str:
    """Name of the kernel with the least expected time for pairs of frames like these (n, n_pixels)."""
    rates = kernel_rates()
    sample = rows[:: max(1, rows.shape[0] // N_SAMPLED_ROWS)]
    n_pixels = sample.shape[1]
    occupied, several = float((sample > 0).mean()), float((sample > 1).mean())
    digits = 1 if max_count < 256 else 4
    # Pixels with several photons are added up beside the others, and go through the pairs of the event kernel as well.
    extra_s = 2 * several * n_pixels * EXTRA_PAIR_S

    def of_events(share: float) -> float:
        # Bright pixels have more pairs than their share: 2 is the square of an exponential distribution.
        return 2 * share**2 * n_pixels / rates["events"]

    time_s = {
        "float": n_pixels / rates["float"],
        "bits": n_pixels / rates["bits"] + extra_s + of_events(several),
        "tally": occupied * n_pixels / rates["tally"] + extra_s + of_events(several),
        "events": of_events(occupied),
    }
    if max_count <= INT8_MAX and "int8" in rates:
        time_s["int8"] = digits * n_pixels / rates["int8"]
    return min(time_s, key=lambda name: time_s[name])


@cache
def kernel_rates() -> dict[str, float]:
    """Products a second of each kernel on this machine, measured once; a kernel that errs is left out.

    The int8 product is not part of torch's public interface and some processors saturate in it: it counts only after
    its sums equal those of 64-bit integers.
    """
    rates = {}
    for name in KERNELS:
        rate = _rate(name, FIRST_SAMPLE, FIRST_REPEATS)
        if rate is not None and (name != "int8" or rate > SLOW):
            rate = _rate(name, SPARSE_SAMPLE if name in SPARSE_KERNELS else SAMPLE, REPEATS)
        if rate is not None:
            rates[name] = rate
    return rates


def _rate(name: str, shape: tuple[int, int], repeats: int) -> float | None:
    """Products a second, or None where the sums are wrong or the machine cannot."""
    rng = np.random.default_rng(0)
    rows = ((rng.random(shape) < SPARSE) if name in SPARSE_KERNELS else rng.integers(0, 256, shape)).astype(np.uint8)
    took = _time(name, rows, repeats)
    n_products = shape[0] * (shape[0] + 1) / 2 * shape[1] * {"events": SPARSE**2, "tally": SPARSE}.get(name, 1.0)
    return None if took is None else n_products / took


def _time(name: str, rows: NDArray[Any], repeats: int) -> float | None:
    """Best of several, or None when the sums are wrong or the machine cannot."""
    edges = np.array([0, rows.shape[1]])
    # Exact: sums of so few photons stay below 2^24, and all others below 2^53.
    wide: NDArray[Any] = rows.astype(np.float32 if rows.max() == 1 else np.float64)
    expected = np.tril(wide @ wide.T)
    best = np.inf
    for _ in range(repeats):
        gram = np.full((1, rows.shape[0], rows.shape[0]), 0, np.int32)  # unlike that of zeros, its memory is there
        kernel = KERNELS[name](edges)
        began = time.thread_time()
        try:
            kernel.add(gram, rows, 0, rows.shape[0], rows.shape[0])
        except RuntimeError:  # torch has no int8 product on this machine
            return None
        best = min(best, time.thread_time() - began)
        if not np.array_equal(np.tril(gram[0]), expected):
            return None
    return best
