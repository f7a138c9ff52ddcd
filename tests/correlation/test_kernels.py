"""Every way to sum products gives the integers of the definition, in any order of arrival."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from beamline_ml.correlation import TwoTimeAccumulator, two_time
from beamline_ml.correlation.choice import KERNELS, kernel_rates
from beamline_ml.correlation.gather import PixelOrder
from beamline_ml.correlation.gram_int8 import INT8_MAX, INT8_PIXELS, Int8Gram

from . import speckle

EDGES = np.array([0, 1, 64, 700, 1300])
N = 150


def rows_up_to(largest: int, mean: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(largest)
    rows = rng.poisson(mean, (N, EDGES[-1]))
    hot = rng.random(rows.shape) < 0.01
    rows[hot] = rng.integers(0, largest + 1, int(hot.sum()))
    rows[:, 3] = largest
    return np.minimum(rows, largest).astype(np.min_scalar_type(largest))


def expected(rows: np.ndarray) -> np.ndarray:
    counts = rows.astype(np.int64)
    return np.stack([np.tril(counts[:, a:b] @ counts[:, a:b].T) for a, b in pairwise(EDGES)])


@pytest.fixture(params=sorted(KERNELS))
def name(request: pytest.FixtureRequest) -> str:
    """Each kernel that this processor has."""
    if request.param == "int8" and request.param not in kernel_rates():
        pytest.skip("This processor has no exact int8 product.")
    return str(request.param)


@pytest.mark.parametrize("largest", [1, 2, 127, 128, 255, 256, 40_000, INT8_MAX])
@pytest.mark.parametrize("deliveries", [[(0, N)], [(64, 128), (0, 5), (128, N), (5, 64)]], ids=["whole", "in parts"])
def test_kernel(name: str, largest: int, deliveries: list[tuple[int, int]]) -> None:
    rows = rows_up_to(largest)
    arrived = np.zeros_like(rows)
    gram = np.zeros((EDGES.size - 1, N, N), np.int64)
    kernel = KERNELS[name](EDGES)
    n = 0
    for lo, hi in deliveries:
        arrived[lo:hi] = rows[lo:hi]
        n = max(n, hi)
        kernel.add(gram, arrived, lo, hi, n)
    np.testing.assert_array_equal(np.tril(gram), expected(rows))


@pytest.mark.parametrize("first", [1, 20, 63, 64, 65])
def test_kernel_of_a_run_whose_length_nobody_knows(name: str, first: int) -> None:
    """There is room for the rows that came, and it grows with them."""
    rows = rows_up_to(5)
    gram = np.zeros((EDGES.size - 1, N, N), np.int64)
    kernel = KERNELS[name](EDGES)
    for lo, hi in pairwise([0, first, first + 1, 100, N]):
        kernel.add(gram, rows[:hi], lo, hi, hi)
    np.testing.assert_array_equal(np.tril(gram), expected(rows))


@pytest.mark.parametrize("name", ["bits", "tally"])
@pytest.mark.parametrize("largest", [2, 3, 255, 40_000])
@pytest.mark.parametrize(
    "deliveries", [[(0, 1200)], [(600, 1199), (0, 3), (1199, 1200), (3, 600)]], ids=["whole", "in parts"]
)
def test_many_pixels_with_several_photons(name: str, largest: int, deliveries: list[tuple[int, int]]) -> None:
    """More of them in a frame than are added up in one go, in more frames than lie side by side."""
    edges = np.array([0, 700, 701, 1300])
    rng = np.random.default_rng(largest)
    rows = rng.choice([0, 1, 2, largest], (1200, 1300), p=[0.3, 0.1, 0.5, 0.1]).astype(np.min_scalar_type(largest))
    arrived = np.zeros_like(rows)
    gram = np.zeros((edges.size - 1, 1200, 1200), np.int64)
    kernel = KERNELS[name](edges)
    n = 0
    for lo, hi in deliveries:
        arrived[lo:hi] = rows[lo:hi]
        n = max(n, hi)
        kernel.add(gram, arrived, lo, hi, n)
    counts = rows.astype(np.float64)  # exact: all sums stay below 2^53
    for k, (a, b) in enumerate(pairwise(edges)):
        np.testing.assert_array_equal(np.tril(gram[k]), np.tril(counts[:, a:b] @ counts[:, a:b].T))


@pytest.mark.parametrize("name", ["bits", "tally"])
@pytest.mark.parametrize("brightest", [1, 2, 3])
def test_groups_of_more_pixels_than_16_bits_count(name: str, brightest: int) -> None:
    rows = np.ones((3, 140_000), np.uint8)
    rows[1, ::2] = brightest
    gram = np.zeros((1, 3, 3), np.int64)
    KERNELS[name](np.array([0, rows.shape[1]])).add(gram, rows, 0, 3, 3)
    counts = rows.astype(np.int64)
    np.testing.assert_array_equal(np.tril(gram[0]), np.tril(counts @ counts.T))


def test_bytes_do_not_overflow_over_more_pixels_than_one_product_holds() -> None:
    rows = np.full((2, INT8_PIXELS + 1000), 255, np.uint8)
    gram = np.zeros((1, 2, 2), np.int64)
    Int8Gram(np.array([0, rows.shape[1]])).add(gram, rows, 0, 2, 2)
    assert gram[0, 1, 0] == 255**2 * rows.shape[1]


def test_bytes_are_regrouped_as_other_counts_are() -> None:
    """Pieces of 16 neighbours, with ends of rows and of frames, against one pixel at a time."""
    for shape in ((32, 40), (7, 5), (1, 3)):
        qmap = speckle.rings(shape, n_q=1, static_per_q=1)
        for labels in (qmap.labels, np.ones(shape, int)):
            order = PixelOrder.of(type(qmap)(labels))
            frames = np.random.default_rng(0).integers(0, 256, (3, *shape)).astype(np.uint8)
            rows = np.empty((3, order.source.size), np.uint8)
            order.gather(frames, rows)
            np.testing.assert_array_equal(rows, frames.reshape(3, -1)[:, order.source])


def test_a_result_stays_as_it_is_while_frames_go_on_arriving() -> None:
    qmap = speckle.rings()
    frames = speckle.counts(np.random.default_rng(0), qmap, 40, mean=0.5)
    accumulator = TwoTimeAccumulator(qmap, n_frames=40)
    accumulator.add(frames[:20], 0)
    early = accumulator.result()
    lower_sums, c2 = early.lower_sums.copy(), early.c2.copy()
    accumulator.add(frames[20:], 20)
    np.testing.assert_array_equal(early.lower_sums, lower_sums)
    np.testing.assert_array_equal(early.numerator[:, :20, :20], two_time(frames[:20], qmap).numerator)
    np.testing.assert_array_equal(early.c2, c2)
