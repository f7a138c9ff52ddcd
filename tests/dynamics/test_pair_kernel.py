"""The fused kernel against brute force, finite differences and itself."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.dynamics.cell_kernel import add_cell_velocities
from beamline_ml.dynamics.neighbours import build_pairs
from beamline_ml.dynamics.pair_kernel import pair_cotangent, pair_tangent, pair_velocity
from beamline_ml.dynamics.spline import fit_spline, spline_basis

CUTOFF = 0.8


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 4.0, (120, 2)), rng.standard_normal(10)


def velocity(x: np.ndarray, c: np.ndarray, box: float, n_boxes: int = 1) -> np.ndarray:
    pairs = build_pairs(x, box, CUTOFF, n_boxes)
    out = np.zeros_like(x)
    pair_velocity(x, box, pairs.first, pairs.second, c, CUTOFF, out)
    return out


def brute_force(x: np.ndarray, c: np.ndarray, box: float) -> np.ndarray:
    step = x[:, None] - x[None]
    if box > 0:
        step -= box * np.rint(step / box)
    r = np.sqrt((step**2).sum(-1)) + np.eye(len(x)) * 10 * CUTOFF
    f = (spline_basis(r.ravel(), len(c), CUTOFF) @ c).reshape(r.shape)
    return (f[:, :, None] * step / r[:, :, None]).sum(axis=1)


@pytest.mark.parametrize("box", [0.0, 4.0])
def test_velocity_is_the_sum_over_pairs(scene: tuple[np.ndarray, np.ndarray], box: float) -> None:
    x, c = scene
    np.testing.assert_allclose(velocity(x, c, box), brute_force(x, c, box), atol=1e-12)


@pytest.mark.parametrize("n", [40, 900])
def test_pairs_in_a_box_are_all_pairs_once(n: int) -> None:
    """Wrapped or not, on the edge or not, and where the first list was too short."""
    rng, box = np.random.default_rng(3), 3.3
    x = rng.uniform(-2.0 * box, 3.0 * box, (n, 2))
    x[:4] = [[0.0, 0.0], [-1e-18, box], [box, 2.0 * box - 1e-12], [-box, 0.5]]
    pairs = build_pairs(x, box, CUTOFF, capacity=1)
    step = x[:, None] - x[None]
    step -= box * np.rint(step / box)
    near = np.argwhere(np.triu((step**2).sum(-1) < CUTOFF**2, k=1))
    found = np.sort(np.column_stack([pairs.first, pairs.second]), axis=1)
    np.testing.assert_array_equal(found[np.lexsort(found.T[::-1])], near)


@pytest.mark.parametrize("n_boxes", [1, 3])
def test_velocities_straight_from_the_cells_are_those_of_the_list(n_boxes: int) -> None:
    """Wrapped or not, on the edge or not, one particle upon another, a cell without particles."""
    rng, box = np.random.default_rng(4), 3.3
    x, c = rng.uniform(-2.0 * box, 3.0 * box, (100 * n_boxes, 2)), rng.standard_normal(10)
    x[:6] = [[0.0, 0.0], [-1e-18, box], [box, 2.0 * box - 1e-12], [-box, 0.5], [1.0, 1.0], [1.0, 1.0]]
    x[(x % box < CUTOFF).all(axis=1)] += CUTOFF
    out = np.full_like(x, 0.25)
    add_cell_velocities(x, box, n_boxes, c, CUTOFF, out)
    np.testing.assert_allclose(out - 0.25, velocity(x, c, box, n_boxes), atol=1e-11)


def test_boxes_do_not_feel_each_other(scene: tuple[np.ndarray, np.ndarray]) -> None:
    x, c = scene
    both = velocity(np.concatenate([x, x]), c, 4.0, n_boxes=2)
    np.testing.assert_allclose(both[:120], velocity(x, c, 4.0))
    np.testing.assert_allclose(both[120:], both[:120])


@pytest.mark.parametrize("box", [0.0, 4.0])
def test_tangents_are_derivatives(scene: tuple[np.ndarray, np.ndarray], box: float) -> None:
    x, c = scene
    rng = np.random.default_rng(1)
    tangent = rng.standard_normal((*x.shape, len(c) + 1))
    pairs = build_pairs(x, box, CUTOFF)
    out, out_tangent = np.zeros_like(x), np.zeros_like(tangent)
    pair_tangent(x, box, pairs.first, pairs.second, c, CUTOFF, tangent, out, out_tangent)
    np.testing.assert_allclose(out, velocity(x, c, box), atol=1e-12)
    h = 1e-6
    for k in (0, 4, len(c)):
        bump = np.zeros(len(c)) if k == len(c) else np.eye(len(c))[k]
        plus = velocity(x + h * tangent[:, :, k], c + h * bump, box)
        minus = velocity(x - h * tangent[:, :, k], c - h * bump, box)
        np.testing.assert_allclose(
            out_tangent[:, :, k], (plus - minus) / (2 * h), atol=2e-6 * np.abs(out_tangent).max()
        )


@pytest.mark.parametrize("box", [0.0, 4.0])
def test_cotangent_is_the_transpose_of_the_tangent(scene: tuple[np.ndarray, np.ndarray], box: float) -> None:
    x, c = scene
    rng = np.random.default_rng(2)
    tangent = rng.standard_normal((*x.shape, len(c) + 1))
    cotangent = rng.standard_normal(x.shape)
    pairs = build_pairs(x, box, CUTOFF)
    out, out_tangent = np.zeros_like(x), np.zeros_like(tangent)
    pair_tangent(x, box, pairs.first, pairs.second, c, CUTOFF, tangent, out, out_tangent)
    to_x, to_c = np.zeros_like(x), np.zeros_like(c)
    pair_cotangent(x, box, pairs.first, pairs.second, c, CUTOFF, cotangent, to_x, to_c)
    forward = np.einsum("nd,ndm->m", cotangent, out_tangent)
    backward = np.einsum("nd,ndm->m", to_x, tangent) + np.append(to_c, 0.0)
    np.testing.assert_allclose(forward, backward, rtol=1e-10)


def test_spline_represents_a_smooth_force() -> None:
    def force(r: np.ndarray) -> np.ndarray:
        return np.sin(4 * r) * np.clip(CUTOFF - r, 0, None) ** 3

    r = np.linspace(0, CUTOFF, 200, endpoint=False)
    np.testing.assert_allclose(spline_basis(r, 24, CUTOFF) @ fit_spline(force, 24, CUTOFF), force(r), atol=2e-4)


def test_cell_lists_find_what_brute_force_finds() -> None:
    x = np.random.default_rng(3).uniform(-7, 13, (400, 2))
    found = build_pairs(x, 10.0, 0.9)
    step = x[:, None] - x[None]
    step -= 10.0 * np.rint(step / 10.0)
    first, second = np.nonzero(np.triu((step**2).sum(-1) < 0.81, k=1))
    mine = {(min(a, b), max(a, b)) for a, b in zip(found.first.tolist(), found.second.tolist(), strict=True)}
    assert mine == set(zip(first.tolist(), second.tolist(), strict=True))
