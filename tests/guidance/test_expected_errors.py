"""Foreseen errors against closed forms, and against the scatter of simulated runs that know nothing of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.correlation import multi_tau
from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import Bin, relative_time_error
from beamline_ml.guidance.expected_errors import blur, g2_covariance
from tests.guidance.campaign import PERIOD_S, QMAP, Sample, movie, true_errors

BIN = Bin(relaxation_time_s=1.0, stretching=1.0, contrast=1.0, counts=0.2, n_pixels=320, frame_period_s=0.05)


@pytest.mark.parametrize("exposure_s", [1e-3, 0.3, 2.0])
def test_blur_of_an_exponential_is_the_closed_form(exposure_s: float) -> None:
    x = 2.0 * exposure_s / 1.0
    assert blur(exposure_s, 1.0, 1.0) == pytest.approx(2.0 * (np.exp(-x) - 1.0 + x) / x**2, rel=1e-6)


def test_errors_of_long_runs_fall_with_the_square_root_of_beam_time() -> None:
    ratio = relative_time_error(BIN, 40_000) / relative_time_error(BIN, 10_000)
    assert ratio == pytest.approx(0.5, rel=0.03)


def test_few_photons_make_errors_fall_with_the_count_rate_and_many_do_not() -> None:
    dim, bright = replace(BIN, counts=1e-3), replace(BIN, counts=100.0)
    dim_ratio = relative_time_error(replace(dim, counts=2e-3), 4000) / relative_time_error(dim, 4000)
    bright_ratio = relative_time_error(replace(bright, counts=200.0), 4000) / relative_time_error(bright, 4000)
    # The priors keep the very dim bin from the pure law.
    assert dim_ratio == pytest.approx(0.5, abs=0.06)
    assert bright_ratio == pytest.approx(1.0, abs=0.01)


def test_more_pixels_are_more_speckles() -> None:
    ratio = relative_time_error(replace(BIN, n_pixels=1280), 4000) / relative_time_error(BIN, 4000)
    assert ratio == pytest.approx(0.5, rel=0.05)


def test_frames_that_are_split_keep_their_photons() -> None:
    shorter = BIN.with_frame_period(0.01)
    assert shorter.counts == pytest.approx(0.04)
    assert shorter.contrast > BIN.contrast
    assert shorter.with_frame_period(0.05).contrast == pytest.approx(1.0)


def test_no_lags_no_error() -> None:
    assert relative_time_error(BIN, 4) == np.inf


def test_bin_without_photons_is_refused_by_name() -> None:
    with pytest.raises(GuidanceError, match="counts"):
        replace(BIN, counts=0.0)


def test_noise_of_g2_is_that_of_simulated_runs() -> None:
    sample, n_frames = Sample(20.0, 0.3), 600
    curves = [multi_tau(movie(sample, n_frames, seed), QMAP, PERIOD_S) for seed in range(40)]
    scatter = np.std([curve.g2[0] for curve in curves], axis=0, ddof=1)
    q_bin = replace(BIN, counts=0.3)
    foreseen = np.sqrt(np.diagonal(g2_covariance(q_bin, curves[0].delay_frames, n_frames)))
    use = curves[0].delay_frames < n_frames // 4
    ratio = scatter[use] / foreseen[use]
    assert 0.8 < np.median(ratio) < 1.4
    assert ratio.min() > 0.5
    assert ratio.max() < 2.0


def test_errors_shrink_as_foreseen() -> None:
    sample = Sample(20.0, 0.1)
    lengths = np.array([200, 1600])
    short, long = true_errors(sample, lengths, 16)
    q_bin = replace(BIN, relaxation_time_s=sample.relaxation_frames * PERIOD_S, counts=sample.counts)
    foreseen = relative_time_error(q_bin, 1600) / relative_time_error(q_bin, 200)
    # The scatter of 16 realisations is itself known to 18 %.
    assert long / short == pytest.approx(foreseen, rel=0.45)
