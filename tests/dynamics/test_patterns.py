"""Speckle patterns from a known start: forward model, derivative, recovery of the force, extrapolation, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from beamline_ml.dynamics import (
    DynamicsModel,
    PatternFit,
    PatternObservations,
    PatternScattering,
    fit,
    forecast,
    sphere_form_factor,
)
from beamline_ml.dynamics.flow import Surrogates, move
from beamline_ml.dynamics.pattern_state import PatternState
from beamline_ml.dynamics.photon_information import DARK, chosen_pixels, misfit_by_chance, photon_misfit
from beamline_ml.dynamics.start_refinement import neighbour_distance_um
from beamline_ml.dynamics.systems.self_organising import SelfOrganising, disc_start, published_optics
from beamline_ml.dynamics.torch_patterns import torch_intensity
from beamline_ml.errors import FitRefused, NotIdentifiable, ResultError

SYSTEM = SelfOrganising()
OPTICS = PatternScattering(48, 1.0, probe_um=2.5)
MODEL = DynamicsModel(n_coefficients=16, cutoff_um=0.85)
N, N_FRAMES = 80, 25
TIMES = np.arange(4 * N_FRAMES) * 0.2


def disc(seed: int) -> np.ndarray:
    return disc_start(N, 1.0, np.random.default_rng(seed))


def trajectory(start: np.ndarray) -> np.ndarray:
    """Truth, at a quarter of the fit's step and with a finer spline."""
    grid = np.arange(4 * len(TIMES) - 3) * 0.05
    particles = Surrogates(start, 1, 0.0, grid, np.arange(0, len(grid), 4), np.zeros((len(grid), 1, 1)))
    return move(particles, SYSTEM.spline(), SYSTEM.cutoff_um, 0.0, method="rk4")


@pytest.fixture(scope="module")
def intensity() -> np.ndarray:
    return np.stack([OPTICS.intensity(x) for x in trajectory(disc(0))])


@pytest.fixture(scope="module")
def observations(intensity: np.ndarray) -> PatternObservations:
    counts = np.random.default_rng(0).poisson(100.0 * intensity[:N_FRAMES] / intensity[:N_FRAMES].max())
    return PatternObservations(counts, TIMES[:N_FRAMES], OPTICS, disc(0))


@pytest.fixture(scope="module")
def found(observations: PatternObservations) -> PatternFit:
    return fit(observations, MODEL, time_budget_s=120.0)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a[OPTICS.used], b[OPTICS.used])[0, 1])


def test_pattern_is_the_direct_sum() -> None:
    x = disc(1)
    q = OPTICS.q_inv_um
    weight = np.exp(-(x**2).sum(axis=1) / 2.5**2)
    a = (weight * np.exp(-1j * (q[40] * x[:, 0] + q[7] * x[:, 1]))).sum()
    assert OPTICS.intensity(x)[40, 7] == pytest.approx(abs(a) ** 2)
    assert OPTICS.intensity(x)[24, 24] == 0.0


def spheres(optics: PatternScattering, radius_um: float) -> PatternScattering:
    return replace(optics, sensitivity=sphere_form_factor(optics.radius_inv_um, radius_um))


def test_published_optics_are_those_of_the_published_code() -> None:
    """It sums on the grid of q, multiplies by the form factor and folds with 9 x 9 samples of the beam's transform."""
    optics, f_probe_um, radius_um = published_optics(), 0.25 * 5.0, 0.15
    x = SYSTEM.trajectory(disc_start(500, 2.5, np.random.default_rng(3)), 0.1 * np.arange(51))[-1]
    q = 2.0 * np.pi / 5.0 * np.arange(-24.0, 24.0, 0.75)
    np.testing.assert_allclose(optics.q_inv_um, q)
    cloud = np.exp(-1j * np.outer(q, x[:, 0])) @ np.exp(-1j * np.outer(q, x[:, 1])).T
    qr = radius_um * np.hypot(q[:, None], q[None, :])
    sphere = np.divide(3.0 * (np.sin(qr) - qr * np.cos(qr)), qr**3, out=np.ones_like(qr), where=qr > 0)
    near = np.hypot(*np.meshgrid(q[28:37], q[28:37]))
    folded = convolve2d(cloud * sphere, np.exp(-0.5 * (near * f_probe_um) ** 2), mode="same")
    expected = np.abs(folded) ** 2
    np.testing.assert_array_equal(optics.used, np.hypot(q[:, None], q[None, :]) > 0.05 * 48 * 2.0 * np.pi / 5.0)
    seen = optics.intensity(x)[optics.used]
    assert np.corrcoef(seen, expected[optics.used])[0, 1] > 0.999
    assert np.count_nonzero(seen < 1e-3 * seen.max()) > 1000


