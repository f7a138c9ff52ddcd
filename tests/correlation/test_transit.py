"""Diffusion is found beside a q-independent decorrelation, and not where there is none."""

import numpy as np
import pytest

from beamline_ml.correlation.transit import diffusion_with_transit

Q = np.linspace(0.8, 4.0, 8)


def noisy(rate, seed):
    error = 0.05 * rate
    return rate + error * np.random.default_rng(seed).standard_normal(rate.size), error


def test_line_is_recovered_within_its_error():
    off = []
    for seed in range(200):
        found = diffusion_with_transit(Q, *noisy(0.5 + 0.4 * Q**2, seed))
        assert found is not None
        off.append((found.diffusion_um2_per_s - 0.4) / found.diffusion_um2_per_s_err)
    assert np.mean(np.abs(off) < 2) > 0.9
    assert abs(np.mean(off)) < 0.3


def test_bins_that_bend_away_are_left_out():
    rate = 0.3 + 0.4 * Q**2
    rate[-2:] *= (0.8, 0.6)
    found = diffusion_with_transit(Q, rate, 0.02 * rate)
    assert found is not None
    assert (found.first, found.last) == (0, 6)
    assert found.diffusion_um2_per_s == pytest.approx(0.4, rel=1e-6)


@pytest.mark.parametrize("exponent", [1.0, 3.5])
def test_other_motion_is_not_called_diffusion(exponent):
    rate = 0.1 * Q**exponent
    assert diffusion_with_transit(Q, rate, 0.01 * rate) is None


def test_too_few_bins():
    assert diffusion_with_transit(Q[:3], 0.4 * Q[:3] ** 2, 0.01 * Q[:3]) is None
