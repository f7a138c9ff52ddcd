"""A network on every edge: asked what the fit of patterns by a spline is asked, and its derivative against numbers."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from beamline_ml.dynamics import DynamicsModel, PatternObservations, PatternScattering, fit
from beamline_ml.dynamics.message_network import MessageNetwork
from beamline_ml.dynamics.network_fit import NetworkFit
from beamline_ml.dynamics.systems.self_organising import disc_start
from beamline_ml.errors import FitRefused, ResultError

from .test_patterns import MODEL, N_FRAMES, OPTICS, SYSTEM, TIMES, disc, likeness, trajectory


@pytest.fixture(scope="module", params=["network", "logistic_network"])
def found(request: pytest.FixtureRequest) -> NetworkFit:
    intensity = np.stack([OPTICS.intensity(x) for x in trajectory(disc(0))[:N_FRAMES]])
    counts = np.random.default_rng(0).poisson(100.0 * intensity / intensity.max())
    observations = PatternObservations(counts, TIMES[:N_FRAMES], OPTICS, disc(0))
    fitted = fit(observations, replace(MODEL, messages=request.param), time_budget_s=3600.0)  # rounds end it, not time
    assert isinstance(fitted, NetworkFit)
    return fitted


def test_force_and_patterns_of_another_start(found: NetworkFit) -> None:
    r = np.linspace(0.1, 0.72, 60)
    true, (force, _) = SYSTEM.radial_force(r), found.kernel(r)
    assert np.sqrt(((force - true) ** 2 * r).sum() / (true**2 * r).sum()) < 0.1
    truth = OPTICS.intensity(trajectory(disc(9))[-1])
    assert likeness(found.patterns(TIMES, disc(9))[-1], truth) > 0.99
    assert found.chi2 < 1.1
    np.testing.assert_allclose(found.positions(TIMES[[0, -1]])[-1], found.positions(TIMES)[-1], atol=1e-6)


def test_derivative_through_the_motion() -> None:
    network = MessageNetwork(0.85, 0.02, logistic=True, seed=3).double()
    start = torch.from_numpy(disc(1)[:20])
    weight = torch.from_numpy(np.random.default_rng(0).standard_normal((20, 2)))

    def asked() -> torch.Tensor:
        return (network.positions(start, np.array([0.0, 0.2, 0.5]))[-1] * weight).sum()

    asked().backward()
    slope = float(network.log_rate.grad)
    values = []
    for h in (1e-4, -1e-4):
        with torch.no_grad():
            network.log_rate += h
            values.append(float(asked()))
            network.log_rate -= h
    assert slope == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-5)


def test_stored_weights_move_particles_alike(found: NetworkFit) -> None:
    arrays = found.network.to_arrays()
    again = MessageNetwork.from_arrays(arrays)
    x = torch.from_numpy(disc(2))
    assert torch.equal(again.velocities(x), found.network.velocities(x))
    assert not found.network.velocities(x).sum(0).abs().max() > 1e-9  # equal and opposite
    arrays.pop("log_rate")
    with pytest.raises(ResultError, match="log_rate"):
        MessageNetwork.from_arrays(arrays)


def test_a_corrected_start_is_what_the_network_goes_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("beamline_ml.dynamics.network_fit"), "MAX_ROUNDS", 1)
    start, optics = disc_start(60, 0.87, np.random.default_rng(0)), PatternScattering(64, 1.0, probe_um=2.0)
    truth = np.stack([optics.intensity(x) for x in SYSTEM.trajectory(start, 0.1 * np.arange(40))])
    counts = np.random.default_rng(1).poisson(1000.0 * truth / truth.max())
    wrong = start + np.random.default_rng(2).normal(0.0, 0.05, start.shape)
    observations = PatternObservations(counts, 0.1 * np.arange(40), optics, wrong)
    model = DynamicsModel(n_coefficients=24, cutoff_um=0.9, messages="network")
    found = fit(observations, model, time_budget_s=3600.0)
    assert "were corrected by" in found.warnings[0]
    assert not np.array_equal(found.start_um, wrong)
    assert found.chi2 < 2.0
    with pytest.raises(FitRefused, match="NetworkFit cannot go on as a PatternFit"):
        fit(observations, replace(model, messages="spline"), state=found)


def test_unknown_messages_are_refused() -> None:
    with pytest.raises(FitRefused, match="Choose from spline"):
        DynamicsModel(messages="oracle")
