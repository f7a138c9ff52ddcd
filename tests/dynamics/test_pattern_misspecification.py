"""Whole patterns of laws that the model does not contain: the fit says so, and simple forecasts may be published."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.dynamics.contest import NEURAL_ODE
from beamline_ml.dynamics.pattern_baselines import PATTERN_BASELINES, FadingPictures, dmd, persistence, relaxation
from beamline_ml.dynamics.pattern_contest import PatternContest, pattern_contest
from beamline_ml.dynamics.pattern_fit import fit_patterns
from beamline_ml.dynamics.pattern_forecast import forecast_patterns
from beamline_ml.dynamics.pattern_misses import of_displaced, square_displacement_um2
from beamline_ml.dynamics.pattern_state import RECENT_FRAMES
from beamline_ml.dynamics.pattern_stream import go_on
from beamline_ml.dynamics.patterns import PatternObservations, PatternScattering
from tests.dynamics.foreign_patterns import CONTAINED, MODEL, N_FRAMES, OPTICS, TIMES, judged, patterns


@pytest.mark.parametrize("brightest", [100.0, 3.0, 0.3])
def test_a_law_that_the_model_contains_is_described(brightest: float) -> None:
    case = judged(CONTAINED, 0.0, brightest)
    assert case.found.chi2 == pytest.approx(1.0, abs=4.0 * case.found.chi2_err)
    assert abs(case.found.steadiness.beyond_chance) < 3.0
    assert case.found.describes_data
    assert not case.found.warnings
    assert case.ahead.method == NEURAL_ODE
    assert case.ahead.refused is None
    assert case.over_best < 0.2
    assert case.coverage > 0.85


@pytest.mark.parametrize(
    ("name", "strength", "brightest"),
    [
        ("three_body", 0.3, 100.0),
        ("three_body", 0.5, 3.0),
        ("anisotropic", 0.1, 100.0),
        ("stiffening", 0.1, 100.0),
        ("stiffening", 1.0, 3.0),
        ("diffusing", 0.003, 100.0),
        ("leaving", 0.1, 100.0),
    ],
)
def test_a_foreign_law_is_told_where_a_force_nearly_imitates_it(name: str, strength: float, brightest: float) -> None:
    case = judged(name, strength, brightest)
    assert not case.found.describes_data
    assert "does not describe the data" in case.found.warnings[-1]
    assert case.over_best < 1.8
    assert case.coverage > 0.75
    assert case.ahead.contest[case.ahead.method] == min(case.ahead.contest.values())


def test_a_simple_forecast_is_published_where_the_law_was_behind_it() -> None:
    case = judged("anisotropic", 1.0, 100.0)
    assert case.found.chi2 > 2.0
    assert case.ahead.method in PATTERN_BASELINES
    assert case.over_best < 1.2
    assert case.coverage > 0.7
    assert (case.ahead.refused is not None) == (case.ahead.method in ("persistence", "mean"))
    law = case.found.patterns(TIMES)
    assert np.abs(case.ahead.photons - law)[N_FRAMES:].max() > 1.0
    seen = np.abs(case.ahead.photons - law)[1:N_FRAMES]
    assert seen.max() < 0.5 * law.max(), "of the run itself it is what the law makes of it"


def test_another_sample_is_foretold_by_the_law() -> None:
    """No simple forecast knows it; the band holds what the law missed."""
    found = judged("anisotropic", 1.0, 100.0).found
    other = forecast_patterns(found, TIMES[:5], found.start_um[::-1].copy())
    assert other.method == NEURAL_ODE
    assert (other.photons_sd[1:, OPTICS.used] > 0.0).all()


def test_new_frames_of_another_law_are_told() -> None:
    """The particles stiffen after the first half of the run; what went before was a law that the model contains."""
    case = judged(CONTAINED, 0.0, 100.0)
    half = N_FRAMES // 2
    seen = PatternObservations(case.counts[:half], TIMES[:half], OPTICS, case.found.start_um)
    began = fit_patterns(seen, MODEL, 60.0)
    assert began.describes_data
    assert began.state is not None
    assert len(began.state.recent_counts) == min(half, RECENT_FRAMES)
    usual = go_on(began, PatternObservations(case.counts, TIMES[:N_FRAMES], OPTICS, case.found.start_um))
    assert usual.describes_data
    assert usual.steadiness != began.steadiness
    assert usual.contest is not None
    assert usual.contest.scores[NEURAL_ODE] < 0.2 < usual.contest.scores["persistence"]
    stopped = np.random.default_rng(0).poisson(np.broadcast_to(case.photons[half], case.counts[half:].shape))
    frozen = PatternObservations(
        np.concatenate([case.counts[:half], stopped]), TIMES[:N_FRAMES], OPTICS, case.found.start_um
    )
    found = go_on(began, frozen)
    assert not found.describes_data
    assert "parts of the run ask for different laws" in found.warnings[-1]
    assert found.curve is not None
    again = go_on(replace(began, warnings=("kept",)), frozen)
    assert again.warnings == ("kept", *found.doubts)


def test_pictures_that_fade_and_turn_are_continued() -> None:
    """Dynamic mode decomposition and relaxation against signals that are exactly theirs."""
    times = 0.1 * np.arange(30)
    base, real, imaginary = np.random.default_rng(0).uniform(5.0, 9.0, (3, 40))
    base, turning = base + 20.0, real + 1.0j * imaginary
    signal = base + np.real(turning[None] * np.exp((-0.2 + 3.0j) * times)[:, None])
    found = dmd(signal, times)
    later = times[-1] + 0.1 * np.arange(1, 20)
    want = base + np.real(turning[None] * np.exp((-0.2 + 3.0j) * later)[:, None])
    np.testing.assert_allclose(found.at(later), want, rtol=1e-6)
    still = np.broadcast_to(base, (30, 40))
    for law in PATTERN_BASELINES.values():
        np.testing.assert_allclose(law(still, times).at(later), np.broadcast_to(base, (19, 40)), rtol=1e-6)


def test_relaxation_fades_at_the_rate_of_the_run() -> None:
    """Ornstein-Uhlenbeck pixels with a correlation time of 0.5 s."""
    rng = np.random.default_rng(3)
    step, n, pixels = 0.1, 400, 300
    kept = np.exp(-step / 0.5)
    x = rng.standard_normal((1, pixels))
    for _ in range(n - 1):
        x = np.concatenate([x, kept * x[-1:] + np.sqrt(1.0 - kept**2) * rng.standard_normal((1, pixels))])
    found = relaxation(100.0 + x, step * np.arange(n))
    assert -1.0 / found.rates_per_s[1].real == pytest.approx(0.5, rel=0.1)


def test_persistence_averages_where_frames_are_noisy_and_not_where_they_move() -> None:
    rng = np.random.default_rng(0)
    times = np.arange(40.0)
    noisy = rng.poisson(1.0, (40, 500))
    np.testing.assert_allclose(persistence(noisy, times).at(times[-1:] + 1.0)[0], noisy[-16:].mean(axis=0))
    moving = 1e4 * rng.uniform(size=(1, 500)) * np.exp(0.3 * times)[:, None]
    np.testing.assert_allclose(persistence(moving, times).at(times[-1:] + 1.0)[0], moving[-1])


def test_photon_noise_has_no_say_in_the_contest() -> None:
    """A perfect forecast scores 0 whatever the noise, and patterns that have nothing in common the root of 2."""
    rng = np.random.default_rng(0)
    light = rng.exponential(3.0, (60, 4000))
    counts = rng.poisson(light)
    around = np.full(4000, counts.mean())
    contest = pattern_contest(counts, np.arange(60.0), around, {30: light[30:]})
    assert contest is not None
    assert contest.misses[NEURAL_ODE] == pytest.approx(0.0, abs=0.01)
    other = pattern_contest(counts, np.arange(60.0), around, {30: rng.exponential(3.0, (30, 4000))})
    assert other is not None
    assert other.misses[NEURAL_ODE] == pytest.approx(2.0, rel=0.03)
    assert other.ahead_s == pytest.approx(np.sqrt((np.arange(1, 31) ** 2).mean()))
    lost = pattern_contest(counts, np.arange(60.0), around, {30: np.full((30, 4000), np.nan)})
    assert lost is not None
    assert lost.scores[NEURAL_ODE] == np.inf
    assert pattern_contest(counts[:20], np.arange(20.0), around, {3: light[3:20]}) is None, "too little to learn from"
    both = contest.joined(other)
    assert both.misses[NEURAL_ODE] == pytest.approx(1.0, abs=0.03)
    assert both.n == 2 * contest.n


def test_patterns_of_displaced_particles_are_off_as_foretold() -> None:
    """Against particles that are displaced: what is still known of their speckles, and how far that is off."""
    rng = np.random.default_rng(0)
    scattering = PatternScattering(48, 1.0)
    q, square_um2 = scattering.radius_inv_um, 0.004
    before, after = [], []
    for _ in range(60):
        x = rng.uniform(-8.0, 8.0, (300, 2))
        before.append(scattering.intensity(x))
        after.append(scattering.intensity(x + np.sqrt(square_um2) * rng.standard_normal(x.shape)))
    light = np.where(scattering.used, 300.0, 0.0)
    difference = (np.stack(after) - before)[:, scattering.used]
    missed = float((difference**2).mean() / 300.0**2)
    assert square_displacement_um2(missed, light, q) == pytest.approx(square_um2, rel=0.05)
    guess, variance = of_displaced(np.stack(before), light, q, np.full(60, square_um2))
    off = (np.stack(after) - guess)[:, scattering.used]
    assert (off**2).mean() == pytest.approx(variance[:, scattering.used].mean(), rel=0.03)
    assert (off**2).mean() < 0.8 * (difference**2).mean()
    bright = np.stack(before)[:, scattering.used] > 600.0
    assert (off**2)[bright].mean() == pytest.approx(variance[:, scattering.used][bright].mean(), rel=0.06)
    assert 0.85 < (np.abs(off) <= 2.0 * np.sqrt(variance[:, scattering.used])).mean() < 0.99
    assert square_displacement_um2(0.0, light, q) == 0.0
    assert np.isfinite(square_displacement_um2(5.0, light, q))


def test_what_a_wrong_law_knows_of_speckles_is_forgotten_with_the_time() -> None:
    found = judged("stiffening", 1.0, 3.0).found
    ahead = forecast_patterns(found, TIMES)
    law = forecast_patterns(replace(found, contest=None), TIMES)
    np.testing.assert_array_equal(ahead.photons[:N_FRAMES], law.photons[:N_FRAMES])
    np.testing.assert_array_equal(ahead.photons_sd[:N_FRAMES], law.photons_sd[:N_FRAMES])
    rest = [float(np.var(one.photons[k][OPTICS.used])) for one in (ahead, law) for k in (N_FRAMES, 2 * N_FRAMES - 1)]
    assert 1.0 > rest[0] / rest[2] > 1.3 * rest[1] / rest[3]
    assert (ahead.photons_sd[-1] > ahead.photons_sd[N_FRAMES])[OPTICS.used].mean() > 0.9


def test_scores_of_nobody_are_no_contest() -> None:
    found = replace(judged("stiffening", 1.0, 3.0).found, contest=None, curve=None)
    assert found.winner == NEURAL_ODE
    assert forecast_patterns(found, TIMES[:3]).contest == {}
    nothing = PatternContest({NEURAL_ODE: -0.1, "mean": -0.2}, 1.0, 10)
    assert (
        replace(found, contest=nothing, curve=FadingPictures(np.zeros((1, 9)), np.zeros(1), 0.0)).winner == NEURAL_ODE
    )


def test_true_patterns_hold_what_they_are_named_after() -> None:
    """The laws' strengths of 0 are the seed's own."""
    usual = patterns(CONTAINED, 0.0, 0)[0]
    for name in ("three_body", "anisotropic", "stiffening", "leaving"):
        np.testing.assert_allclose(patterns(name, 0.0, 0)[0], usual, rtol=1e-6, atol=1e-6 * usual.max())
