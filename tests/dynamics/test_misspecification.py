"""Truths that the pair model does not contain: the fit says so, and the published forecast is not the wrong model's."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from beamline_ml.dynamics import DynamicsModel, fit, forecast
from beamline_ml.dynamics.baselines import BASELINES
from beamline_ml.dynamics.contest import CORRECTED, LAWS, NEURAL_ODE, best_curve, published
from beamline_ml.dynamics.result import BEYOND_CHANCE
from tests.benchmarks.bench_dynamics import NO_LIMIT_S
from tests.dynamics.foreign_truths import N_BLOCKS, Case, sample

MODEL = DynamicsModel(
    n_coefficients=8, cutoff_um=0.8, n_boxes=2, n_per_box=200, n_members=24, steps_per_time=4, n_threads=1
)
LARGE = replace(MODEL, n_per_box=600)
CONTAINED = "pairwise"


@cache
def case(name: str) -> Case:
    """Of the law that is contained a larger sample, in which chance decides less: 120 to 400 speckles a ring."""
    truth = sample(name, per_box=400) if name == CONTAINED else sample(name)
    found = fit(truth.observations(N_BLOCKS), LARGE if name == CONTAINED else MODEL, time_budget_s=NO_LIMIT_S)
    return Case(truth, found, forecast(found, float(truth.times_s[-1])))


def test_a_law_that_the_model_contains_is_described_and_forecast_best() -> None:
    """By hand, in four samples: 0.27 to 0.44 of the best simple forecast's error."""
    judged = case(CONTAINED)
    assert judged.found.describes_data
    assert not any("does not describe" in said for said in judged.found.warnings)
    assert judged.ahead.method == NEURAL_ODE
    assert judged.published_over_best < 0.7
    assert judged.coverage > 0.85


FOREIGN = ["three_body", "anisotropic", "drifting_density", "ageing_viscosity"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_law_is_not_described(name: str) -> None:
    judged = case(name)
    assert not judged.found.describes_data
    assert judged.found.chi2 > 1.2 * case(CONTAINED).found.chi2
    assert "does not describe the data" in judged.found.warnings[-1]


def test_a_law_that_a_free_force_imitates_is_told() -> None:
    """Behind by 2.4 to 3.0 margins in four samples (by hand), where the law that is contained was by 0.3 at most."""
    found = fit(sample("ageing_viscosity").observations(N_BLOCKS), LARGE, time_budget_s=NO_LIMIT_S)
    _, behind_by = found.best_curve or ("", 0.0)
    assert behind_by > 0.6 * BEYOND_CHANCE > (case(CONTAINED).found.best_curve or ("", 0.0))[1]
    assert not found.describes_data
    assert forecast(found, 2.0 * float(found.times_s[-1])).method != NEURAL_ODE


@pytest.mark.parametrize(
    ("name", "over_best"),
    # In hindsight another forecast may have been better than the one that was best on the run itself: at most 1.86,
    # 1.71, 0.76 and 1.77 (four samples each, by hand). Little decides which was best, also rounding.
    [("three_body", 2.4), ("anisotropic", 2.2), ("drifting_density", 1.3), ("ageing_viscosity", 2.3)],
)
def test_a_foreign_law_is_forecast_as_well_as_without_the_model(name: str, over_best: float) -> None:
    judged = case(name)
    contest, method = judged.found.contest, judged.ahead.method
    best = contest[best_curve(contest) or ""]
    assert method != NEURAL_ODE or contest[NEURAL_ODE] <= best, "no curve may be better than such a law"
    assert method in (*LAWS, *BASELINES)
    assert judged.published_over_best <= over_best
    assert judged.coverage > 0.75


def test_what_is_within_chance_goes_to_the_force_if_it_describes_the_run() -> None:
    judged = case(CONTAINED)
    curves = {name: score for name, score in judged.found.contest.items() if name not in LAWS}
    best, margin = min(curves.values()), judged.found.contest_margin

    def method(behind_by: float, chi2: float) -> str:
        contest = curves | {NEURAL_ODE: best + behind_by * margin}
        return forecast(replace(judged.found, contest=contest, chi2=chi2), until_s).method

    until_s = float(judged.truth.times_s[-1])
    assert method(-0.1, chi2=9.0) == method(2.4, chi2=1.0) == NEURAL_ODE
    assert method(0.1, chi2=9.0) == method(2.6, chi2=1.0) == method(2.4, chi2=2.0) == published(curves, margin)


@pytest.mark.parametrize(
    ("law", "corrected", "noise", "wins"),
    # of a curve at 0.1, behind which the corrected law may be by 0.01, two and a half times, where it leaves only noise
    [
        (0.090, 0.080, 0.085, CORRECTED),
        (0.090, 0.080, 0.075, NEURAL_ODE),
        (0.090, 0.095, 0.200, NEURAL_ODE),
        (0.110, 0.124, 0.130, CORRECTED),
        (0.110, 0.124, 0.120, "homodyne"),
        (0.110, 0.126, 0.130, "homodyne"),
        (0.110, 0.099, 0.050, CORRECTED),
    ],
)
def test_a_law_that_does_not_describe_the_run_is_corrected_if_that_leaves_only_noise(
    law: float, corrected: float, noise: float, wins: str
) -> None:
    contest = {NEURAL_ODE: law, CORRECTED: corrected, "homodyne": 0.1, "gp": 0.2}
    judged = replace(case(CONTAINED).found, contest=contest, corrected_margin=0.01, contest_noise=noise, chi2=9.0)
    assert judged.winner == wins
    assert replace(judged, chi2=1.0, contest_margin=0.01).winner == NEURAL_ODE


def test_the_band_of_a_law_that_does_not_describe_the_run_grows_by_what_is_no_noise() -> None:
    judged = case("anisotropic")
    until_s = float(judged.truth.times_s[-1])

    def half(noise: float) -> np.ndarray:
        ahead = forecast(replace(judged.found, contest_noise=noise), until_s)
        return 0.5 * (ahead.upper - ahead.lower)[:, 0]

    method = judged.ahead.method
    assert method == NEURAL_ODE
    added = (half(0.0) ** 2 - half(1.0) ** 2)[0] / (1.96 * judged.found.contrast[0] * judged.found.contest[method]) ** 2
    np.testing.assert_allclose(added[1:N_BLOCKS], 0.25, rtol=1e-3)
    np.testing.assert_allclose(added[-1], 4.25, rtol=1e-3)


def test_own_speckles_are_carried_on_where_they_are_asked_for() -> None:
    """C2 of these very speckles is nearer to what they will show, that of the sample to what any would show."""
    judged = case(CONTAINED)
    own = forecast(judged.found, float(judged.truth.times_s[-1]), own_speckles=True)
    assert judged.miss(own, judged.shown) < judged.miss(judged.ahead, judged.shown)
    # Intensities of so few speckles stray further than their fields; both share what is not known of the contrast.
    known = replace(judged.found, contrast_err=np.zeros_like(judged.found.contrast_err))
    own, other = (forecast(known, float(judged.truth.times_s[-1]), own_speckles=which) for which in (True, False))
    assert (own.upper - own.lower).mean() > 1.02 * (other.upper - other.lower).mean()
    assert judged.miss(judged.ahead, judged.truth.f2) < judged.miss(own, judged.truth.f2)
