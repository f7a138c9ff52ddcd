"""Charged colloids in a liquid: Brownian spheres with a screened repulsion.

dx_i/dt = (D / kT) sum_j -grad U(r_ij) + sqrt(2 D) dW with D = kT / (6 pi eta a) (Stokes-Einstein; Einstein, Ann. Phys.
322, 549 (1905)) and U(r) = A kT (2 a / r) exp(-(r - 2 a) / lambda) (the screened Coulomb part of the DLVO potential).
Hydrodynamic interactions are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.brownian import brownian_motion
from beamline_ml.dynamics.spline import fit_spline
from beamline_ml.records import Float64Array

BOLTZMANN_J_PER_K = 1.380649e-23
RANGE_IN_SCREENING_LENGTHS = 4.0


@dataclass(frozen=True, slots=True)
class BrownianColloids:
    """A monolayer of equal spheres; the defaults are weakly charged spheres of 200 nm in water."""

    radius_um: float = 0.1
    temperature_k: float = 298.15
    viscosity_pa_s: float = 0.89e-3
    contact_energy_kt: float = 1.0
    """A: the repulsion at contact; 0 = free Brownian motion."""
    screening_um: float = 0.2
    """lambda, the Debye length."""

    @property
    def diffusion_um2_per_s(self) -> float:
        """D of one sphere alone (1e18 um^3/m^3: kT / (eta a) in m^3/s per um is 1e18 um^2/s)."""
        energy_j = BOLTZMANN_J_PER_K * self.temperature_k
        return 1e18 * energy_j / (6.0 * np.pi * self.viscosity_pa_s * self.radius_um)

    @property
    def cutoff_um(self) -> float:
        """Distance beyond which the repulsion is left out: 4 screening lengths from contact."""
        return 2.0 * self.radius_um + RANGE_IN_SCREENING_LENGTHS * self.screening_um

    def radial_force(self, r_um: Float64Array) -> Float64Array:
        """Velocity in um/s that a neighbour at distance r lends along the line away from it: positive repels.

        Spheres that overlap (a random start) part as at contact.
        """
        contact = 2.0 * self.radius_um
        distance = np.asarray(r_um, dtype=np.float64)
        r = np.maximum(distance, contact)
        energy_kt = self.contact_energy_kt * contact / r * np.exp(-(r - contact) / self.screening_um)
        force = self.diffusion_um2_per_s * energy_kt * (1.0 / r + 1.0 / self.screening_um)
        return np.where(distance < self.cutoff_um, force, 0.0)

    def spline(self, n_coefficients: int = 96) -> Float64Array:
        """(n_coefficients,) B-spline of the force in um/s."""
        return fit_spline(self.radial_force, n_coefficients, self.cutoff_um)

    def motion(
        self, start_um: Float64Array, box_um: float, step_s: float, n_steps: int, rng: np.random.Generator
    ) -> Iterator[Float64Array]:
        """Positions after 0, 1, ..., n_steps - 1 steps in a periodic box, (n, 2) um, not wrapped."""
        return brownian_motion(
            start_um, box_um, self.spline(), self.cutoff_um, self.diffusion_um2_per_s, step_s, n_steps, rng
        )