@pytest.mark.parametrize("radius_um", [0.0, 0.1])
def test_derivative_of_a_pattern(radius_um: float) -> None:
    optics, rng = spheres(OPTICS, radius_um), np.random.default_rng(2)
    x, tangent = disc(1), rng.standard_normal((N, 2, 3))
    pixels = np.array([5, 400, 1500, 2300])
    value, slope = optics.with_tangents(x, tangent, pixels)
    np.testing.assert_allclose(value, replace(optics, beam_stop_px=0.0).intensity(x).ravel()[pixels])
    h = 1e-6
    for k in range(3):
        plus, minus = (optics.with_tangents(x + s * tangent[:, :, k], tangent, pixels)[0] for s in (h, -h))
        np.testing.assert_allclose(slope[:, k], (plus - minus) / (2 * h), rtol=1e-4, atol=1e-3)
    by_position = optics.with_position_slopes(x, pixels)
    np.testing.assert_allclose(by_position[0], value)
    np.testing.assert_allclose(by_position[1] @ tangent.reshape(2 * N, 3), slope, rtol=1e-4, atol=1e-3)
    in_torch = torch_intensity(optics, torch.from_numpy(x)[None])[0].numpy().ravel()[pixels]
    np.testing.assert_allclose(in_torch, value, rtol=1e-3)


def test_a_form_factor_is_not_taken_for_a_force(observations: PatternObservations, found: PatternFit) -> None:
    """Spheres of 0.1 um, seen by a detector of which one half counts two photons of three."""
    uneven = np.where(np.arange(48) < 24, 2.0 / 3.0, 1.0)[:, None]
    optics = spheres(OPTICS, 0.1)
    optics = replace(optics, sensitivity=optics.response * uneven)
    expected = np.stack([optics.intensity(x) for x in trajectory(disc(0))[:N_FRAMES]])
    counts = np.random.default_rng(0).poisson(100.0 * expected / expected.max())
    run = replace(observations, counts=counts, scattering=optics)
    r = np.linspace(0.1, 0.72, 60)
    force, sd = fit(run, MODEL, time_budget_s=120.0).kernel(r)
    true = SYSTEM.radial_force(r)
    assert np.sqrt(((force - true) ** 2 * r).sum() / (true**2 * r).sum()) < 0.1
    assert (np.abs(force - true) < 2.0 * sd).mean() > 0.7
    # With more time, a fit that explains nothing looks for another start.
    unsaid = fit(replace(run, scattering=OPTICS), MODEL, time_budget_s=10.0)
    assert unsaid.chi2 > 1.3 > found.chi2


def test_a_detector_that_cannot_be_is_refused() -> None:
    for sensitivity, said in (
        (np.ones((4, 4)), "4, 4"),
        (np.full((48, 48), -1.0), ">= 0"),
        (np.zeros((48, 48)), "No pixel"),
    ):
        with pytest.raises(FitRefused, match=said):
            replace(OPTICS, sensitivity=sensitivity)


def test_force_is_found_from_nothing(found: PatternFit) -> None:
    r = np.linspace(0.1, 0.72, 60)
    force, sd = found.kernel(r)
    true = SYSTEM.radial_force(r)
    assert np.sqrt(((force - true) ** 2 * r).sum() / (true**2 * r).sum()) < 0.1
    assert (np.abs(force - true) < 2.0 * sd).mean() > 0.7
    assert found.chi2 == pytest.approx(1.0, abs=0.15)


