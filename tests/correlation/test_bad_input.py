"""Every kind of bad input has a defined answer: an error that names it, or a mask; never a wrong number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from beamline_ml.correlation import (
    LongTwoTimeAccumulator,
    MultiTauAccumulator,
    QMap,
    TwoTimeAccumulator,
    bad_pixels,
    multi_tau,
    multi_tau_events,
    two_time,
)
from beamline_ml.errors import CorrelationError, GeometryError

from . import reference, speckle


@pytest.fixture(scope="module")
def qmap() -> QMap:
    return speckle.rings()


@pytest.fixture
def frames(qmap: QMap) -> np.ndarray:
    return speckle.counts(np.random.default_rng(1), qmap, 60, mean=0.5)


def used_pixel(qmap: QMap) -> tuple[int, int]:
    row, col = np.argwhere(qmap.labels == 2)[40]
    return int(row), int(col)


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        (np.int32, -1, "negative counts"),
        (np.uint32, 2**32 - 1, "too large for exact sums"),
        (np.float64, np.nan, "1 used pixels are NaN or infinite"),
        (np.float64, np.inf, "1 used pixels are NaN or infinite"),
    ],
)
@pytest.mark.parametrize("correlate", [two_time, multi_tau])
def test_marked_pixels_are_refused_until_bad_pixels_takes_them_out(
    qmap: QMap, frames: np.ndarray, dtype: type, value: float, message: str, correlate: Any
) -> None:
    row, col = used_pixel(qmap)
    broken = frames.astype(dtype)
    broken[:, row, col] = value
    if correlate is two_time or dtype is not np.uint32:  # multi-tau sums 64 bits of any count
        with pytest.raises(CorrelationError, match=message):
            correlate(broken, qmap)
    bad = bad_pixels(broken)
    assert np.argwhere(bad).tolist() == [[row, col]]
    cleaned = qmap.without(bad)
    integers = np.where(bad, 0, broken).astype(np.uint16)
    result = two_time(integers, cleaned)
    np.testing.assert_array_equal(result.numerator[1], reference.numerator(frames, cleaned, 2))
    assert result.quality.n_masked_pixels == 1


def test_hot_pixels_correlate_as_they_are_unless_masked(qmap: QMap, frames: np.ndarray) -> None:
    row, col = used_pixel(qmap)
    frames[:, row, col] = 11_810
    result = two_time(frames, qmap)
    np.testing.assert_array_equal(result.numerator[1], reference.numerator(frames, qmap, 2))


def test_a_frame_of_nothing_but_nan_is_a_missing_frame(qmap: QMap, frames: np.ndarray) -> None:
    floats = frames.astype(np.float32)
    floats[7] = np.nan
    result = two_time(floats, qmap)
    assert np.flatnonzero(result.quality.missing).tolist() == [7]
    assert np.isnan(result.c2[:, 7]).all()
    assert np.isfinite(result.c2[:, 8:, 8:]).all()


def test_a_bin_without_counts_is_nan_and_the_others_are_not(qmap: QMap, frames: np.ndarray) -> None:
    frames[:, qmap.labels == 2] = 0
    for normalization in ("plain", "static"):
        result = two_time(frames, qmap, normalization)
        assert np.isnan(result.c2[1]).all()
        assert np.isfinite(result.c2[[0, 2]]).all()


@pytest.mark.parametrize("shape", [(60,), (60, 32), (2, 60, 32, 40)])
def test_arrays_that_are_no_frames_are_refused(qmap: QMap, shape: tuple[int, ...]) -> None:
    with pytest.raises(CorrelationError, match="The frames have shape"):
        two_time(np.zeros(shape, np.uint8), qmap)


def test_frames_of_another_detector_are_refused_by_shape(qmap: QMap) -> None:
    with pytest.raises(GeometryError, match=r"\(33, 40\).*\(32, 40\)"):
        two_time(np.zeros((5, 33, 40), np.uint8), qmap)


@pytest.mark.parametrize("dtype", [complex, object, "U3", "M8[s]"])
def test_types_that_are_no_counts_are_refused(qmap: QMap, dtype: Any) -> None:
    with pytest.raises(CorrelationError, match="dtype"):
        two_time(np.zeros((5, 32, 40)).astype(dtype), qmap)


@pytest.mark.parametrize("period", [0.0, -1.0, np.nan, np.inf, np.zeros((2, 2))])
def test_a_frame_period_that_is_none_is_refused(qmap: QMap, frames: np.ndarray, period: Any) -> None:
    for refusing in (two_time, multi_tau):
        with pytest.raises(CorrelationError, match="frame period"):
            refusing(frames, qmap, frame_period_s=period)
    with pytest.raises(CorrelationError, match="frame period"):
        LongTwoTimeAccumulator(qmap, period)
    with pytest.raises(CorrelationError, match="frame period"):
        multi_tau_events([1], [2], qmap, 5, period)


def test_a_frame_period_may_come_as_an_array_of_one(qmap: QMap, frames: np.ndarray) -> None:
    assert two_time(frames, qmap, frame_period_s=np.array([[0.5]])).frame_period_s == 0.5
    assert multi_tau(frames, qmap, frame_period_s=np.array([[0.5]])).delay_s[0] == 0.5


def test_frames_outside_the_run_are_refused(qmap: QMap, frames: np.ndarray) -> None:
    accumulator = TwoTimeAccumulator(qmap, n_frames=50)
    with pytest.raises(CorrelationError, match=r"0 to 59 lie outside the run of 50"):
        accumulator.add(frames, 0)
    with pytest.raises(CorrelationError, match="-3 to 56"):
        TwoTimeAccumulator(qmap).add(frames, -3)


@pytest.mark.parametrize("accumulator", [TwoTimeAccumulator, MultiTauAccumulator])
def test_a_stop_without_data_is_refused(qmap: QMap, accumulator: Any) -> None:
    with pytest.raises(CorrelationError, match="No usable frame"):
        accumulator(qmap).result()


def test_integers_and_floats_do_not_mix(qmap: QMap, frames: np.ndarray) -> None:
    accumulator = TwoTimeAccumulator(qmap)
    accumulator.add(frames[:5], 0)
    with pytest.raises(CorrelationError, match="Integer and floating-point"):
        accumulator.add(frames[5:].astype(float), 5)


def test_big_endian_and_strided_frames_are_read_as_what_they_are(qmap: QMap, frames: np.ndarray) -> None:
    expected = two_time(frames, qmap).numerator
    np.testing.assert_array_equal(two_time(frames.astype(">u2"), qmap).numerator, expected)
    wide = np.zeros((60, 32, 80), np.uint16)
    wide[:, :, ::2] = frames
    np.testing.assert_array_equal(two_time(wide[:, :, ::2], qmap).numerator, expected)
    np.testing.assert_array_equal(two_time(frames > 0, qmap).numerator[0], reference.numerator(frames > 0, qmap, 1))


def test_unknown_normalisation_is_refused(qmap: QMap, frames: np.ndarray) -> None:
    with pytest.raises(CorrelationError, match="'symmetric' is unknown"):
        two_time(frames, qmap, "symmetric")


def test_dark_frames_and_dark_bins_take_no_part_in_multi_tau(qmap: QMap, frames: np.ndarray) -> None:
    frames[20:24] = 0
    frames[:, qmap.labels == 2] = 0
    for definition in ("symmetric", "ratio_of_sums", "mean_of_ratios"):
        g2 = multi_tau(frames, qmap, definition=definition)
        assert np.isnan(g2.g2[1]).all()
        assert np.isfinite(g2.g2[[0, 2], :8]).all()
    c2 = two_time(frames, qmap).c2[0].astype(float)
    np.testing.assert_allclose(g2.g2[0, 0], np.nanmean(np.diagonal(c2, 1)), rtol=1e-6)


def test_a_stream_that_starts_again_is_refused_and_changes_nothing(qmap: QMap, frames: np.ndarray) -> None:
    accumulator = TwoTimeAccumulator(qmap, n_frames=60)
    accumulator.add(frames[:30], 0)
    before = accumulator.result().c2.copy()
    with pytest.raises(CorrelationError, match="Frame 0 arrived twice with different counts"):
        accumulator.add(frames[30:], 0)
    assert accumulator.result().c2.tobytes() == before.tobytes()


@pytest.mark.parametrize("accumulator", [TwoTimeAccumulator, MultiTauAccumulator, LongTwoTimeAccumulator])
def test_an_empty_block_is_no_news(qmap: QMap, frames: np.ndarray, accumulator: Any) -> None:
    one, other = accumulator(qmap), accumulator(qmap)
    one.add(frames, 0)
    other.add(frames[:10], 0)
    other.add(frames[:0], 10)
    other.add(frames[10:], 10)
    first, second = one.result(), other.result()
    for name in ("c2",) if accumulator is not MultiTauAccumulator else ("g2", "g2_err"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
