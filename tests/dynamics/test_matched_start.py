"""A sample that was first seen late has an order, and surrogate particles start with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.dynamics import CorrelationObservations, DynamicsModel, fit, forecast
from beamline_ml.dynamics.matched_start import matched_start, ring_means
from beamline_ml.dynamics.result import DynamicsFit
from beamline_ml.dynamics.shells import Shells, shells_of_box
from beamline_ml.dynamics.surrogates import make_scene, start_structure_factor
from beamline_ml.dynamics.systems.self_organising import SelfOrganising
from beamline_ml.errors import FitRefused
from tests.benchmarks.bench_dynamics_correlations import LATE, observed, sample

N_BOXES, PER_BOX, BOX_UM = 6, 200, 5.6
EDGES = np.column_stack([np.linspace(1.5, 8.5, 8), np.linspace(2.5, 9.5, 8)])
ATTRACTED = np.array([2.9, 2.6, 2.3, 2.0, 1.6, 1.2, 1.0, 0.9])
REPELLED = np.array([0.1, 0.15, 0.3, 0.7, 1.6, 2.2, 1.3, 0.9])


@pytest.fixture(scope="module")
def unordered_um() -> np.ndarray:
    return np.random.default_rng(3).uniform(0.0, BOX_UM, (N_BOXES * PER_BOX, 2))


@pytest.fixture(scope="module")
def shells() -> Shells:
    return shells_of_box(BOX_UM, EDGES, 10**6, np.random.default_rng(0))


def intensities(x_um: np.ndarray, shells: Shells) -> np.ndarray:
    """(n_boxes, n_vectors) |sum exp(-i q r)|^2 / n, written out."""
    waves = np.exp(-1j * x_um.reshape(N_BOXES, PER_BOX, 2) @ shells.vectors_inv_um.T)
    return np.asarray(np.abs(waves.sum(axis=1)) ** 2 / PER_BOX)


@pytest.mark.parametrize("wanted", [ATTRACTED, REPELLED], ids=["attracted", "repelled"])
def test_every_ring_has_the_wanted_structure_factor(
    unordered_um: np.ndarray, shells: Shells, wanted: np.ndarray
) -> None:
    x = matched_start(unordered_um, N_BOXES, shells, wanted)
    found = intensities(x, shells).mean(axis=0)
    means = np.bincount(shells.ring, weights=found) / np.bincount(shells.ring)
    np.testing.assert_allclose(means, wanted, rtol=0.011)
    # A fifth of the neighbours' distance, not a new sample.
    assert np.sqrt(((x - unordered_um) ** 2).mean()) < 0.5 / np.sqrt(PER_BOX / BOX_UM**2)


def test_speckles_keep_their_statistics(unordered_um: np.ndarray, shells: Shells) -> None:
    """Intensities of single wave vectors stay exponential: their standard deviation is their mean."""
    x = matched_start(unordered_um, N_BOXES, shells, ATTRACTED)
    relative = intensities(x, shells) / ATTRACTED[shells.ring]
    assert 0.85 < relative.std() < 1.15


def test_the_slope_is_the_derivative(unordered_um: np.ndarray, shells: Shells) -> None:
    x, direction = unordered_um, np.random.default_rng(1).standard_normal(unordered_um.shape)
    _, slope = ring_means(x, N_BOXES, shells)
    step = 1e-5
    up, down = (ring_means(x + sign * step * direction, N_BOXES, shells)[0] for sign in (1, -1))
    np.testing.assert_allclose((slope * direction).sum(axis=(1, 2)), (up - down) / (2 * step), rtol=1e-6, atol=1e-7)


def test_an_impossible_structure_factor_is_refused(unordered_um: np.ndarray, shells: Shells) -> None:
    with pytest.raises(FitRefused, match="Check that S"):
        matched_start(unordered_um, N_BOXES, shells, np.full(8, 2.0 * PER_BOX))


@pytest.fixture(scope="module")
def late() -> CorrelationObservations:
    return observed(sample(SelfOrganising(diffusion_um2_per_s=0.003), 20, 0, 1e6, LATE), 20, 0)


def test_only_a_sample_with_order_is_matched(late: CorrelationObservations) -> None:
    rng = np.random.default_rng(5)
    chance = 1.0 + rng.standard_normal(len(late.q_inv_um)) / np.sqrt(700.0)
    growing = np.exp(np.linspace(0.02, 0.2, len(late.q_inv_um))[:, None] * late.times_s)
    early = replace(late, structure_factor=chance[:, None] * growing)
    assert start_structure_factor(early).size == 0
    assert start_structure_factor(late).max() > 1.8
    half_lit = replace(early, structure_factor=0.5 * early.structure_factor)
    assert start_structure_factor(half_lit).size == 0, "half of the light is no order"
    assert start_structure_factor(replace(late, absolute=False)).size == 0, "what is relative says nothing of it"


def in_dim_light(seen: CorrelationObservations, rng: np.random.Generator) -> CorrelationObservations:
    """S as 15 photons a ring and block at S = 1 would show it."""
    counts = rng.poisson(15.0 * seen.structure_factor)
    return replace(seen, structure_factor=counts / 15.0, structure_factor_err=np.sqrt(counts) / 15.0)


def test_few_photons_are_no_order(late: CorrelationObservations) -> None:
    """Their noise, drawn back to the beginning, had been taken for order in one dim sample of four."""
    rng = np.random.default_rng(6)
    q = np.linspace(0.05, 0.25, len(late.q_inv_um))
    early = replace(late, structure_factor=np.exp(q[:, None] * late.times_s))
    taken = [start_structure_factor(in_dim_light(early, rng)).size > 0 for _ in range(200)]
    assert np.mean(taken) < 0.03
    found = [start_structure_factor(in_dim_light(late, rng)) for _ in range(40)]
    seen = np.stack([start for start in found if start.size])
    assert len(seen) > 35, "a sample with order is still told"
    np.testing.assert_allclose(np.exp(np.log(seen).mean(axis=0)), start_structure_factor(late), rtol=0.15)


def test_what_may_be_a_structure_factor_is_taken_for_one(late: CorrelationObservations) -> None:
    """S that is handed over without a word starts the surrogates; counts per pixel do not."""
    bare = CorrelationObservations(late.c2, late.c2_err, late.structure_factor, late.q_inv_um, late.times_s, 25.0)
    assert bare.absolute is True
    assert start_structure_factor(bare).size
    for scale in (0.01, 20.0, np.linspace(20.0, 1.0, len(late.q_inv_um))[:, None] ** 2):
        assert replace(late, structure_factor=scale * late.structure_factor, absolute=None).absolute is False


def test_surrogates_start_as_the_sample_did(late: CorrelationObservations) -> None:
    scene = make_scene(late, DynamicsModel())
    particles, _ = scene.surrogates(late.times_s, np.random.default_rng(0))
    every = shells_of_box(scene.box_um, scene.edges_inv_um, 10**6, np.random.default_rng(0))
    found = ring_means(particles.start_um, scene.n_boxes, every)[0]
    np.testing.assert_allclose(found, start_structure_factor(late), rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "started with S(q) as it was first seen"),
        ({"absolute": False, "waiting_s": LATE * 0.5}, "started without order 3 s earlier"),
    ],
    ids=["structure factor", "age"],
)
def test_a_sample_seen_late_gives_its_law(late: CorrelationObservations, known: dict[str, float], said: str) -> None:
    found = fit(replace(late, **known), DynamicsModel(), time_budget_s=280.0)
    assert found.describes_data
    assert found.diffusion_um2_per_s == pytest.approx(0.003, rel=0.2)
    assert said in found.mode
    again = DynamicsFit.from_arrays(found.to_arrays())
    np.testing.assert_array_equal(forecast(again, 12.0).c2, forecast(found, 12.0).c2)
