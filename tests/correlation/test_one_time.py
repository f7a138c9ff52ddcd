"""g2 from C2, and errors that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.correlation import QMap, g2_from_two_time, two_time
from beamline_ml.errors import CorrelationError

from . import reference, speckle


@pytest.fixture(scope="module")
def qmap() -> QMap:
    return speckle.rings()


@pytest.fixture(scope="module")
def frames(qmap: QMap) -> np.ndarray:
    return speckle.counts(np.random.default_rng(1), qmap, 120, mean=0.4)


def test_both_definitions_follow_the_diagonals(qmap: QMap, frames: np.ndarray) -> None:
    correlated = two_time(frames, qmap, frame_period_s=0.5)
    ratio = g2_from_two_time(correlated, "ratio_of_sums")
    mean = g2_from_two_time(correlated, "mean_of_ratios")
    assert ratio.delay_frames[0] == 1
    np.testing.assert_array_equal(ratio.delay_s, ratio.delay_frames * 0.5)
    for k in range(qmap.n_q):
        products = reference.numerator(frames, qmap, k + 1)
        total = frames[:, qmap.labels == k + 1].sum(axis=1, dtype=np.int64)
        for j, lag in enumerate(ratio.delay_frames):
            above = np.diagonal(products, lag).sum() * qmap.n_pixels[k]
            assert ratio.g2[k, j] == pytest.approx(above / (total[lag:] * total[:-lag]).sum(), abs=1e-6)
            expected = np.diagonal(reference.plain(frames, qmap, k + 1), lag).mean()
            assert mean.g2[k, j] == pytest.approx(expected, abs=1e-6)


def test_missing_and_dark_frames_are_left_out(qmap: QMap, frames: np.ndarray) -> None:
    whole = g2_from_two_time(two_time(frames, qmap), delay_frames=np.arange(1, 20))
    holed = frames.copy()
    holed[50:54] = 0
    gaps = g2_from_two_time(two_time(holed, qmap, bad_frames=range(80, 90)), delay_frames=np.arange(1, 20))
    assert np.isfinite(gaps.g2).all()
    np.testing.assert_allclose(gaps.g2, whole.g2, atol=0.1)


def test_part_of_the_run_can_be_looked_at(qmap: QMap, frames: np.ndarray) -> None:
    part = g2_from_two_time(two_time(frames, qmap), delay_frames=np.arange(1, 9), first_frame=30, last_frame=90)
    alone = g2_from_two_time(two_time(frames[30:90], qmap), delay_frames=np.arange(1, 9))
    np.testing.assert_array_equal(part.g2, alone.g2)


@pytest.mark.parametrize(("relaxation", "mean"), [(8, 1.0), (60, 1.0), (15, 0.05)], ids=["fast", "slow", "faint"])
def test_standard_errors_cover_the_truth_in_68_percent(relaxation: int, mean: float) -> None:
    """For decays from a twentieth to a third of the run, with the shot noise of bright and of faint frames."""
    qmap = QMap(np.ones((1, 300), int))
    inside, lags = [], np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96])
    for seed in range(100):
        rng = np.random.default_rng(seed)
        intensity = speckle.ornstein_uhlenbeck(rng, 200, 300, relaxation)
        g2 = g2_from_two_time(two_time(rng.poisson(mean * intensity)[:, None, :], qmap), delay_frames=lags)
        inside.append(np.abs(g2.g2[0] - 1 - np.exp(-2 * lags / relaxation)) < g2.g2_err[0])
    assert np.mean(inside) == pytest.approx(0.68, abs=0.05)
    # Also where the curve has come down to its baseline: two lags, so that chance alone makes 0.04.
    assert np.mean(np.array(inside)[:, -2:]) == pytest.approx(0.68, abs=0.1)


def test_very_short_runs_have_a_value_and_an_error_where_there_are_three_pairs(qmap: QMap, frames: np.ndarray) -> None:
    g2 = g2_from_two_time(two_time(frames[:5], qmap))
    assert g2.delay_frames.tolist() == [1, 2, 3]
    assert np.isfinite(g2.g2).all()
    np.testing.assert_array_equal(np.isfinite(g2.g2_err[0]), [True, True, False])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"definition": "mean"}, "definition 'mean' is unknown"),
        ({"delay_frames": np.array([0, 1])}, "do not fit 120 frames"),
        ({"delay_frames": np.array([120])}, "do not fit 120 frames"),
        ({"first_frame": 119}, "There are 1 frames"),
    ],
)
def test_senseless_requests_are_refused(
    qmap: QMap, frames: np.ndarray, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(CorrelationError, match=message):
        g2_from_two_time(two_time(frames, qmap), **arguments)
