"""A force law found from speckle patterns, and the patterns that it predicts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.dynamics.contest import NEURAL_ODE, best_curve
from beamline_ml.dynamics.doubts import reasons
from beamline_ml.dynamics.flow import Surrogates, follow
from beamline_ml.dynamics.motion_law import MotionLaw
from beamline_ml.dynamics.one_body import OneBody
from beamline_ml.dynamics.pattern_baselines import PATTERN_BASELINES, FadingPictures
from beamline_ml.dynamics.pattern_contest import PatternContest
from beamline_ml.dynamics.pattern_state import PatternState
from beamline_ml.dynamics.patterns import PatternScattering, expected_photons
from beamline_ml.dynamics.spline import spline_basis, spline_deviation
from beamline_ml.dynamics.steadiness import Steadiness
from beamline_ml.dynamics.tangent_motion import integration_grid, shortest_spacing_s
from beamline_ml.records import BoolArray, Float64Array

OF_CHI2 = 0.002
"""By which chi-squared may exceed 1 beside chance: splines only approach a force."""
BEYOND_CHANCE = 4.0
"""Standard deviations by photon noise that are still taken for chance, where chi-squared exceeds that."""
UNSTEADY = 4.0
"""The same where parts of the run ask for different laws."""


@dataclass(frozen=True)
class PatternFit:
    """A force law and the patterns that it predicts."""

    coefficients: Float64Array
    """(n_coefficients,) spline of the radial force in um/s, positive repels."""
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
    joint_covariance: Float64Array | None = None
    """(n_law + 2 n, ...) of all coefficients, what was fitted of the drift, and the start's coordinates, if these were
    corrected. None: nothing but the radial force is uncertain."""
    warnings: tuple[str, ...] = ()
    state: PatternState | None = None
    """Where ``fit`` goes on when new frames come."""
    angular_coefficients: Float64Array = field(default_factory=lambda: np.empty((0, 0)))
    """(2 H, n_coefficients) splines in um/s that go with cos 2 phi, sin 2 phi, cos 4 phi, ...; empty without them."""
    drift: OneBody | None = None
    """All of it, known and found."""
    n_drift: int = 0
    """How many of the drift's numbers were fitted: 0, 2 (its velocity) or 6 (its gradient, too)."""
    chi2_err: float = 0.0
    """Standard deviation of ``chi2`` by photon noise."""
    steadiness: Steadiness = field(default_factory=Steadiness)
    """Whether all parts of the run ask for the same law."""
    contest: PatternContest | None = None
    """Who foretold frames of this run best that nobody had seen; None where there was no room for it."""
    curve: FadingPictures | None = None
    """What the best simple forecast expects of all pixels from the last frame on; None where the law describes the run.
    """

    @property
    def describes_data(self) -> bool:
        """Whether photon noise explains what the law missed of the run, and all its parts ask for the same law.

        What each exceeds its expectation by, over its limit: the squares of these two doubts add up to 1 at most.
        """
        return not self.doubts

    @property
    def doubts(self) -> tuple[str, ...]:
        """What is to be said where it does not."""
        allowed = BEYOND_CHANCE * self.chi2_err
        misfit = f"chi-squared {self.chi2:.3f} (limit {1.0 + OF_CHI2 + allowed:.3f})"
        beyond = self.steadiness.beyond_chance
        parts = (
            f"parts of the run ask for different laws, {beyond:.3g} standard deviations beyond chance "
            f"(limit {UNSTEADY:g})"
        )
        excess = max(0.0, self.chi2 - 1.0 - OF_CHI2)
        why = reasons(((misfit, excess / max(allowed, 1e-30)), (parts, max(0.0, beyond) / UNSTEADY)))
        if not why:
            return ()
        return (
            f"The model does not describe the data: {'; '.join(why)}. "
            "Its forecast is published only where no simple one foretold the run's own frames better. "
            "Ask for a drift or angular_harmonics, look at the start, or fit correlations if particles diffuse.",
        )

    @property
    def winner(self) -> str:
        """Whose forecast is published: a law that does not describe the run must not be behind a simple one."""
        scores = {} if self.contest is None else self.contest.scores
        best = best_curve(scores)
        if best is None or self.curve is None or self.describes_data:
            return NEURAL_ODE
        return NEURAL_ODE if scores[NEURAL_ODE] <= scores[best] else best

    def judged(self, contest: PatternContest | None, counts: NDArray[Any], times_s: Float64Array) -> PatternFit:
        """The same after a contest, with its doubts, and with the best simple forecast where there are any.

        Parameters
        ----------
        counts, times_s
            (n_frames, size, size) photons and (n_frames,) times that this goes on from.
        """
        found = replace(self, contest=contest, curve=None, warnings=(*self.warnings, *self.doubts))
        best = None if contest is None or found.describes_data else best_curve(contest.scores)
        return replace(found, curve=_continued(best, counts, times_s, self.scattering.used)) if best else found

    @property
    def law(self) -> MotionLaw:
        """All terms, as the integrator takes them."""
        angular = self.angular_coefficients.reshape(-1, len(self.coefficients))
        splines = np.concatenate([self.coefficients[None, :], angular])
        return MotionLaw(splines, self.cutoff_um, self.drift, self.n_drift)

    def with_law(self, law: MotionLaw) -> PatternFit:
        """The same with another law's numbers."""
        return replace(self, coefficients=law.splines[0], angular_coefficients=law.splines[1:], drift=law.drift)

    def kernel(self, r_um: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Radial force (um/s), averaged over all directions, and its standard deviation at r."""
        basis = spline_basis(np.asarray(r_um, np.float64), len(self.coefficients), self.cutoff_um)
        return basis @ self.coefficients, spline_deviation(r_um, self.covariance, self.cutoff_um)

    def angular_kernel(self, r_um: Float64Array) -> tuple[Float64Array, Float64Array]:
        """(2 H, n_r) what of the radial force goes with cos 2 phi, sin 2 phi, ... (um/s), and standard deviations."""
        angular, covariance = self.law.splines[1:], self._law_covariance()
        n = len(self.coefficients)
        basis = spline_basis(np.asarray(r_um, np.float64), n, self.cutoff_um)
        blocks = [covariance[k * n : (k + 1) * n, k * n : (k + 1) * n] for k in range(1, len(angular) + 1)]
        deviations = [spline_deviation(r_um, block, self.cutoff_um) for block in blocks]
        return angular @ basis.T, np.array(deviations).reshape(len(angular), len(basis))

    def drift_deviations(self) -> tuple[Float64Array, Float64Array]:
        """Standard deviations of the drift's velocity (2,) um/s and gradient (2, 2) 1/s; 0 where not fitted."""
        at, found = self.law.splines.size, np.zeros(6)
        found[: self.n_drift] = np.sqrt(np.diag(self._law_covariance())[at : at + self.n_drift])
        return found[:2], found[2:].reshape(2, 2)

    def _law_covariance(self) -> Float64Array:
        """Of the law's parameters in their order."""
        m, n = self.law.n_parameters, len(self.coefficients)
        if self.joint_covariance is not None:
            return self.joint_covariance[:m, :m]
        radial_alone = np.zeros((m, m))
        radial_alone[:n, :n] = self.covariance
        return radial_alone

    def positions(self, times_s: Float64Array, start_um: Float64Array | None = None) -> Float64Array:
        """Particles at the given times, (n_times, n, 2) um; another start asks about another sample of its kind."""
        start = self.start_um if start_um is None else start_um
        particles = open_particles(start, times_s, shortest_spacing_s(self.times_s))
        return follow(particles, self.law, 0.0, "rk4")

    def patterns(self, times_s: Float64Array, start_um: Float64Array | None = None) -> Float64Array:
        """Expected photons, (n_times, size, size), at any times from the first one on."""
        x = self.positions(times_s, start_um)
        return expected_photons(self.scattering, self.photons_per_intensity, x)


def _continued(name: str, counts: NDArray[Any], times_s: Float64Array, used: BoolArray) -> FadingPictures:
    """What a simple forecast expects of all pixels; those that are not used stay dark."""
    flat = np.flatnonzero(used.ravel())
    found = PATTERN_BASELINES[name](counts.reshape(len(counts), -1)[:, flat], times_s)
    pictures = np.zeros((len(found.pictures), used.size), np.complex128)
    pictures[:, flat] = found.pictures
    return replace(found, pictures=pictures)


def open_particles(start_um: Float64Array, times_s: Float64Array, longest_s: float | None = None) -> Surrogates:
    """One open box without noise; times count from the first.

    Steps are not longer than ``longest_s``; None = the shortest time between two of ``times_s``.
    """
    times = np.asarray(times_s, np.float64) - times_s[0]
    grid = integration_grid(times, shortest_spacing_s(times) if longest_s is None else longest_s, 1)
    snapshots = np.abs(grid[None, :] - times[:, None]).argmin(axis=1).astype(np.int64)
    return Surrogates(start_um, 1, 0.0, grid, snapshots, np.zeros((len(grid), 1, 1)))
