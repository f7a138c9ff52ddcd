"""What speckles add to C2 is carried on as far as it can be told from counting noise."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.dynamics.carry_over import carried_on
from tests.dynamics.speckle_runs import CONTRAST, speckle_run

N_RINGS, N, N_SEEN, N_SPECKLES = 30, 16, 10, 300.0
TIMES = np.arange(1.0, N + 1)
LAG = np.abs(TIMES[:, None] - TIMES)


def f2_of(rate: float) -> np.ndarray:
    return np.exp(-rate * LAG) * np.ones((N_RINGS, 1, 1))


def future_error(counting: float, seed: int, offset: float = 0.0) -> tuple[float, float]:
    """RMS of what speckles add to later entries, and what is left of it."""
    f2 = f2_of(0.05)
    observed, added = speckle_run(f2, TIMES, N_SEEN, N_SPECKLES, counting, seed)
    carried = carried_on(observed, N_SEEN, f2 - offset, seed + 1).c2
    first, second = np.triu_indices(N, k=1)
    later = first[second >= N_SEEN], second[second >= N_SEEN]
    missed = (added + CONTRAST * offset)[:, *later]
    return float(np.sqrt((missed**2).mean())), float(np.sqrt(((carried[:, *later] - missed) ** 2).mean()))


def test_speckles_are_carried_on() -> None:
    without, left = np.mean([future_error(0.001, seed) for seed in range(3)], axis=0)
    assert left < 0.7 * without


@pytest.mark.parametrize("counting", [0.1, 1.0])
def test_counting_noise_is_not(counting: float) -> None:
    """However dim the run: what is carried on is never worse than nothing."""
    without, left = np.mean([future_error(counting, seed) for seed in range(3)], axis=0)
    assert left < 1.02 * without


def test_a_forecast_that_is_off_is_carried_on_in_noise() -> None:
    """An error of the law, in all rings alike and many times what speckles explain, is found in spite of counting."""
    without, left = np.mean([future_error(0.05, seed, offset=0.3) for seed in range(3)], axis=0)
    assert left < 0.5 * without
