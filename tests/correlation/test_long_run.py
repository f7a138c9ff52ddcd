"""Runs of any length in bounded memory, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.correlation import LongTwoTimeAccumulator, QMap, TwoTimeAccumulator, bin_time, two_time
from beamline_ml.errors import CorrelationError

from . import speckle


@pytest.fixture(scope="module")
def qmap() -> QMap:
    return speckle.rings((20, 25))


@pytest.fixture(scope="module")
def frames(qmap: QMap) -> np.ndarray:
    return speckle.counts(np.random.default_rng(1), qmap, 300, mean=0.6)


@pytest.mark.parametrize("scale", [1, 300, 40_000], ids=["few", "past-int32-runs", "past-uint16"])
def test_the_result_equals_binning_afterwards(qmap: QMap, frames: np.ndarray, scale: int) -> None:
    bright = frames * np.uint32(scale)
    rng = np.random.default_rng(0)
    long = LongTwoTimeAccumulator(qmap, 0.1, max_rows=32)
    blocks = np.arange(0, 300, 13)
    for first in rng.permutation(np.append(blocks, blocks[:5])).tolist():
        long.add(bright[first : first + 13], first)
    assert long.factor == 16
    result, expected = long.result(), bin_time(two_time(bright, qmap, frame_period_s=0.1), 16)
    for name in ("numerator", "frame_sum", "c2"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(result.age_s, expected.age_s)
    assert result.frame_period_s == pytest.approx(1.6)


@pytest.mark.parametrize("seed", range(6))
def test_every_read_out_on_the_way_equals_binning(qmap: QMap, frames: np.ndarray, seed: int) -> None:
    """Rows become whole by their own last frames, by a later block beyond a hole, and after a checkpoint."""
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.choice(np.arange(1, 300), 14, replace=False))
    blocks = [b for b in zip([0, *edges], [*edges, 300], strict=True) if rng.random() > 0.25]
    late = blocks.pop(2)
    long, exact = LongTwoTimeAccumulator(qmap, max_rows=32), TwoTimeAccumulator(qmap)
    for first, last in [*blocks, late]:
        for accumulator in (long, exact):
            accumulator.add(frames[first:last], first)
        if long.n_frames >= long.factor:
            expected = bin_time(exact.result(), long.factor)
            for name in ("numerator", "frame_sum", "c2"):
                np.testing.assert_array_equal(getattr(long.result(), name), getattr(expected, name), err_msg=name)
        long = LongTwoTimeAccumulator.from_arrays(long.to_arrays())


def test_a_hole_longer_than_a_row_is_nan(qmap: QMap, frames: np.ndarray) -> None:
    long = LongTwoTimeAccumulator(qmap, max_rows=40)
    long.add(frames[:100], 0)
    long.add(frames[130:], 130)
    result = long.result()
    assert result.frame_period_s == 8
    assert np.flatnonzero(result.quality.missing).tolist() == [13, 14, 15]
    assert np.isnan(result.c2[:, 14]).all()


def test_memory_does_not_grow_with_the_run(qmap: QMap) -> None:
    long = LongTwoTimeAccumulator(qmap, max_rows=16)
    block = np.ones((64, *qmap.frame_shape), np.uint8)
    for first in range(0, 64 * 40, 64):
        long.add(block, first)
    assert long.factor == 256
    assert long.result().c2.shape == (3, 10, 10)
    np.testing.assert_allclose(long.result().c2[:, 0, 1], 1.0, rtol=1e-6)


def test_misuse_is_refused(qmap: QMap, frames: np.ndarray) -> None:
    with pytest.raises(CorrelationError, match="cannot be halved"):
        LongTwoTimeAccumulator(qmap, max_rows=7)
    with pytest.raises(CorrelationError, match="integer counts"):
        LongTwoTimeAccumulator(qmap).add(frames.astype(float), 0)
    with pytest.raises(CorrelationError, match="No whole row"):
        LongTwoTimeAccumulator(qmap).result()
    with pytest.raises(CorrelationError, match="flat field"):
        LongTwoTimeAccumulator(QMap(qmap.labels, flatfield=np.ones(qmap.frame_shape)))
