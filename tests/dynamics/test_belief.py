"""What a regression makes of its data and of what is expected of a force: smooth, and at which distances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.dynamics.spline import fit_spline
from beamline_ml.dynamics.statistical_gauss_newton import (
    CLOSED_BENDS,
    EVEN,
    FADING,
    OF_NOISY_SLOPES,
    OPEN_BENDS,
    RING_BENDS,
    Belief,
    Bends,
    belief_from,
)
from beamline_ml.dynamics.systems.self_organising import SelfOrganising
from beamline_ml.records import Float64Array

N = 24
SHARE = (np.arange(N) + 0.5) / N
FADES = fit_spline(SelfOrganising().radial_force, N, 0.9, r_min_um=0.075) / 0.0267
"""The seed's force in units of what 50 frames could show."""
RIPPLES = 0.3 * np.sin(2.0 * np.pi * SHARE / 0.25) * SHARE
ERROR = 0.01


def belief(seen: Float64Array, bends: tuple[Bends, ...], evidence_counts: float = 1.0) -> Belief:
    """From coefficients measured one by one with the same error, and a last parameter of which nothing is known."""
    information = np.diag(np.append(np.full(N, ERROR**-2.0), 0.0))
    pull = np.append(seen / ERROR**2, 0.0)
    nothing = np.zeros(N + 1)
    return belief_from(information, pull, nothing, nothing, 10.0, 1.0, bends, evidence_counts=evidence_counts)


def errors(truth: Float64Array, bends: tuple[Bends, ...], where: slice = slice(N)) -> Float64Array:
    """Root mean square error of the coefficients of 20 noisy measurements."""
    noisy = truth + ERROR * np.random.default_rng(0).standard_normal((20, N))
    found = np.array([belief(seen, bends).mean[where] for seen in noisy])
    return np.sqrt(((found - truth[where]) ** 2).mean(axis=1))


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
    for bends in (CLOSED_BENDS, OPEN_BENDS):
        np.testing.assert_allclose(errors(RIPPLES, bends), errors(RIPPLES, bends[:1]), rtol=1e-6)
    assert errors(RIPPLES, (FADING,)).mean() > 1.5 * errors(RIPPLES, (EVEN,)).mean()


def test_where_a_force_has_ended_it_is_known() -> None:
    """Its range, 0.6 of the cutoff, is found; what 24 numbers would make of the noise beyond, a forecast would feel."""
    any_range, beyond = OPEN_BENDS[:2], slice(18, N)
    assert errors(FADES, OPEN_BENDS, beyond).mean() < 0.3 * errors(FADES, any_range, beyond).mean()
    assert errors(FADES, OPEN_BENDS).mean() < 1.01 * errors(FADES, any_range).mean()


def test_what_is_not_known_of_the_range_is_in_the_errors() -> None:
    """A single coefficient of two errors may be a force or none: the answer lies between, and its error holds both."""
    seen = np.where(np.arange(N) == 14, 2.0 * ERROR, 0.0)
    with_it, without = (belief(seen, (replace(FADING, reach=reach),)) for reach in (0.7, 0.5))
    both = belief(seen, (replace(FADING, reach=0.7), replace(FADING, reach=0.5)))
    assert without.mean[14] < both.mean[14] < with_it.mean[14]
    share = (both.mean[14] - without.mean[14]) / (with_it.mean[14] - without.mean[14])
    between = share * (1.0 - share) * (with_it.mean[14] - without.mean[14]) ** 2
    variance = share * with_it.covariance[14, 14] + (1.0 - share) * without.covariance[14, 14]
    assert both.covariance[14, 14] == pytest.approx(variance + between)


def test_of_an_evidence_that_is_doubted_less_counts() -> None:
    """Where all of it counts, the range is settled; where little does, the answer lies nearer to that of any range."""
    seen = FADES + ERROR * np.random.default_rng(2).standard_normal(N)
    none, part, all_of_it = (belief(seen, RING_BENDS, counts) for counts in (0.0, OF_NOISY_SLOPES, 1.0))
    beyond = slice(18, N)
    spread = [np.sqrt(np.diag(each.covariance)[beyond]).mean() for each in (none, part, all_of_it)]
    assert spread[0] > spread[1] > 1.2 * spread[2]
    assert np.abs((none.mean[:N] - FADES)[beyond]).mean() > np.abs((all_of_it.mean[:N] - FADES)[beyond]).mean()


@pytest.mark.parametrize("bends", [CLOSED_BENDS, OPEN_BENDS])
@pytest.mark.parametrize("truth", [FADES, RIPPLES])
def test_coefficients_lie_within_their_errors(truth: Float64Array, bends: tuple[Bends, ...]) -> None:
    noisy = truth + ERROR * np.random.default_rng(1).standard_normal((50, N))
    off = []
    for seen in noisy:
        found = belief(seen, bends)
        off.append(np.abs(found.mean[:N] - truth) / np.sqrt(np.diag(found.covariance)[:N]))
    assert 0.92 < (np.array(off) < 2.0).mean() < 0.995
