"""Each classical forecaster is exact where its own law holds, and always finite, symmetric and within [0, 1]."""

import numpy as np
import pytest

from beamline_ml.dynamics.baselines import BASELINES, Observed, ageing_kww, dmd, gaussian_process, homodyne, persistence

ALL_S = np.linspace(0.1, 8.0, 40)
N = 20
Q = np.array([1.0, 1.5, 2.0])


def two_time(rate_integral):
    """F = exp(-2 q^2 (R(t2) - R(t1))) on the whole grid."""
    r = rate_integral(ALL_S)
    return np.exp(-2 * Q[:, None, None] ** 2 * np.abs(r[None, :, None] - r[None, None, :]))


def observed(f, noise=0.0, seed=0):
    noisy = f + noise * np.random.default_rng(seed).standard_normal(f.shape)
    return Observed(noisy, np.full(f.shape, max(noise, 1e-3)), ALL_S, Q).until(N)


def future_rmse(forecaster, f, noise=0.01):
    error = (forecaster(observed(f, noise), ALL_S) - f)[:, N:, N:]
    return float(np.sqrt(np.mean(error**2)))


DIFFUSION = two_time(lambda t: 0.1 * t)
AGEING = two_time(lambda t: 0.3 * np.sqrt(t))


@pytest.mark.parametrize("forecaster", BASELINES.values(), ids=BASELINES)
def test_plain_diffusion_is_forecast_by_all(forecaster):
    assert future_rmse(forecaster, DIFFUSION) < 0.03


def test_changing_diffusivity_is_the_law_of_homodyne():
    assert future_rmse(homodyne, AGEING) < 0.01
    assert future_rmse(persistence, AGEING) > 3 * future_rmse(homodyne, AGEING)


def test_ageing_is_the_law_of_ageing_kww():
    age = 0.5 * (ALL_S[:, None] + ALL_S[None, :])
    lag = np.abs(ALL_S[:, None] - ALL_S[None, :])
    f = np.stack([np.exp(-2 * (lag / (0.3 * age**0.8 / q)) ** 0.8) for q in Q])
    assert future_rmse(ageing_kww, f) < 0.01
    assert future_rmse(gaussian_process, f) < future_rmse(persistence, f)


def test_a_linear_change_of_the_curves_is_the_law_of_dmd():
    age, lag = np.minimum(ALL_S[:, None], ALL_S[None, :]), np.abs(ALL_S[:, None] - ALL_S[None, :])
    late, early = np.exp(-0.15 * lag), np.exp(-2.0 * lag)
    f = np.stack([late + np.exp(-age / 3.0) * (early - late)] * 3)
    error = (dmd(observed(f, 0.001), ALL_S) - f)[:, N:, N:]
    near = lag[N:, N:] < 0.45 * ALL_S[N - 1]
    assert np.sqrt(np.mean(error[:, near] ** 2)) < 0.02
    assert future_rmse(dmd, f, 0.001) < future_rmse(persistence, f, 0.001)


@pytest.mark.parametrize("forecaster", BASELINES.values(), ids=BASELINES)
@pytest.mark.parametrize("wound", ["holes", "negative", "nothing", "frozen"])
def test_bad_input_gives_finite_maps(forecaster, wound):
    f = DIFFUSION.copy()
    if wound == "holes":
        f[:, 3:7] = f[:, :, 3:7] = np.nan
    if wound == "negative":
        f -= 0.3
    if wound == "nothing":
        f[:] = np.nan
    if wound == "frozen":
        f[:] = 1.0
    grid = forecaster(observed(f), ALL_S)
    assert grid.shape == (3, 40, 40)
    assert np.isfinite(grid).all()
    assert (grid >= 0).all()
    assert (grid <= 1).all()
    np.testing.assert_array_equal(grid, grid.transpose(0, 2, 1))


def test_a_forecaster_sees_nothing_later_than_its_origin():
    tampered = DIFFUSION.copy()
    tampered[:, N:, :] = tampered[:, :, N:] = 0.5
    for forecaster in BASELINES.values():
        np.testing.assert_array_equal(forecaster(observed(DIFFUSION), ALL_S), forecaster(observed(tampered), ALL_S))