def test_patterns_hold_at_four_times_the_run(found: PatternFit, intensity: np.ndarray) -> None:
    last = found.patterns(TIMES)[-1]
    assert likeness(last, intensity[-1]) > 0.99
    assert likeness(intensity[N_FRAMES], intensity[-1]) < 0.95


def test_few_times_are_not_integrated_more_coarsely(found: PatternFit) -> None:
    """Asked for the last pattern alone, the motion to it must be that of a whole film."""
    np.testing.assert_allclose(found.positions(TIMES[[0, -1]])[-1], found.positions(TIMES)[-1], atol=1e-6)


def test_bands_hold_the_truth_ahead(observations: PatternObservations, intensity: np.ndarray) -> None:
    """A dim run: two standard deviations of what the force's uncertainty makes of the patterns, at twice the run."""
    scale = 3.0 / intensity[:N_FRAMES].max()
    dim = replace(observations, counts=np.random.default_rng(1).poisson(scale * intensity[:N_FRAMES]))
    found = fit(dim, MODEL, time_budget_s=120.0)
    ahead = forecast(found, TIMES[2 * N_FRAMES])
    assert ahead.photons.shape == (2 * N_FRAMES + 1, OPTICS.size, OPTICS.size)
    truth = scale * intensity[2 * N_FRAMES]
    held = np.abs(ahead.photons[-1] - truth) < 2.0 * ahead.photons_sd[-1]
    assert 0.7 < held[OPTICS.used].mean() < 0.995
    assert likeness(ahead.photons[-1], truth) > likeness(intensity[N_FRAMES], intensity[2 * N_FRAMES])
    assert found.chi2 == pytest.approx(1.0, abs=0.02)
    assert found.photons_per_intensity == pytest.approx(scale, rel=0.02)
    for until_s in (np.nan, 0.0, 100.0 * TIMES[N_FRAMES]):
        with pytest.raises(FitRefused, match="not possible"):
            forecast(found, until_s)


def test_the_choice_of_pixels_does_not_depend_on_what_they_happened_to_see() -> None:
    """Pixels of one expectation: those that are chosen must not be the brighter ones."""
    counts, used = np.random.default_rng(0).poisson(0.02, (10, 100, 100)), np.ones((100, 100), bool)
    rng = np.random.default_rng(1)
    some = chosen_pixels(counts, used, rng, 2000)
    assert len(np.unique(some)) == 2000
    assert counts.reshape(10, -1)[:, some].mean() == pytest.approx(0.02, rel=0.15)
    used[:, :40] = False
    np.testing.assert_array_equal(chosen_pixels(counts, used, rng, 10_000), np.flatnonzero(used))
    assert used.ravel()[chosen_pixels(counts, used, rng, 2000)].all()


@pytest.mark.parametrize("expected", [0.003, 0.1, 3.0, 200.0])
def test_photon_noise_has_the_misfit_that_is_expected_of_it(expected: float) -> None:
    counts = np.random.default_rng(0).poisson(expected, 200_000)
    misfit, weight = photon_misfit(counts, np.full(counts.shape, expected))
    mean, variance = misfit_by_chance(np.array([expected]))
    assert misfit.mean() == pytest.approx(mean[0], rel=0.05)
    assert misfit.var() == pytest.approx(variance[0], rel=0.1)
    assert ((weight > 0.0) & (weight <= 1.0)).all()


def test_slope_of_the_misfit_is_the_pull() -> None:
    """Steps follow what the misfit says, also beyond the Huber cut."""
    counts, expected = np.array([0.0, 1.0, 2.0, 50.0]), np.array([0.3, 0.01, 2.5, 3.0])
    weight = photon_misfit(counts, expected)[1]
    above, below = (photon_misfit(counts, expected + h)[0] for h in (1e-6, -1e-6))
    np.testing.assert_allclose((below - above) / 4e-6, weight * (counts - expected) / (expected + DARK), rtol=1e-5)


