"""Self-organising particles: the seed system, short-ranged attraction with a repulsive core.

Equation as in the code published with Andrejevic et al., npj Comput Mater 10, 225 (2024) (swarm without phase
coupling): dx_i/dt = z sum_j h(r) (1 - h(r)) (x_j - x_i) with
h(r) = (r_c / r) (1 + tanh(1 / (r - r_c) - 1 / (r - 2 r_c))) / 2 for r < r_c, zero beyond. Here a length unit and a time
unit turn it into micrometres and seconds, and an optional Brownian term sqrt(2 D) dW is added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from beamline_ml.dynamics.patterns import PatternScattering, sphere_form_factor
from beamline_ml.dynamics.spline import fit_spline
from beamline_ml.dynamics.systems.motion import pair_trajectory
from beamline_ml.records import Float64Array

SEED_CUTOFF = 0.75
SEED_DIAMETER = 5.0
SEED_RATE = (2.0 / SEED_DIAMETER) ** 2
SEED_DENSITY = 500.0 / (np.pi * (0.5 * SEED_DIAMETER) ** 2)


@dataclass(frozen=True, slots=True)
class SelfOrganising:
    """The seed's force law in physical units."""

    length_um: float = 1.0
    """What one length unit of the published system is, in um."""
    time_s: float = 1.0
    """What one time unit is, in s."""
    diffusion_um2_per_s: float = 0.0
    """Brownian term."""
    relative_density: float = 1.0
    """Number density as a fraction of the published system's (500 particles on a disc of diameter 5)."""

    @property
    def cutoff_um(self) -> float:
        """Range of the force in um."""
        return SEED_CUTOFF * self.length_um

    @property
    def number_density_per_um2(self) -> float:
        """Particles per um^2."""
        return self.relative_density * SEED_DENSITY / self.length_um**2

    def radial_force(self, r_um: Float64Array) -> Float64Array:
        """Velocity in um/s that a neighbour at distance r lends along the line away from it: negative attracts."""
        r = np.maximum(np.asarray(r_um, dtype=np.float64) / self.length_um, 1e-9)
        inside = r < SEED_CUTOFF
        safe = np.where(inside, r, 0.5 * SEED_CUTOFF)
        switch = 0.5 * (1.0 + np.tanh(1.0 / (safe - SEED_CUTOFF) - 1.0 / (safe - 2.0 * SEED_CUTOFF)))
        h = SEED_CUTOFF / safe * switch
        pull = SEED_RATE * h * (1.0 - h) * safe
        return np.where(inside, -pull, 0.0) * self.length_um / self.time_s

    def spline(self, n_coefficients: int = 256) -> Float64Array:
        """B-spline coefficients of the force in um/s; the 1/r core is cut below a fiftieth of the range."""
        return fit_spline(self.radial_force, n_coefficients, self.cutoff_um, r_min_um=self.cutoff_um / 50.0)

    def trajectory(self, start_um: Float64Array, times_s: Float64Array, steps_per_time: int = 2) -> Float64Array:
        """Motion in open space without the Brownian term, (n_times, n, 2) um, by Runge-Kutta of order four.

        Parameters
        ----------
        start_um
            (n, 2) particles at times_s[0].
        times_s
            (n_times,) evenly spaced.
        """
        return pair_trajectory(start_um, times_s, self.spline(), self.cutoff_um, steps_per_time)


def published_optics() -> PatternScattering:
    """Detector, beam and particles of the published system, its length unit taken as 1 um.

    64 x 64 pixels, 0.75 of 2 pi / 5 um apart; a Gaussian beam whose amplitude has a standard deviation of a quarter of
    the disc's diameter; spheres of radius 0.15; a beam stop of 0.05 x 48 times 2 pi / 5 um. The published code
    multiplies by the form factor before it folds with the beam, which differs by the spheres' extent over the beam's.
    """
    size, probe_sd_um, radius_um = 64, 0.25 * SEED_DIAMETER, 0.15
    point = PatternScattering(size, 0.75 * 2.0 * np.pi / SEED_DIAMETER, np.sqrt(2.0) * probe_sd_um, 0.05 * 48 / 0.75)
    return replace(point, sensitivity=sphere_form_factor(point.radius_inv_um, radius_um))


def disc_start(n: int, radius_um: float, rng: np.random.Generator) -> Float64Array:
    """Particles spread evenly over a disc around the origin, (n, 2) um."""
    radius, angle = radius_um * np.sqrt(rng.uniform(0, 1, n)), rng.uniform(0, 2 * np.pi, n)
    return radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
