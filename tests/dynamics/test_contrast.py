"""A run that does not say its contrast: C2 at the shortest lags does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.dynamics import CorrelationObservations
from beamline_ml.dynamics.contrast import contrast_by_law, contrasts
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
    assert 0.4 < np.sqrt(np.mean(np.square(pulls))) < 1.4
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


def test_a_normalised_c2_says_its_contrast() -> None:
    """Divided by the contrast of every frame, C2 - 1 is the same at lag 0 everywhere."""
    seen = run(np.random.default_rng(3))
    c2 = seen.c2.copy()
    c2[:, np.arange(len(TIMES)), np.arange(len(TIMES))] = 1.0 + CONTRAST
    found, err = contrasts(replace(seen, c2=c2))
    assert found == pytest.approx(CONTRAST)
    assert (err < 0.05 * CONTRAST).all()


@pytest.mark.parametrize("filled_in", [0.0, 1.0, 2.0, np.nan])
def test_a_diagonal_that_was_filled_in_says_nothing(filled_in: float) -> None:
    seen = run(np.random.default_rng(4))
    c2 = seen.c2.copy()
    c2[:, np.arange(len(TIMES)), np.arange(len(TIMES))] = filled_in
    found, _ = contrasts(replace(seen, c2=c2))
    assert found == pytest.approx(CONTRAST, rel=0.2)


def test_no_light_is_more_coherent_than_one() -> None:
    """Few speckles may show a contrast of 1.08; nothing shows one of 2 by chance."""
    seen = run(np.random.default_rng(5))
    by_chance, _ = contrasts(replace(seen, c2=1.0 + 1.08 / CONTRAST * (seen.c2 - 1.0)))
    assert by_chance.mean() == pytest.approx(1.0, abs=0.02)
    something_else, _ = contrasts(replace(seen, c2=1.0 + 1.8 / CONTRAST * (seen.c2 - 1.0)))
    assert something_else.mean() > 1.5


def test_a_contrast_without_error_is_believed() -> None:
    found, err = contrasts(replace(run(np.random.default_rng(6)), contrast=np.full(len(Q), 0.25)))
    assert (found == 0.25).all()
    assert (err > 0).all()
    assert (err < 0.02).all()


def test_rings_may_differ_where_they_do() -> None:
    seen = run(np.random.default_rng(7))
    own = np.linspace(0.5, 1.5, len(Q))
    found, _ = contrasts(replace(seen, c2=1.0 + own[:, None, None] * (seen.c2 - 1.0)))
    assert found / CONTRAST == pytest.approx(own, rel=0.3)


def test_a_law_tells_the_contrast_within_its_error() -> None:
    """The lags that were used for the first guess are two of many."""
    rng = np.random.default_rng(8)
    lag = np.abs(TIMES[:, None] - TIMES[None, :])
    members = np.exp(-2.0 * 0.02 * rng.normal(1.0, 0.03, (8, 1, 1, 1)) * Q[:, None, None] ** 2 * lag)
    pulls, misses = [], []
    for _ in range(30):
        seen = run(rng)
        noisy = seen.c2 + rng.normal(0.0, 0.1, seen.c2.shape)
        dim = replace(seen, c2=noisy, c2_err=np.full_like(noisy, 0.1))
        found, err = contrast_by_law(dim, members, rng)
        pulls.append((found - CONTRAST) / err)
        misses.append([np.abs(value - CONTRAST).mean() for value in (found, contrasts(dim)[0])])
    assert 0.3 < np.sqrt(np.mean(np.square(pulls))) < 1.4
    by_law, by_lags = np.mean(misses, axis=0)
    assert by_law < 0.8 * by_lags