def test_the_force_holds_for_another_start(found: PatternFit) -> None:
    start = disc(9)
    truth = OPTICS.intensity(trajectory(start)[-1])
    assert likeness(found.patterns(TIMES, start)[-1], truth) > 0.98


SIXTY_MODEL = DynamicsModel(n_coefficients=24, cutoff_um=0.9)


@pytest.fixture(scope="module")
def sixty() -> tuple[np.ndarray, PatternScattering, np.ndarray]:
    """Start, optics and true patterns (to four times the run of 40 frames) of 60 particles, 0.1 um apart."""
    optics, start = PatternScattering(64, 1.0, probe_um=2.0), disc_start(60, 0.87, np.random.default_rng(0))
    return start, optics, np.stack([optics.intensity(x) for x in SYSTEM.trajectory(start, 0.1 * np.arange(161))])


def seen_with_error(
    sixty: tuple[np.ndarray, PatternScattering, np.ndarray], error_um: float, brightest: float = 1000.0
) -> PatternObservations:
    start, optics, truth = sixty
    counts = np.random.default_rng(1).poisson(brightest * truth[:40] / truth[:40].max())
    wrong = start + np.random.default_rng(2).normal(0.0, error_um, start.shape)
    return PatternObservations(counts, 0.1 * np.arange(40), optics, wrong)


@pytest.mark.parametrize("brightest", [100.0, 1000.0])
def test_a_start_wrong_by_half_a_neighbour_distance_is_corrected(
    sixty: tuple[np.ndarray, PatternScattering, np.ndarray], brightest: float
) -> None:
    """Also from fewer photons than tell the positions of one frame: the later frames tell them, too."""
    start, optics, truth = sixty
    assert neighbour_distance_um(start) == pytest.approx(0.1, rel=0.2)
    fitted = fit(seen_with_error(sixty, 0.05, brightest), SIXTY_MODEL, time_budget_s=3600.0)
    assert "were corrected by" in fitted.warnings[0]
    assert fitted.mode == "patterns; start corrected"
    assert fitted.chi2 == pytest.approx(1.0, abs=0.05)
    ahead = forecast(fitted, 16.0)
    assert np.corrcoef(ahead.photons[-1][optics.used], truth[-1][optics.used])[0, 1] > 0.99
    # What is left unknown of the start is part of the band.
    without = forecast(replace(fitted, joint_covariance=None), 16.0)
    assert (ahead.photons_sd[0][optics.used] > 0.0).all()
    assert without.photons_sd[0].max() < 1e-9


def test_new_frames_after_a_corrected_start(sixty: tuple[np.ndarray, PatternScattering, np.ndarray]) -> None:
    """The start goes with the law that later frames ask for, so that the film stays one motion."""
    _, optics, truth = sixty
    seen = seen_with_error(sixty, 0.05)
    early = fit(until(seen, 20), SIXTY_MODEL, time_budget_s=3600.0)
    late = fit(seen, SIXTY_MODEL, state=early)
    assert late.state is not None
    np.testing.assert_allclose(late.positions(seen.times_s)[-1], late.state.end_um, atol=2e-3)
    assert np.abs(late.start_um - early.start_um).max() > 1e-6
    ahead, before = late.patterns(0.1 * np.arange(161)), early.patterns(0.1 * np.arange(161))

    def likeness_to_truth(patterns: np.ndarray, k: int) -> float:
        return float(np.corrcoef(patterns[k][optics.used], truth[k][optics.used])[0, 1])

    assert likeness_to_truth(ahead, 160) > 0.99
    assert likeness_to_truth(ahead, 160) >= likeness_to_truth(before, 160) - 1e-3


