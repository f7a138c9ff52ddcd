"""The ready systems against known physics, and every example file against its own truth, smaller than published."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from beamline_ml.dynamics import (
    DynamicsModel,
    PatternScattering,
    PhaseObservations,
    PhaseScattering,
    RigidObservations,
    RigidScattering,
    fit,
    sphere_form_factor,
)
from beamline_ml.dynamics.phase_fit import phase_motion
from beamline_ml.dynamics.rigid_motion import exponents, planar_motion
from beamline_ml.dynamics.spline import fit_spline
from beamline_ml.dynamics.systems.active_colloids import ActiveColloids, fit_active
from beamline_ml.dynamics.systems.brownian_colloids import BrownianColloids
from beamline_ml.dynamics.systems.fluctuating_source import FluctuatingSource, cloud
from beamline_ml.dynamics.systems.kuramoto_lattice import KuramotoLattice
from beamline_ml.dynamics.systems.motion import runge_kutta
from beamline_ml.dynamics.systems.self_organising import SelfOrganising, disc_start
from beamline_ml.dynamics.systems.swarmalators import Swarmalators
from beamline_ml.errors import FitRefused, NotIdentifiable
from beamline_ml.simulation import RingSample, scatter_into_rings

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def example(name: str, **smaller: object) -> ModuleType:
    """An example file as a module, with other constants."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for key, value in smaller.items():
        assert hasattr(module, key)
        setattr(module, key, value)
    return module


def figures(printed: str, line: str) -> list[float]:
    """Numbers of the printed line that begins so."""
    found = next(said for said in printed.splitlines() if said.startswith(line))
    return [float(number) for number in re.findall(r"-?\d+\.\d+", found[len(line) :])]


