"""Foreseen errors against closed forms, and against the scatter of simulated runs that know nothing of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.correlation import fit_relaxation, g2_from_two_time, multi_tau, two_time
from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import Bin, relative_time_error
from beamline_ml.guidance.expected_errors import blur, g2_covariance
from beamline_ml.records import RelaxationFits
from tests.guidance.campaign import PERIOD_S, QMAP, Sample, movie

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
    curves = [multi_tau(movie(sample, n_frames, seed), QMAP, PERIOD_S) for seed in range(30)]
    scatter = np.std([curve.g2[0] for curve in curves], axis=0, ddof=1)
    q_bin = replace(BIN, counts=0.3)
    foreseen = np.sqrt(np.diagonal(g2_covariance(q_bin, curves[0].delay_frames, n_frames)))
    use = curves[0].delay_frames < n_frames // 4
    ratio = scatter[use] / foreseen[use]
    assert 0.8 < np.median(ratio) < 1.4
    assert ratio.min() > 0.5
    assert ratio.max() < 2.0


def by_two_time(frames: np.ndarray) -> RelaxationFits:
    """As the automatic analysis has it: pairs of single frames at every lag."""
    return fit_relaxation(g2_from_two_time(two_time(frames, QMAP, frame_period_s=PERIOD_S)))


def by_multi_tau(frames: np.ndarray) -> RelaxationFits:
    return fit_relaxation(multi_tau(frames, QMAP, PERIOD_S))


@pytest.mark.parametrize(
    ("fit", "sample"),
    [(by_two_time, Sample(12.0, 1.0)), (by_multi_tau, Sample(12.0, 1.0)), (by_multi_tau, Sample(20.0, 0.1))],
)
def test_errors_shrink_as_foreseen(fit: Callable[[np.ndarray], RelaxationFits], sample: Sample) -> None:
    said = []
    for n_frames in (150, 800):
        fits = [fit(movie(sample, n_frames, seed)) for seed in range(6)]
        said.append(np.median([one.relaxation_time_s_err[0] / one.relaxation_time_s[0] for one in fits]))
    time_s = sample.relaxation_frames * PERIOD_S
    q_bin = replace(BIN, relaxation_time_s=time_s, counts=sample.counts, adds_frames=fit is by_multi_tau)
    foreseen = relative_time_error(q_bin, 800) / relative_time_error(q_bin, 150)
    # Errors of single runs scatter by a fifth, more in short ones.
    assert said[1] / said[0] == pytest.approx(foreseen, rel=0.3)
