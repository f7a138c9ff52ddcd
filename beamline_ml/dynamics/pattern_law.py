"""A force law found from speckle patterns, and the patterns that it predicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.flow import Surrogates, move
from beamline_ml.dynamics.pattern_state import PatternState
from beamline_ml.dynamics.patterns import PatternScattering, expected_photons
from beamline_ml.dynamics.spline import spline_basis, spline_deviation
from beamline_ml.dynamics.tangent_motion import integration_grid, shortest_spacing_s
from beamline_ml.records import Float64Array


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
    joint_covariance: Float64Array | None = None
    """(n_coefficients + 2 n, ...) of the coefficients and the start's coordinates; None: the start is known."""
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
        return expected_photons(self.scattering, self.photons_per_intensity, x)


def open_particles(start_um: Float64Array, times_s: Float64Array, longest_s: float | None = None) -> Surrogates:
    """One open box without noise; times count from the first.

    Steps are not longer than ``longest_s``; None = the shortest time between two of ``times_s``.
    """
    times = np.asarray(times_s, np.float64) - times_s[0]
    grid = integration_grid(times, shortest_spacing_s(times) if longest_s is None else longest_s, 1)
    snapshots = np.abs(grid[None, :] - times[:, None]).argmin(axis=1).astype(np.int64)
    return Surrogates(start_um, 1, 0.0, grid, snapshots, np.zeros((len(grid), 1, 1)))
