"""A run that does not say its contrast: C2 at the shortest lags does."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.dynamics import CorrelationObservations
from beamline_ml.dynamics.contrast import contrasts, speckle_counts
from beamline_ml.dynamics.speckle_noise import unit_deviations

TIMES = np.arange(1, 13) * 0.25
Q = np.linspace(1.0, 6.0, 8)
CONTRAST, N_SPECKLES = 0.3, 400


def run(rng: np.random.Generator, noise: float = 1.0) -> CorrelationObservations:
    """Free diffusion of 0.02 um^2/s as so many speckles show it."""
    lag = np.abs(TIMES[:, None] - TIMES[None, :])
    c2 = []
    for q in Q:
        f = np.exp(-0.02 * q**2 * lag)
        deviation = unit_deviations(f, CONTRAST, rng)[0][0]
        c2.append(1.0 + CONTRAST * f**2 + noise * deviation / np.sqrt(N_SPECKLES))
    err = np.full((len(Q), len(TIMES), len(TIMES)), 0.002)
    return CorrelationObservations(
        np.array(c2), err, np.ones((len(Q), len(TIMES))), Q, TIMES, 10.0, n_speckles=np.full(len(Q), float(N_SPECKLES))
    )


def test_contrast_is_drawn_back_to_lag_0() -> None:
    found, err = contrasts(run(np.random.default_rng(0), noise=0.0))
    assert np.abs(found / CONTRAST - 1.0).max() < 0.01
    assert (err < 0.1 * CONTRAST).all()


def test_its_error_is_that_of_few_speckles() -> None:
    rng = np.random.default_rng(1)
    pulls = []
    for _ in range(60):
        found, err = contrasts(run(rng))
        pulls.append((found - CONTRAST) / err)
    assert 0.6 < np.sqrt(np.mean(np.square(pulls))) < 1.4
    assert abs(np.mean(pulls)) < 0.4


def test_holes_leave_the_rest() -> None:
    seen = run(np.random.default_rng(2), noise=0.0)
    near = np.eye(len(TIMES), k=1, dtype=bool)
    c2 = seen.c2.copy()
    c2[0][near] = np.nan
    holed = CorrelationObservations(c2, seen.c2_err, seen.structure_factor, Q, TIMES, 10.0, n_speckles=seen.n_speckles)
    found, _ = contrasts(holed)
    assert np.isfinite(found).all()
    assert found[1:] == pytest.approx(CONTRAST, rel=0.05)


def test_speckles_are_guessed_with_caution() -> None:
    seen = run(np.random.default_rng(3))
    for err, expected in ((0.5, 50.0), (0.05, 400.0), (1e-6, 1000.0)):
        bare = CorrelationObservations(seen.c2, np.full_like(seen.c2, err), seen.structure_factor, Q, TIMES, 10.0)
        assert speckle_counts(bare) == pytest.approx(expected)
