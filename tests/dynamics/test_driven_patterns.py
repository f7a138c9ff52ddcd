"""Patterns of particles that drift, or whose force depends on direction, or of whose law something is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from beamline_ml.dynamics import (
    CorrelationObservations,
    DynamicsModel,
    OneBody,
    PatternFit,
    PatternObservations,
    PatternScattering,
    fit,
)
from beamline_ml.dynamics.growing_horizon import fit_growing
from beamline_ml.dynamics.pattern_forecast import forecast_patterns
from beamline_ml.dynamics.pattern_state import PatternState
from beamline_ml.dynamics.pattern_work import PatternWork
from beamline_ml.dynamics.systems.self_organising import SelfOrganising, disc_start
from beamline_ml.errors import FitRefused
from tests.dynamics.foreign_patterns import along_x

SYSTEM = SelfOrganising()
OPTICS = PatternScattering(64, 1.0, probe_um=2.0)
MODEL = DynamicsModel(n_coefficients=24, cutoff_um=0.9)
N, N_FRAMES = 60, 40
TIMES = 0.1 * np.arange(4 * N_FRAMES + 1)
START = disc_start(N, 0.87, np.random.default_rng(0))
FLOW = OneBody(np.array([0.05, -0.03]), np.array([[0.02, 0.06], [-0.03, -0.03]]), START.mean(axis=0))
RADII = np.linspace(0.1, 0.72, 40)
LONG = 3600.0
Truths = Callable[[str], np.ndarray]


def trajectory(flowing: bool, directed: bool) -> np.ndarray:
    """Truth from sums over all pairs and an adaptive integrator, neither of which the fit knows."""

    def rate(_: float, y: np.ndarray) -> np.ndarray:
        x = y.reshape(N, 2)
        step = x[:, None] - x[None]
        r = np.sqrt((step**2).sum(-1)) + np.eye(N)
        e = step / r[..., None]
        force = SYSTEM.radial_force(r)
        if directed:
            force = force + along_x(r) * np.cos(2.0 * np.arctan2(e[..., 1], e[..., 0]))
        drift = FLOW.velocity_um_per_s + (x - FLOW.about_um) @ FLOW.gradient_per_s.T
        return ((force[..., None] * e).sum(axis=1) + flowing * drift).ravel()

    solved = solve_ivp(rate, TIMES[[0, -1]], START.ravel(), "DOP853", TIMES, rtol=1e-7, atol=1e-9)
    return solved.y.T.reshape(len(TIMES), N, 2)


@pytest.fixture(scope="module")
def truths() -> Truths:
    """True patterns by what moves the particles beside the radial force; each is computed once."""
    known: dict[str, np.ndarray] = {}

    def patterns(kind: str) -> np.ndarray:
        if kind not in known:
            path = trajectory(kind == "flowing", kind == "directed")
            known[kind] = np.stack([OPTICS.intensity(x) for x in path])
        return known[kind]

    return patterns


def seen(truth: np.ndarray, brightest: float, n_frames: int = N_FRAMES) -> PatternObservations:
    """Counts of the first frames; the scale is that of the whole run."""
    scale = brightest / truth[:N_FRAMES].max()
    counts = np.random.default_rng(1).poisson(scale * truth[:N_FRAMES])[:n_frames]
    return PatternObservations(counts, TIMES[:n_frames], OPTICS, START)


def until(observations: PatternObservations, n: int) -> PatternObservations:
    return replace(observations, counts=observations.counts[:n], times_s=observations.times_s[:n])


def likeness(found: PatternFit, truth: np.ndarray, times: tuple[int, ...]) -> list[float]:
    """Correlation of the patterns at multiples of the run."""
    at = [k * N_FRAMES for k in times]
    ahead = found.patterns(TIMES[[0, *at]])[1:]
    return [float(np.corrcoef(a[OPTICS.used], truth[k][OPTICS.used])[0, 1]) for a, k in zip(ahead, at, strict=True)]


def unaided_chi2(observations: PatternObservations) -> float:
    """Of a radial force alone on half the run; not through the front door, which would try other starts for a while."""
    n = N_FRAMES // 2
    return fit_growing(PatternWork(until(observations, n), MODEL, 0), n, np.inf).chi2


def error(found: PatternFit, true: np.ndarray, values: np.ndarray | None = None) -> float:
    """Of the force, relative, weighted by the number of pairs."""
    values = found.kernel(RADII)[0] if values is None else values
    return float(np.sqrt(((values - true) ** 2 * RADII).sum() / (true**2 * RADII).sum()))


@pytest.fixture(scope="module")
def flowing(truths: Truths) -> PatternFit:
    return fit(seen(truths("flowing"), 1000.0), replace(MODEL, drift="linear"), time_budget_s=LONG)


def assert_flow(found: PatternFit, share_of_velocity: float, share_of_gradient: float) -> None:
    assert found.drift is not None
    drift, (sd, gradient_sd) = found.drift.around(FLOW.about_um), found.drift_deviations()
    off, gradient_off = drift.velocity_um_per_s - FLOW.velocity_um_per_s, drift.gradient_per_s - FLOW.gradient_per_s
    assert (np.abs(off) < 3.0 * sd).all()
    assert (np.abs(gradient_off) < 3.0 * gradient_sd).all()
    assert np.linalg.norm(off) < share_of_velocity * np.linalg.norm(FLOW.velocity_um_per_s)
    assert np.linalg.norm(gradient_off) < share_of_gradient * np.linalg.norm(FLOW.gradient_per_s)


def test_a_flow_is_found_beside_the_force(flowing: PatternFit, truths: Truths) -> None:
    assert_flow(flowing, 0.05, 0.01)
    assert flowing.mode == "patterns; start known; drift linear"
    assert flowing.chi2 == pytest.approx(1.0, abs=0.02)
    assert error(flowing, SYSTEM.radial_force(RADII)) < 0.02
    assert min(likeness(flowing, truths("flowing"), (2, 3, 4))) > 0.99
    assert unaided_chi2(seen(truths("flowing"), 1000.0)) > 5.0


def test_a_flow_is_found_from_few_photons(truths: Truths) -> None:
    dim = seen(truths("flowing"), 100.0)
    found = fit(dim, replace(MODEL, drift="linear"), time_budget_s=LONG)
    assert_flow(found, 0.1, 0.02)
    assert found.chi2 == pytest.approx(1.0, abs=0.02)
    assert min(likeness(found, truths("flowing"), (2, 3, 4))) > 0.99
    assert unaided_chi2(dim) > 1.5


def test_a_force_that_depends_on_direction_is_found(truths: Truths) -> None:
    directed = seen(truths("directed"), 100.0)
    found = fit(directed, replace(MODEL, angular_harmonics=1), time_budget_s=LONG)
    values, sd = found.angular_kernel(RADII)
    assert values.shape == sd.shape == (2, len(RADII))
    true = along_x(RADII)
    assert error(found, true, values[0]) < 0.05
    assert (np.abs(values[0] - true) < 2.0 * sd[0]).mean() > 0.7
    assert np.abs(values[1]).max() < 0.05 * true.max()
    assert error(found, SYSTEM.radial_force(RADII)) < 0.1
    assert found.mode == "patterns; start known; angular harmonics 1"
    assert found.chi2 == pytest.approx(1.0, abs=0.02)
    assert min(likeness(found, truths("directed"), (2, 3, 4))) > 0.99
    assert unaided_chi2(directed) > 1.2


def test_a_known_part_of_the_force_helps_where_little_was_seen(truths: Truths) -> None:
    short = seen(truths("radial"), 30.0, 6)
    true = SYSTEM.radial_force(RADII)
    unaided = fit(short, MODEL, time_budget_s=LONG)
    aided = fit(short, replace(MODEL, known_force=lambda r: 0.8 * SYSTEM.radial_force(r)), time_budget_s=LONG)
    assert aided.mode == "patterns; start known; a force known"
    # The rest is learnt: nearer than what was known, and than what was seen.
    assert error(aided, true) < min(0.9 * error(unaided, true), 0.5 * 0.2)


WRONG = {
    "twice": lambda r: 2.0 * SYSTEM.radial_force(r),
    "no_attraction": lambda r: 0.03 * np.exp(-r / 0.2),
    "opposite": lambda r: -SYSTEM.radial_force(np.maximum(r, 0.1)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_wrongly_known_of_the_force_is_corrected(
    wrong: Callable[[np.ndarray], np.ndarray], truths: Truths
) -> None:
    model, bright = replace(MODEL, known_force=wrong), seen(truths("radial"), 1000.0, 20)
    before = fit(bright, model, time_budget_s=0.0)
    smooth = RADII[RADII > 0.2]
    np.testing.assert_allclose(before.kernel(smooth)[0], wrong(smooth), atol=0.03 * np.abs(wrong(smooth)).max())
    found = fit(bright, model, time_budget_s=LONG)
    assert error(found, SYSTEM.radial_force(RADII)) < 0.03
    assert found.chi2 == pytest.approx(1.0, abs=0.02)


def test_a_known_flow_acts_and_is_not_fitted(truths: Truths) -> None:
    """Of what is known, the velocity may be fitted all the same; it is no parameter where it is not."""
    observations = until(seen(truths("flowing"), 100.0), 20)
    known = fit(observations, replace(MODEL, known_drift=FLOW), time_budget_s=LONG)
    assert known.drift is not None
    np.testing.assert_array_equal(known.drift.parameters, FLOW.parameters)
    assert known.joint_covariance is None
    assert known.mode == "patterns; start known; a drift known"
    assert known.chi2 == pytest.approx(1.0, abs=0.02)
    part = replace(FLOW, velocity_um_per_s=np.zeros(2))
    found = fit(observations, replace(MODEL, drift="uniform", known_drift=part), time_budget_s=LONG)
    assert found.drift is not None
    np.testing.assert_array_equal(found.drift.gradient_per_s, FLOW.gradient_per_s)
    sd = found.drift_deviations()[0]
    assert (sd > 0.0).all()
    assert (np.abs(found.drift.velocity_um_per_s - FLOW.velocity_um_per_s) < 3.0 * sd).all()
    assert found.chi2 == pytest.approx(1.0, abs=0.02)


def test_new_frames_go_on_with_all_terms(flowing: PatternFit, truths: Truths) -> None:
    """Resumed from plain arrays or not; and with a prior that the state must remember."""
    observations = seen(truths("flowing"), 1000.0)
    model = replace(
        MODEL,
        drift="linear",
        angular_harmonics=1,
        known_force=SYSTEM.radial_force,
        known_drift=OneBody(0.5 * FLOW.velocity_um_per_s),
    )
    uninterrupted = resumed = fit(until(observations, 10), model, time_budget_s=LONG)
    for n in (20, 30, N_FRAMES):
        uninterrupted = fit(until(observations, n), model, state=uninterrupted)
        assert resumed.state is not None
        saved = PatternState.from_arrays(resumed.state.to_arrays())
        resumed = fit(until(observations, n), state=replace(resumed, state=saved))
    assert uninterrupted.joint_covariance is not None
    assert uninterrupted.drift is not None
    np.testing.assert_allclose(resumed.law.parameters, uninterrupted.law.parameters, rtol=1e-10)
    np.testing.assert_allclose(resumed.joint_covariance, uninterrupted.joint_covariance, rtol=1e-10)
    assert resumed.used_frames == N_FRAMES
    assert_flow(resumed, 0.1, 0.02)
    assert resumed.state is not None
    assert resumed.state.prior_mean[: MODEL.n_coefficients].any()
    np.testing.assert_allclose(resumed.positions(TIMES[:N_FRAMES])[-1], resumed.state.end_um, atol=2e-3)
    whole = flowing.kernel(RADII)[0]
    assert np.linalg.norm(resumed.kernel(RADII)[0] - whole) < 0.05 * np.linalg.norm(whole)
    with pytest.raises(FitRefused, match="asks for others"):
        fit(observations, replace(model, angular_harmonics=2), state=uninterrupted)


def test_a_forecast_draws_from_the_drift_as_well(flowing: PatternFit) -> None:
    assert flowing.joint_covariance is not None
    of_drift = np.zeros_like(flowing.joint_covariance)
    of_drift[-6:, -6:] = flowing.joint_covariance[-6:, -6:]
    spread = forecast_patterns(replace(flowing, joint_covariance=of_drift), TIMES[[0, 40, 160]], n_members=4).photons_sd
    assert spread[0].max() == 0.0
    assert 0.0 < spread[1][OPTICS.used].mean() < spread[2][OPTICS.used].mean()


def test_a_wrong_start_is_corrected_in_a_flow(truths: Truths) -> None:
    """Start, force and drift together; new frames then go on with the law, which the start follows."""
    wrong = START + np.random.default_rng(2).normal(0.0, 0.05, START.shape)
    observations = replace(seen(truths("flowing"), 1000.0), start_um=wrong)
    found = fit(until(observations, 30), replace(MODEL, drift="linear"), time_budget_s=LONG)
    assert found.mode == "patterns; start corrected; drift linear"
    assert found.joint_covariance is not None
    assert len(found.joint_covariance) == found.law.n_parameters + 2 * N
    assert found.chi2 == pytest.approx(1.0, abs=0.05)
    assert_flow(found, 0.15, 0.02)
    late = fit(observations, state=found)
    assert late.joint_covariance is not None
    assert late.state is not None
    assert len(late.joint_covariance) == late.law.n_parameters
    assert_flow(late, 0.15, 0.02)
    np.testing.assert_allclose(late.positions(TIMES[:N_FRAMES])[-1], late.state.end_um, atol=2e-3)
    assert likeness(late, truths("flowing"), (4,))[0] > 0.99


def test_a_plane_wave_shows_shear_but_no_velocity(truths: Truths) -> None:
    plane = replace(OPTICS, probe_um=None)
    # The motion, not the optics, is what the module's truth is for: another film of the same particles.
    path = trajectory(flowing=True, directed=False)[:20]
    intensity = np.stack([plane.intensity(x) for x in path])
    counts = np.random.default_rng(1).poisson(300.0 * intensity / intensity.max())
    observations = PatternObservations(counts, TIMES[:20], plane, START)
    with pytest.raises(FitRefused, match="no uniform drift"):
        fit(observations, replace(MODEL, drift="uniform"))
    found = fit(observations, replace(MODEL, drift="linear"), time_budget_s=LONG)
    assert any("not its velocity" in said for said in found.warnings)
    assert found.drift is not None
    sd, gradient_sd = found.drift_deviations()
    off = found.drift.gradient_per_s - FLOW.gradient_per_s
    assert np.linalg.norm(off) < 0.05 * np.linalg.norm(FLOW.gradient_per_s)
    assert (np.abs(off) < 3.0 * gradient_sd).all()
    assert (sd > np.abs(FLOW.velocity_um_per_s)).all()


def few_speckles() -> CorrelationObservations:
    """Free Brownian motion, of which a handful of speckles say next to nothing."""
    q, times = np.array([3.0, 5.0, 7.0, 9.0]), 0.25 * np.arange(1, 9)
    lag = np.abs(times[:, None] - times[None])
    c2 = 1.0 + 0.3 * np.exp(-2.0 * 0.02 * q[:, None, None] ** 2 * lag)
    flat = np.ones((len(q), len(times)))
    few, contrast, contrast_err = (np.full(len(q), value) for value in (2.0, 0.3, 0.03))
    return CorrelationObservations(
        c2, np.full_like(c2, 0.3), flat, q, times, 12.0, n_speckles=few, contrast=contrast, contrast_err=contrast_err
    )


def test_what_is_known_of_the_force_holds_for_correlations() -> None:
    def known(r: np.ndarray) -> np.ndarray:
        return -0.02 * np.sin(np.pi * np.clip(r / 0.8, 0.0, 1.0)) ** 2

    small = DynamicsModel(n_coefficients=6, cutoff_um=0.8, n_boxes=1, n_per_box=80, n_members=12, steps_per_time=2)
    aided = fit(few_speckles(), replace(small, known_force=known), time_budget_s=LONG)
    unaided = fit(few_speckles(), small, time_budget_s=LONG)
    deepest = np.abs(known(RADII)).max()
    assert np.abs(aided.kernel(RADII)[0] - known(RADII)).max() < 0.5 * deepest
    assert np.abs(unaided.kernel(RADII)[0] - known(RADII)).max() > 0.7 * deepest


def test_what_cannot_be_fitted_is_refused() -> None:
    for model in (
        DynamicsModel(drift="linear"),
        DynamicsModel(known_drift=FLOW),
        DynamicsModel(angular_harmonics=1),
    ):
        with pytest.raises(FitRefused, match="averaged over azimuth shows no drift"):
            fit(few_speckles(), model)
        with pytest.raises(FitRefused, match="do not go with"):
            replace(model, messages="network")
    with pytest.raises(FitRefused, match="do not go with known_force"):
        DynamicsModel(messages="logistic_network", known_force=along_x)
    with pytest.raises(FitRefused, match="'sideways' is unknown"):
        DynamicsModel(drift="sideways")
    with pytest.raises(FitRefused, match="negative"):
        DynamicsModel(angular_harmonics=-1)
    with pytest.raises(FitRefused, match="without interaction"):
        DynamicsModel(interacting=False, known_force=along_x)
    with pytest.raises(FitRefused, match="gradient_per_s"):
        OneBody(np.zeros(2), np.zeros(4))
    with pytest.raises(FitRefused, match="velocity_um_per_s"):
        OneBody(np.array([np.nan, 0.0]))
    for bad in (lambda r: np.full(len(r), np.inf), lambda r: 1.0):
        with pytest.raises(FitRefused, match="known_force"):
            DynamicsModel(known_force=bad).known_coefficients(1.0)
