"""Correlations of a sample with a known force: the fit finds it, the forecast holds, and both know their limits."""

from __future__ import annotations

import importlib
import re
import time
from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.dynamics import CorrelationObservations, DynamicsFit, DynamicsModel, fit, forecast
from beamline_ml.dynamics.baselines import Observed, persistence
from beamline_ml.dynamics.compression import log_s_of
from beamline_ml.dynamics.ensembles import simulate_all
from beamline_ml.dynamics.neighbours import build_pairs
from beamline_ml.dynamics.speckle_noise import unit_deviations
from beamline_ml.dynamics.spline import fit_spline
from beamline_ml.dynamics.statistical_gauss_newton import belief_from
from beamline_ml.dynamics.surrogates import make_scene
from beamline_ml.errors import FitRefused, ResultError

Q = np.array([3.0, 5.0, 7.0, 9.0])
TIMES = np.arange(1, 13) * 0.25
DIFFUSION = 0.02
DENSITY = 12.0
N_SPECKLES = 400.0
SMALL = DynamicsModel(n_coefficients=6, cutoff_um=0.8, n_boxes=2, n_per_box=150, n_members=24, steps_per_time=4)


def attraction(r: np.ndarray) -> np.ndarray:
    core = 0.05 * np.exp(-((np.asarray(r) / 0.15) ** 2))
    return core - 0.02 * np.sin(np.pi * np.clip(np.asarray(r) / 0.8, 0, 1)) ** 2


def ideal(force: bool, n_times: int) -> tuple[np.ndarray, np.ndarray]:
    """f^2 and log S of a large sample, (n_q, n_times, n_times) and (n_q, n_times)."""
    times = np.arange(1, n_times + 1) * 0.25
    scene = replace(make_scene(empty(n_times), SMALL), velocity_scale_um_per_s=1.0)
    coefficients = fit_spline(attraction, 16, 0.8) if force else np.zeros(16)
    truth = np.tile(np.append(coefficients, np.log(DIFFUSION)), (12, 1))
    # Members of a group share their particles: twelve groups of two would be twelve samples, so seeds differ by call.
    runs = [simulate_all(scene, times, truth, seed, 1) for seed in (1, 2, 3)]
    return np.mean([run.f2.mean(0) for run in runs], axis=0), np.mean([run.log_s.mean(0) for run in runs], axis=0)


def empty(n_times: int) -> CorrelationObservations:
    flat = np.ones((len(Q), n_times, n_times))
    return CorrelationObservations(
        flat, 0.002 * flat, np.ones((len(Q), n_times)), Q, np.arange(1, n_times + 1) * 0.25, DENSITY
    )


def observed(f2: np.ndarray, log_s: np.ndarray, seed: int = 0) -> CorrelationObservations:
    """What a detector with few speckles and contrast 0.3 would have measured in the first blocks."""
    rng = np.random.default_rng(seed)
    n = len(TIMES)
    c2 = 1.0 + 0.3 * f2[:, :n, :n]
    intensity = np.exp(log_s[:, :n]) * np.array([50.0, 30.0, 20.0, 10.0])[:, None]
    for k in range(len(Q)):
        f = np.sqrt(np.clip(f2[k, :n, :n], 0, 1))
        np.fill_diagonal(f, 1.0)
        of_c2, of_s = unit_deviations(f, 0.3, rng)
        c2[k] += of_c2[0] / np.sqrt(N_SPECKLES)
        intensity[k] *= np.exp(of_s[0] / np.sqrt(N_SPECKLES))
    return CorrelationObservations(
        c2=c2,
        c2_err=np.full_like(c2, 0.002),
        structure_factor=intensity,
        q_inv_um=Q,
        times_s=TIMES,
        number_density_per_um2=DENSITY,
        n_speckles=np.full(len(Q), N_SPECKLES),
        contrast=np.full(len(Q), 0.3),
        contrast_err=np.full(len(Q), 0.01),
    )


def measured_f(found: DynamicsFit) -> Observed:
    contrast = found.contrast[:, None, None]
    return Observed((found.c2 - 1.0) / contrast, found.c2_err / contrast, found.times_s, found.q_inv_um)


@pytest.fixture(scope="module")
def truth() -> tuple[np.ndarray, np.ndarray]:
    return ideal(True, 2 * len(TIMES))


@pytest.fixture(scope="module")
def found(truth: tuple[np.ndarray, np.ndarray]) -> DynamicsFit:
    return fit(observed(*truth), SMALL, time_budget_s=120.0)


