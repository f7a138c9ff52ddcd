"""Force that depends on direction, and drift: against brute force, finite differences, rotation and themselves."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.dynamics import OneBody
from beamline_ml.dynamics.angular_kernel import angular_tangent
from beamline_ml.dynamics.flow import follow, follow_with_tangents
from beamline_ml.dynamics.motion_law import MotionLaw
from beamline_ml.dynamics.neighbours import build_pairs
from beamline_ml.dynamics.pair_kernel import pair_tangent
from beamline_ml.dynamics.pattern_law import open_particles
from beamline_ml.dynamics.spline import spline_basis

CUTOFF, N_COEFFICIENTS = 0.8, 7


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    """Positions, and splines of two harmonics."""
    rng = np.random.default_rng(0)
    return rng.uniform(0, 4.0, (120, 2)), rng.standard_normal((5, N_COEFFICIENTS))


def with_tangents(x: np.ndarray, splines: np.ndarray, box: float, tangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = build_pairs(x, box, CUTOFF)
    out, out_tangent = np.zeros_like(x), np.zeros_like(tangent)
    angular_tangent(x, box, pairs.first, pairs.second, splines, CUTOFF, tangent, out, out_tangent)
    return out, out_tangent


def velocity(x: np.ndarray, splines: np.ndarray, box: float = 0.0) -> np.ndarray:
    return with_tangents(x, splines, box, np.empty((*x.shape, 0)))[0]


def brute_force(x: np.ndarray, splines: np.ndarray, box: float) -> np.ndarray:
    step = x[:, None] - x[None]
    if box > 0:
        step -= box * np.rint(step / box)
    r = np.sqrt((step**2).sum(-1)) + np.eye(len(x)) * 10 * CUTOFF
    phi = np.arctan2(step[..., 1], step[..., 0])
    values = (spline_basis(r.ravel(), N_COEFFICIENTS, CUTOFF) @ splines.T).reshape(*r.shape, -1)
    turned = np.stack([np.ones_like(phi), *(part(2 * m * phi) for m in (1, 2) for part in (np.cos, np.sin))], axis=-1)
    return ((values * turned).sum(-1)[:, :, None] * step / r[:, :, None]).sum(axis=1)


@pytest.mark.parametrize("box", [0.0, 4.0])
def test_velocity_is_the_sum_over_pairs(scene: tuple[np.ndarray, np.ndarray], box: float) -> None:
    x, splines = scene
    np.testing.assert_allclose(velocity(x, splines, box), brute_force(x, splines, box), atol=1e-12)


@pytest.mark.parametrize("box", [0.0, 4.0])
def test_tangents_are_derivatives(scene: tuple[np.ndarray, np.ndarray], box: float) -> None:
    x, splines = scene
    tangent = np.random.default_rng(1).standard_normal((*x.shape, splines.size + 1))
    out, out_tangent = with_tangents(x, splines, box, tangent)
    np.testing.assert_allclose(out, velocity(x, splines, box), atol=1e-12)
    h = 1e-6
    # Every spline's core and reach, and a parameter that is none of theirs.
    for k in (*range(1, splines.size, 3), splines.size):
        bump = h * np.eye(splines.size + 1)[k, :-1].reshape(splines.shape)
        plus = velocity(x + h * tangent[:, :, k], splines + bump, box)
        minus = velocity(x - h * tangent[:, :, k], splines - bump, box)
        np.testing.assert_allclose(
            out_tangent[:, :, k], (plus - minus) / (2 * h), atol=2e-6 * np.abs(out_tangent).max()
        )


def test_without_harmonics_it_is_the_pair_kernel(scene: tuple[np.ndarray, np.ndarray]) -> None:
    x, splines = scene
    tangent = np.random.default_rng(2).standard_normal((*x.shape, N_COEFFICIENTS + 2))
    pairs = build_pairs(x, 0.0, CUTOFF)
    out, out_tangent = np.zeros_like(x), np.zeros_like(tangent)
    pair_tangent(x, 0.0, pairs.first, pairs.second, splines[0], CUTOFF, tangent, out, out_tangent)
    same, same_tangent = with_tangents(x, splines[:1], 0.0, tangent)
    np.testing.assert_allclose(same, out, atol=1e-12)
    np.testing.assert_allclose(same_tangent, out_tangent, atol=1e-10 * np.abs(out_tangent).max())


def test_momentum_is_conserved_and_a_turned_sample_moves_turned(scene: tuple[np.ndarray, np.ndarray]) -> None:
    """Where positions and the phases of the harmonics turn together, so do velocities; positions alone: not so."""
    x, splines = scene
    angle = 0.7
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = splines.copy()
    for m in (1, 2):
        c, s = np.cos(2 * m * angle), np.sin(2 * m * angle)
        a, b = splines[2 * m - 1], splines[2 * m]
        turned[2 * m - 1], turned[2 * m] = c * a - s * b, s * a + c * b
    before = velocity(x, splines)
    np.testing.assert_allclose(before.sum(axis=0), 0.0, atol=1e-12 * np.abs(before).sum())
    np.testing.assert_allclose(velocity(x @ rotation.T, turned), before @ rotation.T, atol=1e-11)
    assert np.abs(velocity(x @ rotation.T, splines) - before @ rotation.T).max() > 0.1 * np.abs(before).max()


@pytest.mark.parametrize("n_drift", [0, 2, 6])
def test_tangents_of_a_motion_with_all_terms(scene: tuple[np.ndarray, np.ndarray], n_drift: int) -> None:
    """Angular force and drift, integrated; whatever of the drift is no parameter acts all the same."""
    x, splines = scene
    drift = OneBody(np.array([0.3, -0.2]), np.array([[0.1, 0.5], [-0.3, -0.2]]), np.array([2.0, 1.5]))
    law = MotionLaw(0.02 * splines, CUTOFF, drift, n_drift)
    particles = open_particles(x, np.linspace(0.0, 1.0, 6))
    found, tangents = follow_with_tangents(particles, law, 0.0, "rk4")
    np.testing.assert_allclose(found, follow(particles, law, 0.0, "rk4"), atol=1e-12)
    assert tangents.shape == (*found.shape, law.n_parameters + 1)
    h = 1e-6
    for k in (3, N_COEFFICIENTS + 2, *range(splines.size, law.n_parameters)):
        bump = h * np.eye(law.n_parameters)[k]
        plus, minus = (
            follow(particles, law.with_parameters(law.parameters + sign * bump), 0.0, "rk4") for sign in (1.0, -1.0)
        )
        slope = (plus - minus) / (2 * h)
        np.testing.assert_allclose(tangents[..., k], slope, atol=2e-5 * np.abs(slope).max())


def test_a_drift_alone_moves_particles_as_its_exact_solution() -> None:
    x = np.random.default_rng(3).uniform(-1, 1, (5, 2))
    rate = 0.4
    turning = OneBody([0.0, 0.0], [[0.0, -rate], [rate, 0.0]], [0.5, 0.0])
    law = MotionLaw(np.zeros((1, 6)), CUTOFF, turning)
    times = np.linspace(0.0, 2.0, 21)
    moved = follow(open_particles(x, times), law, 0.0, "rk4")[-1]
    c, s = np.cos(2.0 * rate), np.sin(2.0 * rate)
    np.testing.assert_allclose(moved, (x - [0.5, 0.0]) @ np.array([[c, s], [-s, c]]) + [0.5, 0.0], atol=1e-7)
    np.testing.assert_allclose(turning.around(np.array([3.0, 1.0])).velocities(x), turning.velocities(x), atol=1e-12)
