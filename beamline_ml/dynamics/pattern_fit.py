"""Fit of a force law to speckle patterns: Gauss-Newton with a growing horizon and exact tangents.

The start is known, so every later pattern is a function of the force, and of how bright the beam is, alone
(``photon_information``). The prior asks for a smooth kernel, its strength set by the evidence. The normal matrix at the
end is the posterior.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from beamline_ml.dynamics.flow import Surrogates, move, move_with_tangents
from beamline_ml.dynamics.growing_horizon import Evaluation, damped, fit_growing
from beamline_ml.dynamics.model import DynamicsModel
from beamline_ml.dynamics.pattern_state import PatternState
from beamline_ml.dynamics.patterns import PatternObservations, PatternScattering
from beamline_ml.dynamics.photon_information import chosen_pixels, photon_information, photons_per_intensity
from beamline_ml.dynamics.spline import spline_basis, spline_deviation
from beamline_ml.dynamics.start_refinement import identified_start
from beamline_ml.dynamics.statistical_gauss_newton import CORE, OPEN_CORE, SMOOTHNESS_RANGE, Belief, belief_from
from beamline_ml.dynamics.tangent_motion import integration_grid, shortest_spacing_s
from beamline_ml.errors import FitRefused, NotIdentifiable
from beamline_ml.records import Float64Array

MOST_PIXELS = 4096
"""For the last stage, which decides the answer."""
LONGEST_STEP = 3.0
CONVINCING_CHI2 = 1.3
"""Of the whole run, up to which no other corrected start is tried."""
CORRECTED_CHI2 = 2.0
"""Of the whole run, above which the best corrected start was a wrong minimum."""
STARTS = 4
"""Corrected starts that are tried on the whole run."""
SHARE_OF_START = 0.5
"""Part of the time budget that correcting the start may take."""


@dataclass(frozen=True)
class PatternFit:
    """A force law and the patterns that it predicts."""

    coefficients: Float64Array
    """(n_coefficients,) spline in um/s, positive repels."""
    covariance: Float64Array
    """(n_coefficients, n_coefficients)."""
    cutoff_um: float
    chi2: float
    """Deviance over that of photon noise alone: 1 where photons explain the run."""
    scattering: PatternScattering
    start_um: Float64Array
    times_s: Float64Array
    used_frames: int
    photons_per_intensity: float
    mode: str = "patterns; start known"
    warnings: tuple[str, ...] = ()
    state: PatternState | None = None
    """Where ``fit`` goes on when new frames come."""

    def kernel(self, r_um: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Radial force (um/s) and its standard deviation at r."""
        basis = spline_basis(np.asarray(r_um, np.float64), len(self.coefficients), self.cutoff_um)
        return basis @ self.coefficients, spline_deviation(r_um, self.covariance, self.cutoff_um)

    def positions(self, times_s: Float64Array, start_um: Float64Array | None = None) -> Float64Array:
        """Particles at the given times, (n_times, n, 2) um; another start asks about another sample of its kind."""
        start = self.start_um if start_um is None else start_um
        particles = open_particles(start, times_s, shortest_spacing_s(self.times_s))
        return move(particles, self.coefficients, self.cutoff_um, 0.0, method="rk4")

    def patterns(self, times_s: Float64Array, start_um: Float64Array | None = None) -> Float64Array:
        """Expected photons, (n_times, size, size), at any times from the first one on."""
        x = self.positions(times_s, start_um)
        return self.photons_per_intensity * np.stack([self.scattering.intensity(at) for at in x])


def open_particles(start_um: Float64Array, times_s: Float64Array, longest_s: float | None = None) -> Surrogates:
    """One open box without noise; times count from the first.

    Steps are not longer than ``longest_s``; None = the shortest time between two of ``times_s``.
    """
    times = np.asarray(times_s, np.float64) - times_s[0]
    grid = integration_grid(times, shortest_spacing_s(times) if longest_s is None else longest_s, 1)
    snapshots = np.abs(grid[None, :] - times[:, None]).argmin(axis=1).astype(np.int64)
    return Surrogates(start_um, 1, 0.0, grid, snapshots, np.zeros((len(grid), 1, 1)))


def fit_patterns(
    observations: PatternObservations, model: DynamicsModel, time_budget_s: float, seed: int = 0
) -> PatternFit:
    """Find the force law behind a run of patterns.

    Raises
    ------
    NotIdentifiable
        When the start positions do not explain the first frame, and none nearby does: they must be right to half a
        neighbour distance (the mean distance to the nearest neighbour).
    FitRefused
        When the motion does not stay finite.
    """
    began = time.monotonic()
    best: PatternFit | None = None
    for attempt in range(STARTS):
        start_um = identified_start(observations, began + SHARE_OF_START * time_budget_s, seed, attempt)
        as_given = start_um is observations.start_um
        # What is left of a corrected start's errors would show as a force at contact.
        work = PatternWork(replace(observations, start_um=start_um), model, seed, OPEN_CORE if as_given else CORE)
        found = fit_growing(work, len(observations.times_s), began + time_budget_s)
        if as_given:
            return found
        best = found if best is None or found.chi2 < best.chi2 else best
        if best.chi2 <= CONVINCING_CHI2 or time.monotonic() > began + SHARE_OF_START * time_budget_s:
            break
    assert best is not None
    if best.chi2 <= CORRECTED_CHI2:
        return replace(best, warnings=(*_said_of_start(observations.start_um, best.start_um), *best.warnings))
    raise NotIdentifiable(
        f"Positions near the given start explain the first frame, but not the run: chi-squared {best.chi2:.1f}.",
        "Retrieve the first frame's positions to half a neighbour distance, or fit correlations instead.",
    )


