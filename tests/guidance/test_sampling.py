"""Undersampled delays and ages, spread frames, spared beam, and the forecasts' errors."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import (
    Bin,
    expected_forecast_error,
    log_spaced_bursts_s,
    pairs_per_octave,
    relative_time_error,
    undersampled_ages,
    undersampled_delays,
    weakest_transmission,
)
from tests.guidance.campaign import Sample, movie, run_of

BIN = Bin(relaxation_time_s=1.0, stretching=1.0, contrast=1.0, counts=0.2, n_pixels=320, frame_period_s=0.05)


def test_delays_are_undersampled_in_a_short_dim_run_and_not_in_a_long_one() -> None:
    frames = movie(Sample(20.0, 0.03), 3000, 2)
    short, long = run_of(frames[:300]), run_of(frames)
    poor = undersampled_delays(short.g2, short.fits)
    assert poor.any()
    # Only within the decay: not where nothing is left to see.
    assert short.g2.delay_s[poor[0]].max() < 3.0
    assert not undersampled_delays(long.g2, long.fits).any()


def test_bin_without_a_fit_has_no_undersampled_delays() -> None:
    run = run_of(movie(Sample(1e6, 0.5), 200, 2))
    assert run.fits.refused[0] is not None
    assert not undersampled_delays(run.g2, run.fits).any()


def test_ages_are_undersampled_where_the_sample_has_become_slow() -> None:
    age_s = np.array([50.0, 150.0, 250.0, 350.0])
    poor = undersampled_ages(age_s, 100.0, lambda age: 0.04 * age)
    np.testing.assert_array_equal(poor, [False, False, False, True])


def test_spread_bursts_cover_every_octave_with_a_tenth_of_the_frames() -> None:
    times = log_spaced_bursts_s(0.01, 100.0, 960)
    assert times.size == 960
    assert (np.diff(times) >= 0.01 * (1 - 1e-6)).all()
    assert times[-1] == pytest.approx(100.0, rel=0.02)
    pairs = pairs_per_octave(times, 0.01, 100.0)
    assert pairs.size == 14
    assert pairs[:-1].min() >= 200


def test_bursts_that_cannot_be_spread_are_refused() -> None:
    with pytest.raises(GuidanceError, match="make 2 bursts"):
        log_spaced_bursts_s(0.01, 100.0, 40)
    with pytest.raises(GuidanceError, match="without a gap"):
        log_spaced_bursts_s(0.01, 1.0, 960)


def test_beam_can_be_spared_where_speckles_are_few_and_not_where_photons_are() -> None:
    from dataclasses import replace

    dim, bright = replace(BIN, counts=0.005), replace(BIN, counts=50.0)
    assert weakest_transmission(dim, 4000) > 0.85
    spared = weakest_transmission(bright, 4000)
    assert spared < 0.1
    weaker = replace(bright, counts=50.0 * spared)
    assert relative_time_error(weaker, 4000) <= 1.05 * relative_time_error(bright, 4000)


def test_forecast_errors_fall_to_what_the_model_cannot_do() -> None:
    observed_s = np.array([10.0, 20.0, 40.0, 80.0])
    error = np.sqrt(0.02**2 + 0.1**2 * 10.0 / observed_s)
    for then_s in (160.0, 1e6):
        expected = np.sqrt(0.02**2 + 0.1**2 * 10.0 / then_s)
        assert expected_forecast_error(observed_s, error, then_s) == pytest.approx(expected, rel=1e-4)


def test_two_forecasts_tell_nothing() -> None:
    with pytest.raises(GuidanceError, match="2 forecasts"):
        expected_forecast_error(np.array([1.0, 2.0, 3.0]), np.array([0.1, np.nan, 0.2]), 10.0)
