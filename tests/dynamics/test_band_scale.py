"""What noise leaves of a forecast without error in the contest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.dynamics.band_scale import contest_noise
from beamline_ml.dynamics.contest import held_out
from tests.dynamics.speckle_runs import CONTRAST, speckle_run

N_RINGS, N = 20, 12
TIMES = np.arange(1.0, N + 1)
TRUTH = np.exp(-0.1 * np.abs(TIMES[:, None] - TIMES)) * np.ones((N_RINGS, 1, 1))
HORIZONS = {6: 8, 8: 12}


@pytest.mark.parametrize(("n_speckles", "counting"), [(200.0, 1e-4), (2e5, 0.1), (200.0, 0.05)])
def test_it_is_the_score_of_a_forecast_without_error(n_speckles: float, counting: float) -> None:
    """Also with a block that was never measured."""
    misses, expected = [], []
    for seed in range(6):
        run, _ = speckle_run(TRUTH, TIMES, N, n_speckles, counting, seed)
        run.c2[:, 7] = run.c2[:, :, 7] = np.nan
        off = (run.c2 - 1.0) / CONTRAST - TRUTH
        misses += [off[:, *held_out(n_seen, horizon)].ravel() for n_seen, horizon in HORIZONS.items()]
        expected.append(contest_noise(run, TRUTH, HORIZONS))
    assert np.sqrt(np.nanmean(np.concatenate(misses) ** 2)) == pytest.approx(np.mean(expected), rel=0.15)


def test_more_speckles_leave_less_of_it() -> None:
    """Beside the hundredth by which a baseline may be off."""
    run, _ = speckle_run(TRUTH, TIMES, N, 200.0, 1e-4, 0)
    few, many = (contest_noise(replace(run, n_speckles=np.full(N_RINGS, n)), TRUTH, HORIZONS) for n in (200.0, 800.0))
    assert many == pytest.approx(0.5 * few, rel=0.15)
    assert contest_noise(run, TRUTH, {}) == 0.0