def is_figure(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


def test_runge_kutta_is_of_fourth_order() -> None:
    times = np.linspace(0.0, 2.0, 5)
    misses = [
        np.abs(runge_kutta(lambda t, y: np.cos(t) * y, np.ones(1), times, n)[:, 0] - np.exp(np.sin(times))).max()
        for n in (4, 8)
    ]
    assert misses[0] < 1e-4
    assert misses[0] / misses[1] == pytest.approx(16.0, rel=0.3)


def test_momentum_of_self_organising_particles_is_kept() -> None:
    start = disc_start(60, 1.0, np.random.default_rng(0))
    x = SelfOrganising().trajectory(start, np.arange(20) * 0.2)
    np.testing.assert_allclose(x.mean(axis=1), np.tile(start.mean(axis=0), (20, 1)), atol=1e-10)
    assert np.linalg.norm(x[-1] - x[-1].mean(0)) < 0.98 * np.linalg.norm(start - start.mean(0))


def test_stokes_einstein() -> None:
    # 0.2 um of diameter in water at 25 C: 2.45 um^2/s.
    assert BrownianColloids().diffusion_um2_per_s == pytest.approx(2.45, abs=0.01)
    r = np.linspace(0.25, 0.95, 20)
    colloids = BrownianColloids()
    energy = 0.2 / r * np.exp(-(r - 0.2) / 0.2)
    slope = -np.gradient(energy, r, edge_order=2) * colloids.diffusion_um2_per_s
    np.testing.assert_allclose(colloids.radial_force(r)[1:-1], slope[1:-1], rtol=0.05)
    assert colloids.radial_force(np.array([1.01]))[0] == 0.0


def test_free_colloids_obey_einstein() -> None:
    colloids = BrownianColloids(contact_energy_kt=0.0)
    start = np.random.default_rng(0).uniform(0, 20.0, (3000, 2))
    *_, last = colloids.motion(start, 20.0, 0.002, 21, np.random.default_rng(1))
    moved = ((last - start) ** 2).sum(axis=1).mean()
    assert moved == pytest.approx(4 * colloids.diffusion_um2_per_s * 0.04, rel=0.06)


@pytest.fixture(scope="module")
def swimmers() -> RingSample:
    return example("active_colloids", N_TIMES=20, N_BOXES=40, PER_BOX=80).scattered(ActiveColloids(), RINGS, 0)


RINGS = np.array([[0.5, 0.8], [0.9, 1.2], [1.4, 1.7], [2.0, 2.3], [2.8, 3.2]])


def test_field_correlation_of_swimmers_is_exact() -> None:
    lags = np.linspace(0.0, 0.5, 11)
    passive = ActiveColloids(0.3, 1e-9, 1.0).field_correlation(2.0, lags)
    np.testing.assert_allclose(passive, np.exp(-4.0 * 0.3 * lags), rtol=1e-9)
    # Without turning the mean over headings is a Bessel function.
    straight = ActiveColloids(1e-9, 3.0, 1e-9).field_correlation(1.5, lags)
    angle = (np.arange(400) + 0.5) * 2 * np.pi / 400
    np.testing.assert_allclose(straight, np.cos(1.5 * 3.0 * np.outer(lags, np.cos(angle))).mean(1), atol=1e-6)


def test_swimmers_scatter_as_the_law_says(swimmers: RingSample) -> None:
    for k, q in enumerate(swimmers.q_inv_um):
        law = ActiveColloids().field_correlation(q, 0.02 * np.arange(20)) ** 2
        seen = [np.diagonal(swimmers.f2[k], n).mean() for n in range(20)]
        np.testing.assert_allclose(seen, law, atol=0.08)


def test_swimming_is_told_from_diffusion(swimmers: RingSample) -> None:
    found = fit_active(swimmers.observations(30))
    truth = ActiveColloids()
    assert found.colloids.speed_um_per_s == pytest.approx(truth.speed_um_per_s, rel=0.15)
    assert found.colloids.diffusion_um2_per_s == pytest.approx(truth.diffusion_um2_per_s, rel=0.4)
    assert 0.0 < found.speed_um_per_s_err < 1.0
    model = found.c2(swimmers.q_inv_um, 0.02 * np.arange(1, 20))
    seen = np.stack([[np.diagonal(c2, n).mean() for n in range(1, 20)] for c2 in swimmers.c2[:, :30, :30]])
    assert np.sqrt(((model - seen) ** 2).mean()) < 0.04


def test_too_little_to_tell_swimming_is_refused(swimmers: RingSample) -> None:
    with pytest.raises(FitRefused, match="swimming"):
        fit_active(swimmers.observations(4))


def test_rings_count_what_they_should() -> None:
    """Free particles: S = 1, |f|^2 = exp(-2 D q^2 tau), and the counting error is what repeated counts scatter by."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 10.0, (20, 100, 2))
    x = np.stack([start, start + np.sqrt(2 * 0.5 * 0.05) * rng.standard_normal(start.shape)])
    edges = np.array([[2.0, 2.6], [3.0, 3.4]])
    samples = [scatter_into_rings(x, 10.0, np.array([0.05, 0.1]), edges, 2.0, np.random.default_rng(s)) for s in (0, 1)]
    np.testing.assert_allclose(samples[0].structure_factor, 1.0, atol=0.15)
    law = np.exp(-2 * 0.5 * samples[0].q_inv_um ** 2 * 0.05)
    np.testing.assert_allclose(samples[0].f2[:, 0, 1], law, atol=0.05)
    apart = np.abs(samples[0].c2[:, 0, 1] - samples[1].c2[:, 0, 1]) / samples[0].c2_err[:, 0, 1]
    assert (apart < 4.0).all()
    assert (samples[0].c2_err < 0.2).all()


def test_noise_does_not_speed_up_the_decay() -> None:
    """Weights taken from measured C2 would raise D by a quarter; truth and fit share no simulator."""
    module = example("brownian_colloids", N_TIMES=3)
    truth = BrownianColloids().diffusion_um2_per_s
    model = DynamicsModel(interacting=False, n_members=18, cutoff_um=1.0, n_per_box=400)
    ratios = []
    for seed in (0, 1, 2):
        rng = np.random.default_rng(seed)
        scattered = module.run(np.zeros(8), truth, rng.uniform(0, module.BOX_UM, (4, 300, 2)), rng)
        found = fit(scattered.observations(12), model, time_budget_s=120.0)
        assert abs(np.log(found.diffusion_um2_per_s / truth)) < 3.5 * np.sqrt(found.covariance[-1, -1])
        ratios.append(found.diffusion_um2_per_s / truth)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)


def swarm(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([disc_start(n, 1.0, rng), rng.uniform(0, 2 * np.pi, n)])


@pytest.mark.parametrize("mobile", [True, False])
def test_tangents_of_phase_motion(mobile: bool) -> None:
    """Exact derivatives along every coefficient, against differences of whole trajectories."""
    rng = np.random.default_rng(1)
    splines = rng.normal(0, 0.05, (3, 6)) * np.array([[mobile], [mobile], [1.0]])
    start, times, n = swarm(12, 2), np.arange(5) * 0.2, 18 if mobile else 6
    tangents = phase_motion(start, times, splines, 1.2, mobile, n)[1]
    for parameter in range(n):
        step = np.zeros(18)
        step[parameter if mobile else 12 + parameter] = 1e-6
        plus, minus = (
            phase_motion(start, times, splines + sign * step.reshape(3, 6), 1.2, mobile)[0] for sign in (1, -1)
        )
        np.testing.assert_allclose(tangents[..., parameter], (plus - minus) / 2e-6, atol=2e-6)


def test_phase_kernel_and_system_agree() -> None:
    """A smooth law, written once as a spline for the fit and once as the system's sum over all particles."""
    system = Swarmalators(0.5, 0.5, n_particles=15, core=0.6)
    start, times = swarm(15, 3), np.arange(6) * 0.1
    splines = np.stack([fit_spline(lambda r, b=b: system.kernel(r)[b], 300, 6.0) for b in range(3)])
    found = phase_motion(start, times, splines, 6.0, True)[0]
    np.testing.assert_allclose(found, system.trajectory(start, times), atol=2e-3)
    np.testing.assert_allclose(found.mean(axis=1), np.tile(start.mean(axis=0), (6, 1)), atol=1e-10)
    few = phase_motion(start, times[[0, -1]], splines, 6.0, True, longest_s=0.1)[0]
    np.testing.assert_allclose(few[-1], found[-1], atol=1e-10)


@pytest.mark.parametrize(("charge", "contrast", "probe_um"), [(1.0, 0.5, 1.2), (0.0, 1.0, None)])
def test_derivative_of_a_phase_pattern(charge: float, contrast: float, probe_um: float | None) -> None:
    optics = PatternScattering(32, 0.9, probe_um=probe_um, beam_stop_px=0.0)
    optics = replace(optics, sensitivity=sphere_form_factor(optics.radius_inv_um, 0.1))
    scattering = PhaseScattering(optics, charge, contrast)
    state, tangent = swarm(20, 4), np.random.default_rng(5).standard_normal((20, 3, 2))
    pixels = np.array([7, 300, 555, 1000])
    value, slope = scattering.with_tangents(state, tangent, pixels)
    np.testing.assert_allclose(value, scattering.intensity(state).ravel()[pixels])
    for k in range(2):
        plus, minus = (scattering.intensity(state + s * tangent[:, :, k]).ravel()[pixels] for s in (1e-6, -1e-6))
        np.testing.assert_allclose(slope[:, k], (plus - minus) / 2e-6, rtol=1e-4, atol=1e-3)


def test_phases_without_meaning_are_refused() -> None:
    scattering = PhaseScattering(PatternScattering(16, 1.0))
    times, start = np.arange(4.0), swarm(5, 6)
    good = PhaseObservations(np.ones((4, 16, 16)), times, scattering, start)
    with pytest.raises(FitRefused, match="do not match"):
        replace(good, times_s=times[:3])
    with pytest.raises(FitRefused, match="not \\(n >= 2, 3\\)"):
        replace(good, start=start[:, :2])
    with pytest.raises(FitRefused, match="negative"):
        replace(good, counts=-good.counts)
    with pytest.raises(FitRefused, match="one pattern for ever"):
        replace(good, mobile=False)
    pattern = scattering.intensity(start)
    bright = np.tile(np.random.default_rng(0).poisson(1e3 * pattern / pattern.max()), (4, 1, 1))
    with pytest.raises(NotIdentifiable, match="start positions"):
        fit(replace(good, counts=bright, start=swarm(5, 7)))
    found = fit(replace(good, counts=bright), DynamicsModel(n_coefficients=4, cutoff_um=1.0), time_budget_s=0.0)
    assert "time budget" in found.warnings[0]


def test_example_swarmalators(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("swarmalators", N=60, N_FRAMES=40).main(tmp_path / "figure.png")
    said = capsys.readouterr().out
    assert figures(said, "error of the force (um/s)")[0] < 0.1
    assert figures(said, "error of the force x cos(phase difference) (um/s)")[0] < 0.15
    assert figures(said, "error of the phase coupling (rad/s)")[0] < 0.3
    _, ours, still = figures(said, "correlation with the truth: least")
    assert ours > 0.98 > still
    assert figures(said, "another start (101), at 4 runs:")[0] > 0.95
    assert is_figure(tmp_path / "figure.png")


def test_example_kuramoto_lattice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("kuramoto_lattice", SYSTEM=KuramotoLattice(size=10), N_FRAMES=20).main(tmp_path / "figure.png")
    said = capsys.readouterr().out
    assert figures(said, "error of the coupling")[0] < 0.1
    least, _, still = figures(said, "correlation with the truth: least")
    assert least > 0.98 > still
    assert figures(said, "another start (102), at 4 runs:")[0] > 0.95
    assert is_figure(tmp_path / "figure.png")


def test_example_self_organising(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("self_organising", N=150, N_FRAMES=25, FRAME_S=0.2).main(tmp_path / "figure.png")
    said = capsys.readouterr().out
    assert figures(said, "error of the force")[0] < 0.12
    ours, still = figures(said, "correlation with the truth at 4 runs")
    assert ours > 0.99 > still
    assert figures(said, "another start (102), at 4 runs")[0] > 0.97
    assert is_figure(tmp_path / "figure.png")


def test_example_driven_particles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("driven_particles", N=40, N_FRAMES=30, ALONE_S=5.0).main(tmp_path / "figure.png")
    said = capsys.readouterr().out
    alone, whole = figures(said, "chi-squared of a radial force alone")
    assert alone > 1.3 > 1.05 > whole
    shear, sd, true = figures(said, "shear rate (1/s)")
    assert abs(shear - true) < 4.0 * sd < 0.02
    assert figures(said, "error of its cos 2 phi")[0] < 0.1
    ours, lost = figures(said, "correlation with the truth at 4 runs")
    assert ours > 0.97 > 0.7 > lost
    assert is_figure(tmp_path / "figure.png")


def test_example_brownian_colloids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("brownian_colloids", N_BOXES=2, N_TIMES=10).main(tmp_path / "figure.png")
    said = capsys.readouterr().out
    d, _, true = figures(said, "diffusion")
    assert d == pytest.approx(true, rel=0.35)
    assert "describes the data: True" in said
    ours = figures(said, "crystal start        |f|^2 of the fit")[0]
    assert ours < 0.6 * figures(said, "crystal start        |f|^2 of the no force")[0]
    assert is_figure(tmp_path / "figure.png")


def test_example_active_colloids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("active_colloids", N_TIMES=20, PER_BOX=60).main(tmp_path / "figure.png")
    said = capsys.readouterr().out
    speed, _, true = figures(said, "speed")
    assert speed == pytest.approx(true, rel=0.15)
    ours, diffusive = figures(said, "|f|^2 from 1 to 4 runs")
    assert ours < 0.3 * diffusive
    assert "describes the data: False" in said
    assert is_figure(tmp_path / "figure.png")


def test_sources_keep_what_prey_and_predators_keep() -> None:
    source = FluctuatingSource()
    path = source.trajectory(np.array([0.2, 0.1]), np.arange(60) * 0.4)
    assert np.ptp(source.invariant(path)) < 1e-8
    assert np.abs(source.velocity(np.zeros(2))).max() < 1e-12


def test_tangents_of_planar_motion() -> None:
    rng = np.random.default_rng(0)
    law, times, start = rng.normal(0, 0.2, (len(exponents()), 2)), np.arange(6) * 0.2, np.array([0.3, -0.2])
    tangents = planar_motion(start, times, law, law.size + 2)[1]
    for k in range(law.size + 2):
        step = np.zeros(law.size + 2)
        step[k] = 1e-6
        plus, minus = (
            planar_motion(start + s * step[-2:], times, law + s * step[:-2].reshape(law.shape), 0)[0] for s in (1, -1)
        )
        np.testing.assert_allclose(tangents[..., k], (plus - minus) / 2e-6, atol=1e-6)


@pytest.mark.parametrize("beam_moves", [True, False])
def test_derivative_of_a_rigid_pattern(beam_moves: bool) -> None:
    optics = PatternScattering(32, 0.9, probe_um=1.0, beam_stop_px=0.0)
    scattering = RigidScattering(optics, cloud(30, 1.0, np.random.default_rng(1)), beam_moves)
    u, tangent, pixels = np.array([0.2, -0.1]), np.array([[1.0, 0.3], [0.2, -1.0]]), np.array([5, 400, 800])
    value, slope = scattering.with_tangents(u[None], tangent[None], pixels)
    np.testing.assert_allclose(value, scattering.intensity(u).ravel()[pixels])
    for k in range(2):
        plus, minus = (scattering.intensity(u + s * tangent[:, k]).ravel()[pixels] for s in (1e-6, -1e-6))
        np.testing.assert_allclose(slope[:, k], (plus - minus) / 2e-6, rtol=1e-4, atol=1e-3)


def test_a_motion_that_no_law_of_the_place_explains_is_told() -> None:
    """The object goes to and fro on one line: at one place it has two velocities."""
    optics = PatternScattering(24, 1.0, probe_um=1.0)
    scattering = RigidScattering(optics, cloud(30, 1.0, np.random.default_rng(1)))
    times = 0.1 * np.arange(30.0)
    for turns, explained in ((False, True), (True, False)):
        along = np.minimum(times, times[-1] - times) if turns else times / 2.0
        true = np.stack([scattering.intensity(np.array([0.4 * x, 0.1])) for x in along])
        counts = np.random.default_rng(0).poisson(300.0 * true / true.max())
        found = fit(RigidObservations(counts, times, scattering, np.array([0.0, 0.1])), time_budget_s=60.0)
        assert found.describes_data == explained
        assert any("does not describe the data" in said for said in found.warnings) != explained


def test_rigid_motion_without_meaning_is_refused() -> None:
    with pytest.raises(FitRefused, match="plane wave"):
        RigidScattering(PatternScattering(16, 1.0), np.zeros((3, 2)))
    points = cloud(30, 1.0, np.random.default_rng(1))
    scattering = RigidScattering(PatternScattering(16, 1.0, probe_um=1.0), points)
    pattern = scattering.intensity(np.zeros(2))
    counts = np.tile(np.random.default_rng(0).poisson(1e3 * pattern / pattern.max()), (5, 1, 1))
    good = RigidObservations(counts, np.arange(5.0), scattering, np.zeros(2))
    with pytest.raises(FitRefused, match="do not match"):
        replace(good, times_s=np.arange(4.0))
    with pytest.raises(FitRefused, match="one position"):
        replace(good, start_um=np.zeros(3))
    with pytest.raises(NotIdentifiable, match="start"):
        fit(replace(good, start_um=np.array([1.5, 1.5])))
    with pytest.raises(FitRefused, match="Leave state out"):
        fit(good, state=fit(good, time_budget_s=0.0))  # type: ignore[call-overload]


def test_example_fluctuating_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("fluctuating_source", ROUNDS=8).main(tmp_path / "figure.png")
    said = capsys.readouterr().out
    assert figures(said, "error of the law along the orbit")[0] < 0.1
    error, least = figures(said, "up to 4 runs:")
    assert error < 0.08
    assert least > 0.99
    error, extent = figures(said, "another orbit from (0.2, 0.0): largest error in 4 runs")
    assert error < 0.4 * extent
    assert is_figure(tmp_path / "figure.png")


def test_example_probe_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("probe_scan").main(tmp_path / "figure.png")
    said = capsys.readouterr().out
    assert figures(said, "run 1:")[0] < 0.02
    error, angle, least, still = figures(said, "run 2:")
    assert error < 0.4
    assert angle < 0.4
    assert least > 0.8 > still
    assert figures(said, "another scan from (-0.4, -0.2): largest error")[0] < 0.2
    assert is_figure(tmp_path / "figure.png")