def test_the_logarithm_of_a_noisy_structure_factor_is_not_too_small() -> None:
    """Twenty photons a ring and block: log S would be 2.5 % too small, less where there is more light: like growth."""
    photons, rings = 20.0, 4000
    counts = np.random.default_rng(4).poisson(photons, (rings, 8))
    seen = CorrelationObservations(
        c2=np.ones((rings, 8, 8)),
        c2_err=np.ones((rings, 8, 8)),
        structure_factor=counts / photons,
        structure_factor_err=np.sqrt(counts) / photons,
        q_inv_um=np.linspace(1.0, 2.0, rings),
        times_s=np.arange(8.0),
        number_density_per_um2=1.0,
        absolute=True,
    )
    assert abs(log_s_of(seen).mean()) < 0.006 < abs(np.log(seen.structure_factor).mean())


def test_diffusion_within_its_error(found: DynamicsFit) -> None:
    assert abs(found.diffusion_um2_per_s - DIFFUSION) < 3.0 * found.diffusion_um2_per_s_err
    assert found.diffusion_um2_per_s == pytest.approx(DIFFUSION, rel=0.3)
    assert found.describes_data


def test_kernel_within_its_band(found: DynamicsFit) -> None:
    r = np.linspace(0.2, 0.75, 13)
    force, sd = found.kernel(r)
    # Weighted by r as the structure factor sees it; resolution is pi / q_max = 0.35 um.
    error = np.sqrt(((force - attraction(r)) ** 2 * r).sum() / (attraction(r) ** 2 * r).sum())
    assert error < 0.6
    assert (np.abs(force - attraction(r)) < 4.0 * sd + 0.01).all()
    assert force[6] + 2.0 * sd[6] < 0


def test_forecast_beats_persistence_on_the_future(found: DynamicsFit, truth: tuple[np.ndarray, np.ndarray]) -> None:
    n = len(TIMES)
    ahead = forecast(found, 2.0 * TIMES[-1])
    assert len(ahead.times_s) == 2 * n
    assert ahead.times_s[n - 1] < ahead.observed_until_s < ahead.times_s[n]
    first, second = np.triu_indices(2 * n, k=1)
    future = first >= n
    true = 1.0 + 0.3 * truth[0][:, first[future], second[future]]
    error = np.sqrt(((ahead.c2[:, first[future], second[future]] - true) ** 2).mean())
    still = persistence(measured_f(found), ahead.times_s)[:, first[future], second[future]]
    inside = (ahead.lower[:, first[future], second[future]] <= true) & (
        true <= ahead.upper[:, first[future], second[future]]
    )
    assert error < 0.75 * np.sqrt(((1.0 + 0.3 * still - true) ** 2).mean())
    assert inside.mean() > 0.8  # of a sample of which this small model follows 300 particles a member
    for part in (ahead.c2, ahead.lower, ahead.upper, ahead.s_q, ahead.s_q_lower, ahead.s_q_upper):
        assert np.isfinite(part).all()
    assert ahead.method in ahead.contest
    # Whoever is published is behind the best by chance only.
    assert ahead.score <= min(ahead.contest.values()) + found.contest_margin


