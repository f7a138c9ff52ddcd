"""Relaxation times with honest errors, or a reason why there are none; what they say about diffusion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.correlation import QMap, fit_power_law, fit_relaxation, g2_from_two_time, multi_tau, two_time
from beamline_ml.records import G2, RelaxationFits

from . import speckle

DELAYS = np.unique(np.geomspace(1, 400, 40).astype(int))


def curve(
    relaxation: float, stretching: float = 1.0, contrast: float = 0.2, baseline: float = 1.0, error: float = 1e-3
) -> G2:
    value = baseline + contrast * np.exp(-2 * (DELAYS / relaxation) ** stretching)
    q = np.array([1e-3])
    return G2(DELAYS.astype(float), DELAYS, value[None], np.full((1, DELAYS.size), error), q, "", "")


@pytest.mark.parametrize("stretching", [0.5, 1.0, 1.8])
@pytest.mark.parametrize("relaxation", [4.0, 50.0])
def test_noise_free_curves_are_recovered(relaxation: float, stretching: float) -> None:
    fits = fit_relaxation(curve(relaxation, stretching, baseline=1.003, error=1e-5))
    assert fits.refused == (None,)
    np.testing.assert_allclose(fits.relaxation_time_s, relaxation, rtol=1e-2)
    np.testing.assert_allclose(fits.stretching, stretching, rtol=1e-2)
    np.testing.assert_allclose(fits.contrast, 0.2, rtol=1e-2)
    np.testing.assert_allclose(fits.baseline, 1.003, atol=1e-3)


@pytest.mark.parametrize(
    ("g2", "reason"),
    [
        (curve(5000.0), "longer than the longest lag|no decay stands out|uncertain"),
        (curve(0.1), "no decay stands out|faster than the shortest lag"),
        (curve(20.0, contrast=0.0), "no decay stands out|faster than the shortest lag"),
        (replace(curve(20.0), g2=np.full((1, DELAYS.size), np.nan)), "only 0 lags have a value"),
    ],
    ids=["too slow", "too fast", "no contrast", "no values"],
)
def test_a_fit_that_cannot_be_trusted_is_nan_with_a_reason(g2: G2, reason: str) -> None:
    fits = fit_relaxation(g2)
    assert np.isnan(fits.relaxation_time_s).all()
    assert fits.refused[0] is not None
    assert any(part in fits.refused[0] for part in reason.split("|"))


def test_errors_of_fits_cover_the_truth_and_there_is_no_bias() -> None:
    """100 movies of three bins: time, contrast, stretching and baseline within their errors, and right on average."""
    qmap = QMap(np.repeat([[1, 2, 3]], 300, axis=0))
    pulls, ratios = [], []
    for seed in range(100):
        frames = speckle.counts(np.random.default_rng(seed), qmap, 200, mean=0.5, relaxation_frames=40.0)
        fits = fit_relaxation(g2_from_two_time(two_time(frames, qmap)))
        truth = 40.0 / np.arange(1, 4)
        pulls.append(
            [
                (fits.relaxation_time_s - truth) / fits.relaxation_time_s_err,
                (fits.contrast - 1) / fits.contrast_err,
                (fits.stretching - 1) / fits.stretching_err,
                (fits.baseline - 1) / fits.baseline_err,
            ]
        )
        ratios.append([fits.relaxation_time_s / truth, fits.contrast])
    pull = np.array(pulls)
    assert np.isfinite(pull).mean() > 0.98
    for k in range(4):
        one = pull[:, k][np.isfinite(pull[:, k])]
        assert np.mean(np.abs(one) < 1) == pytest.approx(0.68, abs=0.08)
        assert np.mean(np.abs(one) < 3) > 0.97
        assert abs(np.median(one)) < 0.3
    for one in np.array(ratios).transpose(1, 2, 0).reshape(-1, 100):
        held = one[np.isfinite(one)]
        assert abs(held.mean() - 1) < 3 * held.std() / np.sqrt(held.size)  # time and contrast of each bin


def test_replicates_come_from_c2_when_g2_has_none() -> None:
    qmap = speckle.rings()
    frames = speckle.counts(np.random.default_rng(3), qmap, 150, mean=0.5)
    correlated = two_time(frames, qmap)
    g2 = g2_from_two_time(correlated)
    bare = replace(g2, replicates=None)
    np.testing.assert_array_equal(
        fit_relaxation(bare, correlated).relaxation_time_s_err, fit_relaxation(g2).relaxation_time_s_err
    )
    assert (fit_relaxation(bare).relaxation_time_s_err > fit_relaxation(g2).relaxation_time_s_err).all()


def test_multi_tau_g2_can_be_fitted_too() -> None:
    qmap = speckle.rings()
    frames = speckle.counts(np.random.default_rng(4), qmap, 400, mean=0.5)
    fits = fit_relaxation(multi_tau(frames, qmap))
    pull = (fits.relaxation_time_s - 20 / np.arange(1, 4)) / fits.relaxation_time_s_err
    assert np.abs(pull).max() < 3


def fits_of(time: np.ndarray, relative_error: float = 0.03, stretching: float = 1.0) -> RelaxationFits:
    n = time.size
    ones = np.ones(n)
    q = 1e-4 * np.linspace(1.0, 2.0, n)
    return RelaxationFits(
        q,
        time,
        relative_error * time,
        ones,
        0.01 * ones,
        stretching * ones,
        0.05 * ones,
        ones,
        0.01 * ones,
        ones,
        (None,) * n,
    )


Q_UM = np.linspace(1.0, 2.0, 6)


def test_diffusion_is_recognised_with_its_coefficient() -> None:
    law = fit_power_law(fits_of(1 / (0.4 * Q_UM**2)))
    assert law.diffusive
    assert law.exponent == pytest.approx(2)
    assert law.diffusion_coefficient_um2_per_s == pytest.approx(0.4)
    assert law.diffusion_coefficient_um2_per_s_err == pytest.approx(0.4 * 0.03 / np.sqrt(6), rel=1e-6)


def test_errors_grow_with_the_scatter_between_bins() -> None:
    wobble = np.exp(0.15 * np.array([1, -1, 1, -1, 1, -1]))
    law = fit_power_law(fits_of(wobble / (0.4 * Q_UM**2)))
    assert law.diffusion_coefficient_um2_per_s_err is not None
    assert law.diffusion_coefficient_um2_per_s_err > 3 * 0.4 * 0.03 / np.sqrt(6)


@pytest.mark.parametrize(
    ("fits", "reason"),
    [
        (fits_of(1 / Q_UM), "is not the 2 of diffusion"),
        (fits_of(1 / Q_UM**2, stretching=1.6), "not exponential"),
        (fits_of(1 / Q_UM**2, relative_error=0.8), "too uncertain"),
        (fits_of(1 / Q_UM[:2] ** 2), "Only 2 q bins"),
    ],
    ids=["ballistic", "compressed", "noisy", "too few"],
)
def test_what_is_not_diffusion_is_not_called_so(fits: RelaxationFits, reason: str) -> None:
    law = fit_power_law(fits)
    assert not law.diffusive
    assert law.diffusion_coefficient_um2_per_s is None
    assert reason in law.reason


def test_unknown_q_gives_no_power_law() -> None:
    law = fit_power_law(replace(fits_of(1 / Q_UM**2), q_inv_angstrom=np.full(6, np.nan)))
    assert not law.diffusive
    assert "0 q bins" in law.reason
