"""Integrated tangents against finite differences, and free particles against the Einstein relation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.dynamics.flow import Surrogates, move, move_with_tangents
from beamline_ml.dynamics.shells import shell_values, shells_of_box, squared

BOX, CUTOFF, DIFFUSION = 4.0, 0.9, 0.02


@pytest.fixture(scope="module")
def particles() -> Surrogates:
    rng = np.random.default_rng(0)
    grid = np.linspace(0.0, 1.0, 21)
    path = np.zeros((21, 200, 2))
    path[1:] = np.cumsum(rng.standard_normal((20, 200, 2)) * np.sqrt(0.05), axis=0)
    return Surrogates(rng.uniform(0, BOX, (200, 2)), 2, BOX, grid, np.array([5, 10, 20]), path)


def coefficients() -> np.ndarray:
    return 0.05 * np.array([2.0, 1.0, -0.5, -1.0, -0.7, -0.3])


def test_tangents_equal_finite_differences(particles: Surrogates) -> None:
    c = coefficients()
    x, tangent = move_with_tangents(particles, c, CUTOFF, DIFFUSION)
    np.testing.assert_allclose(x, move(particles, c, CUTOFF, DIFFUSION), atol=1e-12)
    h = 1e-5
    for k in (0, 3):
        bump = h * np.eye(len(c))[k]
        slope = (move(particles, c + bump, CUTOFF, DIFFUSION) - move(particles, c - bump, CUTOFF, DIFFUSION)) / (2 * h)
        np.testing.assert_allclose(tangent[..., k], slope, atol=1e-4 * np.abs(slope).max())
    up, down = (move(particles, c, CUTOFF, DIFFUSION * np.exp(s)) for s in (h, -h))
    slope = (up - down) / (2 * h)
    np.testing.assert_allclose(tangent[..., -1], slope, atol=1e-4 * np.abs(slope).max())


def test_free_particles_obey_einstein(particles: Surrogates) -> None:
    x = move(particles, np.zeros(6), CUTOFF, DIFFUSION)
    squared_step = ((x[-1] - particles.start_um) ** 2).sum(axis=1).mean()
    assert squared_step == pytest.approx(4 * DIFFUSION * 1.0, rel=0.2)
    hardly_moved = move(particles, np.full(6, 1e-300), CUTOFF, DIFFUSION)
    np.testing.assert_allclose(x, hardly_moved, atol=1e-12)


def test_bound_pairs_are_no_hotter_than_they_should_be() -> None:
    """Equipartition, <x^2> = D / k, with a step at which Euler's method would be 1.4 times too hot."""
    k, n, step_s, reach = 1.0, 4000, 0.3, 1.0
    coefficients = -k * (np.arange(20) - 1.0) * reach / 20  # f(r) = -k r, far beyond where any pair gets
    rng = np.random.default_rng(2)
    path = np.zeros((41, n, 2))
    path[1:] = np.cumsum(rng.standard_normal((40, n, 2)) * np.sqrt(step_s), axis=0)
    start = np.repeat(rng.uniform(0, 1, (n // 2, 2)), 2, axis=0)
    pairs = Surrogates(start, n // 2, 5.0, step_s * np.arange(41), np.array([20, 30, 40]), path)
    x = move(pairs, coefficients, reach, 0.002)
    apart = x[:, ::2] - x[:, 1::2]
    assert (apart**2).mean() == pytest.approx(0.002 / k, rel=0.15)


def test_a_shorter_horizon_is_the_beginning_of_the_longer(particles: Surrogates) -> None:
    whole = move(particles, coefficients(), CUTOFF, DIFFUSION)
    np.testing.assert_array_equal(move(particles.until(2), coefficients(), CUTOFF, DIFFUSION), whole[:2])


def test_shell_values_of_free_particles_follow_siegert() -> None:
    rng = np.random.default_rng(1)
    n, grid = 6000, np.linspace(0.0, 1.0, 11)
    path = np.zeros((11, n, 2))
    path[1:] = np.cumsum(rng.standard_normal((10, n, 2)) * np.sqrt(0.1), axis=0)
    many = Surrogates(rng.uniform(0, BOX, (n, 2)), 60, BOX, grid, np.arange(11), path)
    shells = shells_of_box(BOX, np.array([[3.0, 5.0], [6.0, 8.0]]), 40, rng)
    values = shell_values(move(many, np.zeros(6), CUTOFF, DIFFUSION), 60, shells)
    q2 = np.array([(shells.vectors_inv_um[shells.ring == k] ** 2).sum(axis=1).mean() for k in range(2)])
    np.testing.assert_allclose(squared(values.f, shells.modes(60))[:, 0, -1], np.exp(-2 * q2 * DIFFUSION), atol=0.04)
    np.testing.assert_allclose(values.log_s, 0.0, atol=0.1)


def test_few_modes_do_not_make_s_smaller() -> None:
    """The mean of log S over samples without order is that of S = 1, however few wave vectors a ring has."""
    rng = np.random.default_rng(3)
    shells = shells_of_box(BOX, np.array([[3.0, 5.0], [6.0, 8.0]]), 3, rng)
    log_s = [shell_values(rng.uniform(0, BOX, (1, 200, 2)), 1, shells).log_s for _ in range(2000)]
    np.testing.assert_allclose(np.mean(log_s, axis=0), 0.0, atol=0.05)


def test_derivatives_of_shell_values(particles: Surrogates) -> None:
    c = coefficients()
    shells = shells_of_box(BOX, np.array([[3.0, 5.0], [6.0, 8.0]]), 20, np.random.default_rng(2))
    short = replace(particles, snapshots=np.array([2, 4, 6]), grid_s=particles.grid_s[:7])
    x, tangent = move_with_tangents(short, c, CUTOFF, DIFFUSION)
    values = shell_values(x, 2, shells, tangent)
    alone = shell_values(x, 2, shells)  # whose phases are not computed one by one
    np.testing.assert_allclose(alone.f, values.f, atol=1e-12)
    np.testing.assert_allclose(alone.log_s, values.log_s, atol=1e-12)
    h = 1e-6
    plus, minus = (shell_values(move(short, c + s * np.eye(6)[2], CUTOFF, DIFFUSION), 2, shells) for s in (h, -h))
    assert values.d_f is not None
    assert values.d_log_s is not None
    np.testing.assert_allclose(
        values.d_f[..., 2], (plus.f - minus.f) / (2 * h), atol=5e-2 * np.abs(values.d_f[..., 2]).max()
    )
    slope = (plus.log_s - minus.log_s) / (2 * h)
    np.testing.assert_allclose(values.d_log_s[..., 2], slope, atol=5e-2 * np.abs(slope).max())