def test_a_winner_that_is_not_the_neural_ode_costs_no_simulation(
    found: DynamicsFit, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("beamline_ml.dynamics.forecast")
    until_s = 1.5 * float(found.times_s[-1])
    whole = forecast(replace(found, contest={"gp": 0.1}), until_s)
    monkeypatch.setattr(module, "simulate_apart", None)
    lean = forecast(replace(found, contest={"gp": 0.1}, contest_s={"log_log_line": 0.1}), until_s)
    assert (whole.method, lean.method) == ("gp", "gp")
    np.testing.assert_array_equal(lean.c2, whole.c2)
    np.testing.assert_array_equal(lean.upper, whole.upper)


@pytest.mark.parametrize(
    ("ode", "margin", "chi2", "said"),
    # Without a margin the score is not blind.
    [
        (0.09, 0.01, 1.5, None),
        (0.12, 0.01, 1.0, None),
        (0.12, 0.01, 1.9, None),
        (0.12, 0.01, 2.4, "chi-squared 2.4 (limit 3) and the simple forecast gp .* together more than chance"),
        (0.13, 0.01, 1.0, "the simple forecast gp foretold .* by 3.0 standard errors (limit 2.5)"),
        (0.13, 0.01, 3.1, "chi-squared 3.1 (limit 3)"),
        (0.09, 0.01, 3.1, "chi-squared 3.1 (limit 3)"),
        (0.5, 0.0, 1.0, None),
    ],
)
def test_misfit_and_contest_say_that_the_law_is_another(
    found: DynamicsFit, ode: float, margin: float, chi2: float, said: str | None
) -> None:
    judged = replace(found, contest={"neural_ode": ode, "gp": 0.1, "dmd": 0.2}, contest_margin=margin, chi2=chi2)
    assert judged.describes_data == (said is None)
    if said is None:
        assert judged.doubts == ()
    else:
        first = said.replace("(", r"\(").replace(")", r"\)")
        assert re.fullmatch(first, judged.doubts[0])
        assert len(judged.doubts) == 1 + (ode > 0.125 and chi2 > 3.0)


def test_round_trip_through_arrays(found: DynamicsFit) -> None:
    arrays = found.to_arrays()
    assert all(array.dtype.kind in "fiubU" for array in arrays.values())
    again = DynamicsFit.from_arrays(arrays)
    for name, array in again.to_arrays().items():
        assert np.array_equal(array, arrays[name], equal_nan=array.dtype.kind == "f"), name
    with pytest.raises(ResultError, match="missing: coefficients"):
        DynamicsFit.from_arrays({k: v for k, v in arrays.items() if k != "coefficients"})


def test_same_seed_same_answer(truth: tuple[np.ndarray, np.ndarray]) -> None:
    quick = replace(SMALL, n_members=14, n_boxes=1, n_per_box=80)
    data = observed(*truth)
    first, second = (fit(data, quick, time_budget_s=120.0, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.coefficients, second.coefficients)


def test_free_particles_need_no_force() -> None:
    f2, log_s = ideal(False, len(TIMES))
    result = fit(observed(f2, log_s), SMALL, time_budget_s=120.0)
    r = np.linspace(0.2, 0.7, 6)
    force, sd = result.kernel(r)
    assert (np.abs(force) < 4.0 * sd + 0.02).all()
    assert result.diffusion_um2_per_s == pytest.approx(DIFFUSION, rel=0.2)


def test_no_time_is_honoured_and_said(truth: tuple[np.ndarray, np.ndarray]) -> None:
    began = time.monotonic()
    result = fit(observed(*truth), SMALL, time_budget_s=0.01)
    assert time.monotonic() - began < 30.0
    assert any("time budget" in said for said in result.warnings)
    assert np.isfinite(forecast(result, 6.0).c2).all()


@pytest.mark.parametrize("until_s", [np.nan, np.inf, 0.1, 1000.0])
def test_forecasts_without_meaning_are_refused(found: DynamicsFit, until_s: float) -> None:
    with pytest.raises(FitRefused):
        forecast(found, until_s)


def test_too_few_blocks_are_refused() -> None:
    with pytest.raises(FitRefused, match="too few"):
        fit(empty(4), SMALL)


@pytest.mark.parametrize(
    ("wound", "said"),
    [
        ({"number_density_per_um2": 0.0}, "no particles"),
        ({"number_density_per_um2": float("nan")}, "no particles"),
        ({"structure_factor": np.zeros((4, 8))}, "not a positive number"),
        ({"structure_factor": np.full((4, 8), np.nan)}, "not a positive number"),
        ({"c2": np.full((4, 8, 8), np.nan)}, "no measured pair"),
        ({"c2_err": np.full((4, 8, 8), np.nan)}, "no measured pair"),
    ],
)
def test_poison_is_refused(wound: dict[str, np.ndarray | float], said: str) -> None:
    with pytest.raises(FitRefused, match=said):
        replace(empty(8), **wound)


def test_a_poisoned_block_is_left_out(truth: tuple[np.ndarray, np.ndarray]) -> None:
    whole = observed(*truth)
    c2 = whole.c2.copy()
    c2[:, 4] = c2[:, :, 4] = np.nan
    c2[1, 2, 7] = c2[1, 7, 2] = np.inf
    found = fit(replace(whole, c2=c2), replace(SMALL, n_members=14, n_boxes=1, n_per_box=80), time_budget_s=60.0)
    ahead = forecast(found, 1.5 * TIMES[-1])
    for part in (found.coefficients, found.covariance, ahead.c2, ahead.lower, ahead.upper, ahead.s_q):
        assert np.isfinite(part).all()


def test_too_stiff_a_force_is_refused() -> None:
    scene = make_scene(empty(8), SMALL)
    stiff = np.tile(np.append(np.full(SMALL.n_coefficients, 1e300), 0.0), (6, 1))
    with pytest.raises(FitRefused, match="finite motion"):
        simulate_all(scene, TIMES[:8], stiff, 0, 1)


def test_a_collapsed_heap_is_refused() -> None:
    with pytest.raises(FitRefused, match="collapsed"):
        build_pairs(np.zeros((400, 2)), 0.0, 0.8, max_pairs=50_000)


def test_mismatched_arrays_are_refused() -> None:
    good = empty(8)
    with pytest.raises(FitRefused):
        replace(good, q_inv_um=Q[:2])
    with pytest.raises(FitRefused):
        replace(good, times_s=good.times_s[::-1])


@pytest.mark.parametrize("spoil", ["pull", "information"])
def test_a_regression_that_does_not_settle_is_refused(spoil):
    given = {"information": np.eye(9), "pull": np.ones(9)}
    given[spoil] = given[spoil] * (1e200 if spoil == "pull" else np.nan)
    with pytest.raises(FitRefused, match="does not settle"):
        belief_from(given["information"], given["pull"], np.zeros(9), np.zeros(9), 10.0, 1.0)
