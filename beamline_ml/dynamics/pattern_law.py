"""A force law found from speckle patterns, and the patterns that it predicts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from beamline_ml.dynamics.flow import Surrogates, follow
from beamline_ml.dynamics.motion_law import MotionLaw
from beamline_ml.dynamics.one_body import OneBody
from beamline_ml.dynamics.pattern_state import PatternState
from beamline_ml.dynamics.patterns import PatternScattering, expected_photons
from beamline_ml.dynamics.spline import spline_basis, spline_deviation
from beamline_ml.dynamics.tangent_motion import integration_grid, shortest_spacing_s
from beamline_ml.records import Float64Array


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


def open_particles(start_um: Float64Array, times_s: Float64Array, longest_s: float | None = None) -> Surrogates:
    """One open box without noise; times count from the first.

    Steps are not longer than ``longest_s``; None = the shortest time between two of ``times_s``.
    """
    times = np.asarray(times_s, np.float64) - times_s[0]
    grid = integration_grid(times, shortest_spacing_s(times) if longest_s is None else longest_s, 1)
    snapshots = np.abs(grid[None, :] - times[:, None]).argmin(axis=1).astype(np.int64)
    return Surrogates(start_um, 1, 0.0, grid, snapshots, np.zeros((len(grid), 1, 1)))