def test_slopes_by_positions_are_those_along_unit_vectors(
    sixty: tuple[np.ndarray, PatternScattering, np.ndarray],
) -> None:
    x, pixels = sixty[0][:7], np.arange(0, 64 * 64, 37)
    for optics in (sixty[1], replace(sixty[1], probe_um=None)):
        value, slope = optics.with_position_slopes(x, pixels)
        same, along = optics.with_tangents(x, np.eye(14).reshape(7, 2, 14), pixels)
        np.testing.assert_allclose(value, same, rtol=1e-12)
        np.testing.assert_allclose(slope, along, atol=1e-5 * np.abs(slope).max())


def test_a_start_wrong_by_a_whole_neighbour_distance_is_not_identifiable(
    sixty: tuple[np.ndarray, PatternScattering, np.ndarray],
) -> None:
    with pytest.raises(NotIdentifiable, match="half a neighbour distance"):
        fit(seen_with_error(sixty, 0.1), SIXTY_MODEL, time_budget_s=40.0)


def test_a_wrong_start_is_not_identifiable(observations: PatternObservations) -> None:
    blurred = observations.start_um + np.random.default_rng(3).normal(0, 0.2, (N, 2))
    with pytest.raises(NotIdentifiable, match="half a neighbour distance"):
        fit(replace(observations, start_um=blurred), MODEL)


def test_poisoned_patterns_are_refused(observations: PatternObservations) -> None:
    counts = observations.counts.astype(float)
    counts[3, 4, 5] = np.nan
    with pytest.raises(FitRefused, match="not finite"):
        replace(observations, counts=counts)
    with pytest.raises(FitRefused, match="at least two"):
        replace(observations, start_um=observations.start_um[:1])
    with pytest.raises(FitRefused, match="at least two"):
        replace(observations, start_um=np.empty((0, 2)))
    with pytest.raises(FitRefused, match="nothing to tell apart"):
        replace(observations, start_um=np.zeros((N, 2)))
    with pytest.raises(FitRefused, match="saw a photon"):
        fit(replace(observations, counts=np.zeros_like(observations.counts)), MODEL)


def test_budget_is_honoured(observations: PatternObservations) -> None:
    result = fit(observations, MODEL, time_budget_s=0.0)
    assert "time budget" in result.warnings[0]
    assert np.isfinite(result.coefficients).all()


def until(observations: PatternObservations, n: int) -> PatternObservations:
    return replace(observations, counts=observations.counts[:n], times_s=observations.times_s[:n])


def test_new_frames_go_on_where_the_fit_ended(observations: PatternObservations, found: PatternFit) -> None:
    uninterrupted = resumed = fit(until(observations, 10), MODEL, time_budget_s=120.0)
    for n in (15, 20, N_FRAMES):
        uninterrupted = fit(until(observations, n), MODEL, state=uninterrupted)
        assert resumed.state is not None
        saved = PatternState.from_arrays(resumed.state.to_arrays())
        resumed = fit(until(observations, n), MODEL, state=replace(resumed, state=saved))
    np.testing.assert_allclose(resumed.coefficients, uninterrupted.coefficients, rtol=1e-10)
    np.testing.assert_allclose(resumed.covariance, uninterrupted.covariance, rtol=1e-10)
    assert resumed.used_frames == N_FRAMES
    # In blocks or at once, the same photons say nearly the same: the filter is linear in what it carries.
    r = np.linspace(0.1, 0.72, 40)
    force, whole, true = resumed.kernel(r)[0], found.kernel(r)[0], SYSTEM.radial_force(r)
    assert np.linalg.norm(force - whole) < 0.05 * np.linalg.norm(whole)
    assert np.sqrt(((force - true) ** 2 * r).sum() / (true**2 * r).sum()) < 0.1


def test_frames_already_known_change_nothing(observations: PatternObservations, found: PatternFit) -> None:
    with pytest.raises(FitRefused, match="No frame is later"):
        fit(observations, MODEL, state=found)


def test_a_state_is_checked() -> None:
    with pytest.raises(ResultError, match="missing: mean"):
        PatternState.from_arrays({"version": np.array(1)})
