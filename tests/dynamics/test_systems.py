"""The ready systems against known physics, and every example file against its own truth, smaller than published."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from beamline_ml.dynamics import DynamicsModel, fit
from beamline_ml.dynamics.systems.active_colloids import ActiveColloids, fit_active
from beamline_ml.dynamics.systems.brownian_colloids import BrownianColloids
from beamline_ml.dynamics.systems.motion import runge_kutta
from beamline_ml.dynamics.systems.self_organising import SelfOrganising, disc_start
from beamline_ml.errors import FitRefused
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
    model = DynamicsModel(interacting=False, n_members=18, cutoff_um=1.0)
    ratios = []
    for seed in (0, 1, 2):
        rng = np.random.default_rng(seed)
        scattered = module.run(np.zeros(8), truth, rng.uniform(0, module.BOX_UM, (4, 300, 2)), rng)
        found = fit(scattered.observations(12), model, time_budget_s=120.0)
        assert abs(np.log(found.diffusion_um2_per_s / truth)) < 3.5 * np.sqrt(found.covariance[-1, -1])
        ratios.append(found.diffusion_um2_per_s / truth)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)


def test_example_self_organising(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("self_organising", N=150, N_FRAMES=25, FRAME_S=0.2).main(tmp_path / "figure.png")
    said = capsys.readouterr().out
    assert figures(said, "error of the force")[0] < 0.12
    ours, still = figures(said, "correlation with the truth at 4 runs")
    assert ours > 0.99 > still
    assert figures(said, "another start (102), at 4 runs")[0] > 0.97
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
