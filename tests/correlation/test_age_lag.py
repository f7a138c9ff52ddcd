"""C2 against age and logarithmic lag: exact, gap-aware, bounded."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.correlation import MultiTauAccumulator, QMap, age_lag_two_time, multi_tau
from beamline_ml.correlation.age_sums import MAX_AGES
from beamline_ml.errors import CorrelationError

from . import reference, speckle


@pytest.fixture(scope="module")
def qmap() -> QMap:
    return speckle.rings((12, 15))


@pytest.fixture(scope="module")
def frames(qmap: QMap) -> np.ndarray:
    return speckle.counts(np.random.default_rng(1), qmap, 203, mean=0.6).astype(np.uint8)


def expected(frames: np.ndarray, qmap: QMap, q: int, level: int, lag: int, rows: range, gone: set[int]) -> float:
    """Sum of numerators over sum of S S' over the pairs whose later row of 2^level frames lies in ``rows``."""
    n = len(frames) >> level
    coarse = frames[: n << level].astype(np.int64).reshape(n, 1 << level, *frames.shape[1:]).sum(axis=1)
    holed = {frame >> level for frame in gone}
    products, total = reference.numerator(coarse, qmap, q + 1), coarse[:, qmap.labels == q + 1].sum(axis=1)
    pairs = [(t, t - lag) for t in rows if lag <= t < n and not {t, t - lag} & holed]
    below = sum(int(total[t] * total[s]) for t, s in pairs)
    above = sum(int(products[t, s]) for t, s in pairs)
    return float(qmap.n_pixels[q] * above / below) if below else np.nan


@pytest.mark.parametrize("gone", [set(), {70, 71, 72, 140}], ids=["whole", "holes"])
def test_every_element_follows_its_definition(qmap: QMap, frames: np.ndarray, gone: set[int]) -> None:
    found = age_lag_two_time(frames, qmap, 0.5, n_ages=30, bad_frames=sorted(gone))
    assert found.frames_per_age == 8
    assert found.c2.shape == (qmap.n_q, 26, found.delay_s.size)
    for j, delay in enumerate(found.delay_frames.tolist()):
        level = max(0, int(np.ceil(np.log2(delay / 8))))
        per_age = max(1, 8 >> level)
        for i in range(26):
            row = i * 8 >> level
            first = row // per_age * per_age
            value = expected(frames, qmap, 1, level, delay >> level, range(first, first + per_age), gone)
            np.testing.assert_allclose(found.c2[1, i, j], value, rtol=1e-12, err_msg=f"age {i}, lag {delay}")
    np.testing.assert_allclose(found.age_s[:2], [1.75, 5.75])
    np.testing.assert_allclose(found.delay_s, found.delay_frames * 0.5)
    assert found.age_s[-1] == 201.0 * 0.5


def test_ageing_shows(qmap: QMap) -> None:
    rng = np.random.default_rng(0)
    fast, slow = (speckle.counts(rng, qmap, 400, mean=4.0, relaxation_frames=tau) for tau in (6.0, 60.0))
    found = age_lag_two_time(np.concatenate([fast, slow]).astype(np.uint16), qmap, n_ages=16)
    at_lag = found.c2[0, :, found.delay_frames.tolist().index(8)]
    assert at_lag[9:].mean() - at_lag[:7].mean() > 0.4


def test_memory_does_not_grow_with_the_run_and_many_ages_are_merged_exactly(qmap: QMap) -> None:
    frames = speckle.counts(np.random.default_rng(2), qmap, 64, mean=0.5).astype(np.uint8)
    accumulator = MultiTauAccumulator(qmap)
    sizes = []
    for first in range(0, 4 * MAX_AGES, 64):
        accumulator.add(frames, first)
        sizes.append(accumulator.n_bytes)
    whole = multi_tau(np.concatenate([frames] * (4 * MAX_AGES // 64)), qmap)
    assert accumulator.result().g2.tobytes() == whole.g2.tobytes()
    short, middle, long = (sizes[n * MAX_AGES // 64 - 1] for n in (1, 2, 4))
    assert long - middle == pytest.approx(middle - short, rel=0.5)  # one more level a doubling, and nothing else
    period = whole.delay_frames.tolist().index(64)
    np.testing.assert_allclose(whole.g2[:, period], whole.g2[:, period].mean(), rtol=0.2)
    assert accumulator.age_lag(1024).frames_per_age == 4


def test_a_hole_is_given_up_when_too_many_frames_wait(qmap: QMap, frames: np.ndarray) -> None:
    accumulator = MultiTauAccumulator(qmap, max_waiting=50)
    accumulator.add(frames[:60], 0)
    accumulator.add(frames[70:100], 70)
    assert accumulator.n_frames == 60
    accumulator.add(frames[100:], 100)
    assert accumulator.n_frames == 203
    accumulator.add(frames[60:70], 60)
    accumulator.add(frames[60:70], 60)
    assert accumulator.n_late == 10
    expected = multi_tau(frames, qmap, bad_frames=range(60, 70))
    assert accumulator.result().g2.tobytes() == expected.g2.tobytes()


@pytest.mark.parametrize("n_ages", [0, 1025])
def test_senseless_numbers_of_ages_are_refused(qmap: QMap, frames: np.ndarray, n_ages: int) -> None:
    with pytest.raises(CorrelationError, match="ages apart"):
        age_lag_two_time(frames, qmap, n_ages=n_ages)


def test_negative_places_and_flat_fields_are_refused(qmap: QMap, frames: np.ndarray) -> None:
    with pytest.raises(CorrelationError, match="begins at frame -1"):
        MultiTauAccumulator(qmap).add(frames, -1)
    with pytest.raises(CorrelationError, match="flat field"):
        MultiTauAccumulator(QMap(qmap.labels, flatfield=np.ones(qmap.frame_shape)))
