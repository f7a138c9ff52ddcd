"""Lags, definitions and errors of other programs, against numbers that those programs computed."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.correlation import MultiTauAccumulator, QMap, g2_from_two_time, multi_tau, two_time
from beamline_ml.errors import CorrelationError

from . import speckle

# scikit-beam 0.0.27: multi_tau_auto_corr(3, 8, ...), and one_time_from_two_time of two_time_corr(...), of movie().
SCIKIT_BEAM_LAGS = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28]
SCIKIT_BEAM_G2 = np.reshape(
    [
        *[1.033562299468077, 0.989244192542594, 0.960335614655581, 0.980704274566137, 0.992713368443836],
        *[1.053895303263742, 1.026884352535915, 1.026553568135718, 0.984247962779684, 1.005655902207626],
        *[1.034224764866597, 1.002006888914555, 1.041914064708911, 1.017027084369092, 1.014755202691104],
        *[1.032478465474939, 0.985943878050395, 0.979566432751944, 0.974132001255501, 0.997112094431589],
        *[1.029390327319212, 1.034574083347243, 1.022965702652399, 0.977541337063824, 0.992421408623914],
        *[1.03806057754458, 1.00215922546493, 1.046441374310227, 1.022606405429589, 1.001447332852766],
    ],
    (2, 15),
)
SCIKIT_BEAM_ONE_TIME = [
    [1.021874701250969, 0.988389310602519, 1.002745232655091, 0.983209891580288],
    [1.025240727239184, 0.994832058831716, 0.99589053788056, 0.975933617817139],
]
SCIKIT_BEAM_ERRORS = [
    [0.006473298297847, 0.00904535551389, 0.012974070820057, 0.012283089056468],
    [0.008235539321579, 0.01401921371123, 0.010813669595216, 0.012330307919781],
]


def movie() -> np.ndarray:
    t, y, x = np.ogrid[:40, :6, :8]
    return ((t * t * 3 + x * 5 + y * 7 + t * x * y + (t // 3) * x) % 7 + 1).astype(np.uint8)


@pytest.fixture(scope="module")
def qmap() -> QMap:
    labels = np.zeros((6, 8), int)
    labels[:3] = 1
    labels[3:, :5] = 2
    return QMap(labels)


def test_scikit_beam_multi_tau(qmap: QMap) -> None:
    found = multi_tau(movie(), qmap, convention="scikit-beam")
    assert found.delay_frames[:15].tolist() == SCIKIT_BEAM_LAGS
    np.testing.assert_allclose(found.g2[:, :15], SCIKIT_BEAM_G2, rtol=1e-12)


def test_scikit_beam_one_time_from_two_time_and_its_errors(qmap: QMap) -> None:
    c2 = two_time(movie(), qmap)
    lags = np.array([1, 2, 5, 11])
    found = g2_from_two_time(c2, "mean_of_ratios", delay_frames=lags, error="diagonal_std")
    np.testing.assert_allclose(found.g2, SCIKIT_BEAM_ONE_TIME, rtol=1e-6)
    np.testing.assert_allclose(found.g2_err, SCIKIT_BEAM_ERRORS, rtol=1e-5)
    assert found.error_method == "diagonal_std"
    assert found.replicates is not None
    honest = g2_from_two_time(c2, "mean_of_ratios", delay_frames=lags)
    np.testing.assert_array_equal(found.replicates, honest.replicates)


def test_errors_along_diagonals_leave_holes_out(qmap: QMap) -> None:
    frames = movie()
    lags = np.arange(1, 10)
    c2 = two_time(frames, qmap, bad_frames=[7, 8])
    found = g2_from_two_time(c2, delay_frames=lags, error="diagonal_std")
    for j, lag in enumerate(lags):
        values = np.diagonal(c2.c2[0], lag)
        values = values[np.isfinite(values)].astype(float)
        assert found.g2_err[0, j] == pytest.approx(values.std() / np.sqrt(values.size), rel=1e-9)


def test_pixel_std_is_the_scatter_of_the_pixels_own_g2() -> None:
    qmap = speckle.rings()
    frames = speckle.counts(np.random.default_rng(1), qmap, 203, mean=2.0)
    frames[:, qmap.labels == 1] *= np.random.default_rng(2).random(int((qmap.labels == 1).sum())) > 0.1  # dead pixels
    found = multi_tau(frames, qmap, error="pixel_std")
    plain = multi_tau(frames, qmap)
    assert found.error_method == "pixel_std"
    np.testing.assert_array_equal(found.g2, plain.g2)
    np.testing.assert_array_equal(found.replicates, plain.replicates)
    for j, delay in enumerate(found.delay_frames.tolist()):
        level = max(0, int(np.ceil(np.log2(delay / 8))))
        n, lag = 203 >> level, delay >> level
        coarse = frames[: n << level].reshape(n, 1 << level, *frames.shape[1:]).sum(axis=1).astype(float)
        early, late = coarse[:-lag], coarse[lag:]
        below = early.mean(axis=0) * late.mean(axis=0)
        g2 = np.divide((early * late).mean(axis=0), below, out=np.zeros_like(below), where=below > 0)
        for q in range(qmap.n_q):
            mine = g2[qmap.labels == q + 1]
            assert found.g2_err[q, j] == pytest.approx(mine.std(ddof=1) / np.sqrt(mine.size), rel=1e-9)


def test_pixel_std_does_not_depend_on_splits_and_restarts() -> None:
    qmap = speckle.rings((12, 15))
    frames = speckle.counts(np.random.default_rng(1), qmap, 90, mean=1.0)
    accumulator = MultiTauAccumulator(qmap, error="pixel_std", bad_frames=[40])
    for first, last in ((50, 70), (0, 7), (7, 50), (70, 90)):
        accumulator.add(frames[first:last], first)
        accumulator = MultiTauAccumulator.from_arrays(accumulator.to_arrays())
    expected = multi_tau(frames, qmap, error="pixel_std", bad_frames=[40])
    assert accumulator.result().g2_err.tobytes() == expected.g2_err.tobytes()


def test_unknown_errors_are_refused(qmap: QMap) -> None:
    with pytest.raises(CorrelationError, match="'std' is unknown"):
        multi_tau(movie(), qmap, error="std")
    with pytest.raises(CorrelationError, match="'pixel_std' is unknown"):
        g2_from_two_time(two_time(movie(), qmap), error="pixel_std")
