"""Multi-tau g2 against its definition, lag by lag."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.correlation import MultiTauAccumulator, QMap, g2_from_two_time, multi_tau, two_time
from beamline_ml.errors import CorrelationError

from . import reference, speckle


@pytest.fixture(scope="module")
def qmap() -> QMap:
    return speckle.rings()


@pytest.fixture(scope="module")
def frames(qmap: QMap) -> np.ndarray:
    return speckle.counts(np.random.default_rng(1), qmap, 203, mean=0.4)


def summed(frames: np.ndarray, level: int) -> np.ndarray:
    n = frames.shape[0] >> level
    return frames[: n << level].reshape(n, 1 << level, *frames.shape[1:]).sum(axis=1)


def test_lags_follow_the_aps_levels(qmap: QMap, frames: np.ndarray) -> None:
    delays = multi_tau(frames, qmap).delay_frames.tolist()
    assert delays[:16] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32]
    assert delays[16:] == [40, 48, 56, 64, 80, 96, 112, 128, 160]


def test_lags_follow_the_scikit_beam_levels(qmap: QMap, frames: np.ndarray) -> None:
    delays = multi_tau(frames, qmap, convention="scikit-beam").delay_frames.tolist()
    assert delays[:15] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28]


@pytest.mark.parametrize("scale", [1, 200], ids=["few", "past-uint8"])
def test_every_lag_equals_its_definition(qmap: QMap, frames: np.ndarray, scale: int) -> None:
    bright = frames * np.uint32(scale)
    g2 = multi_tau(bright, qmap)
    for j, delay in enumerate(g2.delay_frames):
        level = max(0, int(np.ceil(np.log2(delay / 8))))
        coarse = summed(bright, level)
        for k in range(qmap.n_q):
            expected = reference.symmetric_g2(coarse, qmap, k + 1, int(delay) >> level)
            assert g2.g2[k, j] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("definition", ["ratio_of_sums", "mean_of_ratios"])
def test_short_lags_equal_g2_from_c2(qmap: QMap, frames: np.ndarray, definition: str) -> None:
    direct = multi_tau(frames, qmap, 0.5, definition=definition)
    from_c2 = g2_from_two_time(two_time(frames, qmap, frame_period_s=0.5), definition)
    np.testing.assert_allclose(direct.g2[:, :8], from_c2.g2[:, :8], atol=1e-6)
    np.testing.assert_allclose(direct.g2_err[:, :8], from_c2.g2_err[:, :8], rtol=0.25)
    assert direct.delay_s[1] == 1.0
    assert direct.definition == definition


def test_a_hole_takes_out_the_pairs_that_touch_it_and_shifts_nothing(qmap: QMap, frames: np.ndarray) -> None:
    accumulator = MultiTauAccumulator(qmap)
    accumulator.add(frames[:60], 0)
    accumulator.add(frames[70:], 70)
    g2 = accumulator.result("mean_of_ratios")
    present = np.ones(203, bool)
    present[60:70] = False
    for k in range(qmap.n_q):
        c2 = reference.plain(frames, qmap, k + 1)
        c2[~present] = np.nan
        c2[:, ~present] = np.nan
        for j in range(8):
            assert g2.g2[k, j] == pytest.approx(np.nanmean(np.diagonal(c2, j + 1)), abs=1e-6)
    accumulator.add(frames[60:70], 60)  # late, not lost
    np.testing.assert_array_equal(accumulator.result().g2, multi_tau(frames, qmap).g2)


def test_bad_frames_are_holes(qmap: QMap, frames: np.ndarray) -> None:
    accumulator = MultiTauAccumulator(qmap)
    accumulator.add(frames[:60], 0)
    accumulator.add(frames[61:], 61)
    broken = frames.copy()
    broken[60] = 60_000
    np.testing.assert_array_equal(multi_tau(broken, qmap, bad_frames=[60]).g2, accumulator.result().g2)


def test_the_result_can_be_asked_for_at_any_time(qmap: QMap, frames: np.ndarray) -> None:
    accumulator = MultiTauAccumulator(qmap)
    for first in range(0, 203, 29):
        accumulator.add(frames[first : first + 29], first)
        so_far = min(first + 29, 203)
        np.testing.assert_array_equal(accumulator.result().g2, multi_tau(frames[:so_far], qmap).g2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"convention": "als"}, "convention 'als'"), ({"definition": "median"}, "definition 'median'")],
)
def test_unknown_choices_are_refused(qmap: QMap, frames: np.ndarray, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(CorrelationError, match=message):
        multi_tau(frames, qmap, **arguments)
