"""What a regression makes of its data and of what is expected of a force: smooth, and at which distances."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.dynamics.spline import fit_spline
from beamline_ml.dynamics.statistical_gauss_newton import CLOSED_BENDS, EVEN, FADING, Belief, Bends, belief_from
from beamline_ml.dynamics.systems.self_organising import SelfOrganising
from beamline_ml.records import Float64Array

N = 24
SHARE = (np.arange(N) + 0.5) / N
FADES = fit_spline(SelfOrganising().radial_force, N, 0.9, r_min_um=0.075) / 0.0267
"""The seed's force in units of what 50 frames could show."""
RIPPLES = 0.3 * np.sin(2.0 * np.pi * SHARE / 0.25) * SHARE
ERROR = 0.01


def belief(seen: Float64Array, bends: tuple[Bends, ...]) -> Belief:
    """From coefficients measured one by one with the same error, and a last parameter of which nothing is known."""
    information = np.diag(np.append(np.full(N, ERROR**-2.0), 0.0))
    pull = np.append(seen / ERROR**2, 0.0)
    return belief_from(information, pull, np.zeros(N + 1), np.zeros(N + 1), 10.0, 1.0, bends)


def errors(truth: Float64Array, bends: tuple[Bends, ...]) -> Float64Array:
    """Root mean square error of the coefficients of 20 noisy measurements."""
    noisy = truth + ERROR * np.random.default_rng(0).standard_normal((20, N))
    found = np.array([belief(seen, bends).mean[:N] for seen in noisy])
    return np.sqrt(((found - truth) ** 2).mean(axis=1))


def test_members_are_drawn_no_wider_than_a_line_follows() -> None:
    """What is known stays, what is open is limited, and the last parameter is as if the limit had been measured."""
    spread = np.diag([0.01, 0.1, 100.0, 2.0])
    mixed = np.eye(4)
    mixed[2, 3] = mixed[3, 2] = 0.9
    one = Belief(np.zeros(4), spread @ mixed @ spread, 1.0, 1.0, widest=1.0)
    deviations = np.sqrt(np.diag(one.explorable))
    np.testing.assert_allclose(deviations[:3], [0.01, 0.1, 1.0], rtol=0.01)
    assert deviations[3] == pytest.approx(2.0 * np.sqrt(1.0 - 0.9**2), rel=0.01)
    drawn = one.draw(4000, 1.5, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.std(axis=0), 1.5 * deviations, rtol=0.05)


def test_a_force_that_fades_is_better_known_where_it_fades() -> None:
    assert errors(FADES, CLOSED_BENDS).mean() < 0.92 * errors(FADES, (EVEN,)).mean()


def test_a_force_that_does_not_fade_is_not_made_to() -> None:
    np.testing.assert_allclose(errors(RIPPLES, CLOSED_BENDS), errors(RIPPLES, (EVEN,)))
    assert errors(RIPPLES, (FADING,)).mean() > 1.5 * errors(RIPPLES, (EVEN,)).mean()


@pytest.mark.parametrize("truth", [FADES, RIPPLES])
def test_coefficients_lie_within_their_errors(truth: Float64Array) -> None:
    noisy = truth + ERROR * np.random.default_rng(1).standard_normal((50, N))
    off = []
    for seen in noisy:
        found = belief(seen, CLOSED_BENDS)
        off.append(np.abs(found.mean[:N] - truth) / np.sqrt(np.diag(found.covariance)[:N]))
    assert 0.92 < (np.array(off) < 2.0).mean() < 0.995