def _said_of_start(given_um: Float64Array, corrected_um: Float64Array) -> tuple[str, ...]:
    moved = float(np.sqrt(((corrected_um - given_um) ** 2).mean()))
    return (f"The start did not explain the first frame: its coordinates were corrected by {moved:.3g} um (RMS).",)


class PatternWork:
    """What a pattern fit carries from step to step.

    Parameters are the coefficients in units of ``velocity_um_per_s``, then the logarithm of the photons per unit of
    intensity over those that the first frame alone asks for.
    """

    def __init__(
        self,
        observations: PatternObservations,
        model: DynamicsModel,
        seed: int,
        core_in_the_end: tuple[float, float] = OPEN_CORE,
    ) -> None:
        self.observations = observations
        self._core_in_the_end = core_in_the_end
        start = observations.start_um
        extent = np.ptp(start, axis=0)
        density = len(start) / max(float(np.pi / 4 * extent[0] * extent[1]), 1e-12)
        self.cutoff_um = model.cutoff_um or 4.0 / float(np.sqrt(density))
        duration = float(observations.times_s[-1] - observations.times_s[0])
        self.velocity_um_per_s = 3.0 * self.cutoff_um / (duration * max(1.0, density * self.cutoff_um**2))
        n = model.n_coefficients
        self._belief = Belief(np.zeros(n + 1), np.eye(n + 1), 10.0, 1.0)
        self._known: tuple[int, Evaluation] | None = None
        used, rng = observations.scattering.used, np.random.default_rng(seed)
        self.pixels = chosen_pixels(observations.counts, used, rng)
        self._last_pixels = chosen_pixels(observations.counts, used, rng, MOST_PIXELS)
        first = observations.scattering.intensity(start)
        self.scale = photons_per_intensity(observations.counts[0], first, used)

    def _evaluate(self, mean: Float64Array, horizon: int) -> Evaluation:
        """What the frames up to the horizon say."""
        observations = self.observations
        pixels = self._last_pixels if horizon == len(observations.times_s) else self.pixels
        particles = open_particles(observations.start_um, observations.times_s[:horizon])
        x, tangents = move_with_tangents(
            particles, self.velocity_um_per_s * mean[:-1], self.cutoff_um, 0.0, method="rk4"
        )
        if not (np.isfinite(x).all() and np.isfinite(tangents).all()):
            return Evaluation.nowhere(len(mean))
        return photon_information(
            observations.scattering,
            observations.counts[:horizon],
            x,
            self.velocity_um_per_s * tangents[:, :, :, :-1],
            pixels,
            self.scale * np.exp(mean[-1]),
        )

    def step(self, horizon: int) -> None:
        """One damped Gauss-Newton step; halves it until the misfit does not grow."""
        belief = self._belief
        if self._known is None or self._known[0] != horizon:
            self._known = (horizon, self._evaluate(belief.mean, horizon))
        here = self._known[1]
        if not np.isfinite(here.misfit):
            raise FitRefused("The particles' motion is not finite.", "Use more frames per second or a shorter cutoff.")
        prior_mean = np.zeros(len(belief.mean))
        core = self._core_in_the_end if horizon == len(self.observations.times_s) else CORE
        target = belief_from(here.information, here.pull, belief.mean, prior_mean, belief.smoothness, here.chi2, core)
        found = damped(belief.mean, target.mean, here.misfit, lambda mean: self._evaluate(mean, horizon), LONGEST_STEP)
        if found is not None:
            self._belief = Belief(found[0], target.covariance, target.smoothness, found[1].chi2)
            self._known = (horizon, found[1])
            return
        smoother = min(2.0 * belief.smoothness, SMOOTHNESS_RANGE[1])
        self._belief = Belief(belief.mean, target.covariance, smoother, here.chi2)

    def result(self, horizon: int, warnings: tuple[str, ...]) -> PatternFit:
        """The fit so far."""
        belief, observations = self._belief, self.observations
        return PatternFit(
            coefficients=self.velocity_um_per_s * belief.mean[:-1],
            covariance=self.velocity_um_per_s**2 * belief.covariance[:-1, :-1] * max(1.0, belief.chi2),
            cutoff_um=self.cutoff_um,
            chi2=belief.chi2,
            scattering=observations.scattering,
            start_um=observations.start_um,
            times_s=observations.times_s,
            used_frames=horizon,
            photons_per_intensity=self.scale * float(np.exp(belief.mean[-1])),
            warnings=warnings,
            state=self._state(horizon),
        )

    def _state(self, horizon: int) -> PatternState | None:
        """The knowledge so far, and the particles at the last frame used with their derivatives."""
        if self._known is None or self._known[0] != horizon or not np.isfinite(self._known[1].misfit):
            return None
        belief, observations = self._belief, self.observations
        information, pull = self._known[1].information, self._known[1].pull
        particles = open_particles(observations.start_um, observations.times_s[:horizon])
        coefficients = self.velocity_um_per_s * belief.mean[:-1]
        x, tangents = move_with_tangents(particles, coefficients, self.cutoff_um, 0.0, method="rk4")
        return PatternState(
            mean=belief.mean,
            information=information,
            vector=information @ belief.mean + pull,
            smoothness=belief.smoothness,
            velocity_um_per_s=self.velocity_um_per_s,
            first_photons_per_intensity=self.scale,
            end_s=float(observations.times_s[horizon - 1]),
            end_um=x[-1],
            end_tangent=self.velocity_um_per_s * tangents[-1],
            pixels=self.pixels,
            n_frames=horizon,
        )
