"""Bands: coverage on data drawn like the calibration, honest refusal to be narrow on too few."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.phonons.conformal import (
    Calibration,
    RelativeBand,
    TemperatureBand,
    WindowBand,
    conformal_quantile,
)


def test_quantile_is_the_finite_sample_one() -> None:
    scores = np.arange(1.0, 20.0)
    assert conformal_quantile(scores, 0.9) == 18.0
    assert conformal_quantile(np.arange(5.0), 0.9) == np.inf


def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, six members and truths whose errors grow with the members' disagreement."""
    scale = rng.uniform(0.02, 0.3, n)
    true = rng.uniform(5.0, 25.0, n)
    members = true[:, None] * np.exp(scale[:, None] * (rng.normal(size=(n, 1)) + 0.8 * rng.normal(size=(n, 6))))
    return members.mean(axis=1), members, true


def test_relative_band_covers_nine_in_ten_and_adapts() -> None:
    rng = np.random.default_rng(1)
    covered, calibrations = [], 40
    for _ in range(calibrations):
        band = RelativeBand.fit(*draw(rng, 140))
        predicted, members, true = draw(rng, 400)
        low, high = band.band(predicted, members)
        covered.append(np.mean((low <= true) & (true <= high)))
        width, disagreement = np.log(high / low), np.log(members).std(axis=1)
        assert np.corrcoef(width, disagreement)[0, 1] > 0.99
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)


def test_window_bands_cover_each_side() -> None:
    rng = np.random.default_rng(2)

    def windows(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        predicted = rng.dirichlet(np.full(30, 0.3), size=n)
        spread = 0.3 * predicted * rng.uniform(0.5, 2.0, predicted.shape)
        true = np.clip(predicted + spread * rng.standard_exponential(predicted.shape) - 0.7 * spread, 0.0, None)
        return predicted, spread, true

    band = WindowBand.fit(*windows(200))
    predicted, spread, true = windows(200)
    lower, upper = band.band(predicted, spread)
    assert ((lower >= 0.0) & (upper <= 1.0) & (lower <= predicted) & (predicted <= upper)).all()
    assert np.mean(true < lower) < 0.06
    assert np.mean(true > upper) < 0.06
    assert np.mean((lower <= true) & (true <= upper)) > 0.88


def test_temperature_bands_interpolate_and_hold_at_the_ends() -> None:
    band = TemperatureBand(np.array([10.0, 1000.0]), np.array([3.0, 1.0]))
    assert band.at(100.0).quantile == pytest.approx(2.0)
    assert band.at(1.0).quantile == 3.0
    assert band.at(5000.0).quantile == 1.0


def test_calibration_survives_being_written() -> None:
    grid = np.array([10.0, 300.0])
    calibration = Calibration(
        WindowBand(np.array([1.0, 2.0]), np.array([3.0, 4.0])),
        RelativeBand(2.5),
        TemperatureBand(grid, np.array([2.0, 1.0])),
        TemperatureBand(grid, np.array([2.2, 1.1])),
    )
    again = Calibration.from_arrays(calibration.to_arrays())
    assert again.mean_energy == calibration.mean_energy
    np.testing.assert_array_equal(again.windows.above, calibration.windows.above)
    np.testing.assert_array_equal(again.displacement.quantiles, calibration.displacement.quantiles)
