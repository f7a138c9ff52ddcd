"""C2 against its definition, and frames with a place instead of an order."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.correlation import QMap, TwoTimeAccumulator, bin_time, two_time
from beamline_ml.correlation.checkpoint import joined
from beamline_ml.errors import CorrelationError, GeometryError
from beamline_ml.records import FrameBlock

from . import reference, speckle


@pytest.fixture(scope="module")
def qmap() -> QMap:
    return speckle.rings()


@pytest.fixture(scope="module")
def frames(qmap: QMap) -> np.ndarray:
    return speckle.counts(np.random.default_rng(1), qmap, 70, mean=0.4)


@pytest.mark.parametrize("scale", [1, 100, 2_000, 70_000], ids=["few", "past-int8", "past-uint16", "past-float32"])
def test_numerators_are_exact_for_any_range_of_counts(qmap: QMap, frames: np.ndarray, scale: int) -> None:
    bright = frames.astype(np.uint32) * scale + (np.arange(frames.size).reshape(frames.shape) % 3).astype(np.uint32)
    result = two_time(bright, qmap)
    for k in range(qmap.n_q):
        np.testing.assert_array_equal(result.numerator[k], reference.numerator(bright, qmap, k + 1))
        np.testing.assert_array_equal(result.frame_sum[k], bright[:, qmap.labels == k + 1].sum(axis=1))
        np.testing.assert_allclose(result.c2[k], reference.plain(bright, qmap, k + 1), rtol=2e-7, atol=0)


def test_sums_that_outgrow_their_type_on_the_way_stay_exact(qmap: QMap, frames: np.ndarray) -> None:
    frames = frames.astype(np.uint32)
    frames[35, 2, 3] = 1_000
    frames[60, 2, 3] = 60_000
    accumulator = TwoTimeAccumulator(qmap)
    parts = []
    for first, last in ((0, 30), (30, 50), (50, 70)):
        accumulator.add(frames[first:last], first)
        early = accumulator.result()
        parts.append(accumulator.to_arrays(since=first))
        reread = TwoTimeAccumulator.from_arrays(joined(parts)).result()
        for k in range(qmap.n_q):
            expected = reference.numerator(frames[:last], qmap, k + 1)
            np.testing.assert_array_equal(early.numerator[k], expected)
            np.testing.assert_array_equal(reread.numerator[k], expected)
    assert [part["gram"].dtype for part in parts] == [np.int16, np.int32, np.int64]


def test_static_normalisation_divides_by_the_static_mean_of_each_frame(qmap: QMap, frames: np.ndarray) -> None:
    shaded = frames * (1 + qmap.static_labels % 2 * 3)
    result = two_time(shaded, qmap, normalization="static")
    other = reference.off_diagonal(len(frames))
    for k in range(qmap.n_q):
        expected = reference.static(shaded, qmap, k + 1)
        np.testing.assert_allclose(result.c2[k][other], expected[other], atol=1e-6)
        np.testing.assert_array_equal(result.numerator[k], reference.numerator(shaded, qmap, k + 1))
    assert np.abs(result.c2 - two_time(shaded, qmap).c2).max() > 0.1


def test_the_diagonal_is_free_of_shot_noise(qmap: QMap) -> None:
    frames = np.random.default_rng(2).poisson(0.3, (300, *qmap.frame_shape))
    for normalization in ("plain", "static"):
        diagonal = np.diagonal(two_time(frames, qmap, normalization).c2, axis1=1, axis2=2)
        assert np.abs(diagonal.mean(axis=1) - 1).max() < 0.05  # shot noise alone would add 1/0.3 = 3.3


def test_missing_frames_are_nan_rows_at_their_place(qmap: QMap, frames: np.ndarray) -> None:
    accumulator = TwoTimeAccumulator(qmap, n_frames=75)
    accumulator.add(frames[:20], 0)
    accumulator.add(frames[24:], 24)
    result = accumulator.result()
    gone = np.isin(np.arange(75), [20, 21, 22, 23, 70, 71, 72, 73, 74])
    np.testing.assert_array_equal(result.quality.missing, gone)
    assert np.isnan(result.c2[:, gone]).all()
    assert np.isnan(result.c2[:, :, gone]).all()
    whole = two_time(frames, qmap)
    kept = ~gone[:70]
    np.testing.assert_array_equal(result.c2[:, ~gone][:, :, ~gone], whole.c2[:, kept][:, :, kept])


def test_bad_frames_are_masked_and_never_looked_at(qmap: QMap, frames: np.ndarray) -> None:
    broken = frames.astype(np.uint32)
    broken[11] = 2**32 - 1
    result = two_time(broken, qmap, bad_frames=[11])
    assert np.flatnonzero(result.quality.missing).tolist() == [11]
    assert not result.quality.saturated.any()
    keep = np.arange(70) != 11
    np.testing.assert_array_equal(
        result.numerator[:, keep][:, :, keep], two_time(frames, qmap).numerator[:, keep][:, :, keep]
    )


def test_dark_frames_are_nan_not_zero_and_are_named(qmap: QMap, frames: np.ndarray) -> None:
    dark = frames.copy()
    dark[30:35] = 0
    result = two_time(dark, qmap)
    assert np.flatnonzero(result.quality.zero).tolist() == [30, 31, 32, 33, 34]
    assert not result.quality.missing.any()
    assert np.isnan(result.c2[:, 30]).all()
    assert np.isfinite(result.c2[:, :30, :30]).all()


def test_floating_point_frames_agree_and_their_diagonal_follows_the_neighbours(qmap: QMap, frames: np.ndarray) -> None:
    exact, floating = two_time(frames, qmap), two_time(frames.astype(np.float32), qmap)
    other = reference.off_diagonal(len(frames))
    np.testing.assert_allclose(floating.c2[:, other], exact.c2[:, other], rtol=1e-6)
    assert floating.numerator.dtype == np.float64
    expected = (floating.c2[:, 4, 5] + floating.c2[:, 5, 6]) / 2
    np.testing.assert_allclose(floating.c2[:, 5, 5], expected, rtol=1e-6)


@pytest.mark.parametrize("normalization", ["plain", "static"])
def test_flat_field_divides_counts_and_keeps_the_diagonal_unbiased(normalization: str) -> None:
    base = speckle.rings((48, 48), n_q=2)
    rng = np.random.default_rng(3)
    gain = rng.uniform(0.5, 2.0, base.frame_shape)
    frames = rng.poisson(2.0 * gain, (120, *base.frame_shape))
    flat = QMap(base.labels, base.static_labels, flatfield=gain)
    corrected = two_time(frames / gain, base, normalization)
    result = two_time(frames, flat, normalization)
    other = reference.off_diagonal(120)
    np.testing.assert_allclose(result.c2[:, other], corrected.c2[:, other], atol=1e-6)
    diagonal = np.diagonal(result.c2, axis1=1, axis2=2)
    assert abs(diagonal.mean() - 1) < 0.01
    assert two_time(frames, base).c2[:, other].mean() > 1.1  # uncorrected gain looks like static speckle


def test_blocks_of_frames_are_taken_from_an_iterator(qmap: QMap, frames: np.ndarray) -> None:
    blocks = (FrameBlock(i, frames[i : i + 16]) for i in (32, 0, 64, 16, 48))
    np.testing.assert_array_equal(two_time(blocks, qmap).c2, two_time(frames, qmap).c2)


def test_a_checkpoint_goes_on_where_it_stopped(qmap: QMap, frames: np.ndarray) -> None:
    accumulator = TwoTimeAccumulator(qmap, frame_period_s=0.5, normalization="static", bad_frames=[3])
    accumulator.add(frames[:33], 0)
    resumed = TwoTimeAccumulator.from_arrays(accumulator.to_arrays())
    for one in (accumulator, resumed):
        one.add(frames[20:], 20)
    first, second = accumulator.result(), resumed.result()
    np.testing.assert_array_equal(first.c2, second.c2)
    np.testing.assert_array_equal(first.q_inv_angstrom, second.q_inv_angstrom)
    assert second.age_s[-1] == 34.5


@pytest.mark.parametrize("dtype", [np.uint16, np.float64])
def test_binning_equals_correlating_summed_frames(qmap: QMap, frames: np.ndarray, dtype: type) -> None:
    summed = frames[:69].reshape(23, 3, *qmap.frame_shape).sum(axis=1).astype(dtype)
    binned = bin_time(two_time(frames.astype(dtype), qmap, frame_period_s=2.0), 3)
    expected = two_time(summed, qmap)
    np.testing.assert_allclose(binned.c2, expected.c2, rtol=0 if dtype is np.uint16 else 1e-6)
    np.testing.assert_allclose(binned.numerator, expected.numerator, rtol=0 if dtype is np.uint16 else 1e-12)
    assert binned.frame_period_s == 6.0
    np.testing.assert_allclose(binned.age_s[:2], [2.0, 8.0])


def test_a_binned_row_is_missing_only_when_all_its_frames_are(qmap: QMap, frames: np.ndarray) -> None:
    binned = bin_time(two_time(frames, qmap, bad_frames=[4, 8, 9, 10, 11]), 4)
    assert np.flatnonzero(binned.quality.missing).tolist() == [2]
    holed = frames.copy()
    holed[[4, 8, 9, 10, 11]] = 0
    expected = two_time(holed[:68].reshape(17, 4, *qmap.frame_shape).sum(axis=1), qmap)
    keep = np.arange(17) != 2
    np.testing.assert_array_equal(binned.c2[:, keep][:, :, keep], expected.c2[:, keep][:, :, keep])


def test_repeating_a_frame_with_other_counts_is_refused(qmap: QMap, frames: np.ndarray) -> None:
    accumulator = TwoTimeAccumulator(qmap)
    accumulator.add(frames[:10], 0)
    accumulator.add(frames[5:10], 5)
    with pytest.raises(CorrelationError, match="Frame 7 arrived twice"):
        accumulator.add(frames[20:23], 7)


@pytest.mark.parametrize("factor", [0, 71])
def test_binning_by_a_senseless_factor_is_refused(qmap: QMap, frames: np.ndarray, factor: int) -> None:
    with pytest.raises(CorrelationError, match="Choose a factor"):
        bin_time(two_time(frames, qmap), factor)


def test_a_transposed_map_is_named_as_such(frames: np.ndarray, qmap: QMap) -> None:
    with pytest.raises(GeometryError, match=r"\(32, 40\).*\(40, 32\).*transposed"):
        two_time(frames, QMap(qmap.labels.T))
