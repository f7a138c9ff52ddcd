"""The answer of the predictor: a density of states with bands, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from beamline_ml.phonons import thermodynamics
from beamline_ml.phonons.conformal import Calibration
from beamline_ml.phonons.windows import MEV_PER_INV_CM
from beamline_ml.records import Float64Array, IntArray


@dataclass(frozen=True, slots=True)
class NearestMaterial:
    """The training material that the network finds most alike."""

    name: str
    """Identifier of the source, such as mp-149."""
    formula: str
    distance: float
    """In the network's own description of crystals; 1 is the distance that 95 % of unseen crystals stay below."""


@dataclass(frozen=True, slots=True)
class PhononDos:
    """Phonon density of states of one crystal with 90 % bands; harmonic, from a network trained on DFPT."""

    numbers: IntArray
    """(n_atoms,) atomic numbers, in the order of the sites given."""
    masses_u: Float64Array
    """(n_atoms,) masses in u, as the crystal was given (isotopes are heeded in the displacements)."""
    edges_mev: Float64Array
    """(n_w + 1,) edges of the energy windows in meV."""
    modes: Float64Array
    """(n_w,) number of modes of the given cell in each window; sum 3 n_atoms."""
    modes_lower: Float64Array
    """(n_w,) lower edge of the 90 % band."""
    modes_upper: Float64Array
    """(n_w,) upper edge of the 90 % band."""
    dos_51: Float64Array
    """(51,) published convention: smoothed density at 0, 20, ..., 1000 cm^-1; the true curve has maximum 1, the
    prediction is sized for least squared error and so stays lower where it is unsure."""
    site_modes: Float64Array
    """(n_atoms, n_w) modes each site takes part in; rows sum to 3. The training data hold totals only, so the
    division among sites is the network's inference."""
    member_shares: Float64Array
    """(n_members, n_w) share of the modes as each member of the ensemble, and the second opinion, has it."""
    member_points: Float64Array
    """(n_members, 51) ``dos_51`` as each member has it."""
    nearest: NearestMaterial
    warnings: tuple[str, ...]
    """Reasons for caution; empty where the crystal lies within what the network was trained on."""
    calibration: Calibration = field(repr=False)
    model: str = ""
    """Version of the weights."""
    imaginary_share: str = "not assessed"
    """Whether unstable modes exist is not predicted: on held-out materials the network could not tell."""
    second_opinion: str = "not asked"
    """Where a second opinion in these numbers comes from, or why there is none (``phonons.stacking``)."""

    @property
    def shares(self) -> Float64Array:
        """(n_w,) share of the 3N modes in each window; sum 1."""
        return self.modes / self.modes.sum()

    @property
    def spread(self) -> float:
        """Disagreement of the members (rms over points and members); ranks predictions by their likely error."""
        return float(np.sqrt(self.member_points.var(axis=0, ddof=1).mean()))

    @property
    def mean_frequency_inv_cm(self) -> float:
        """Mean phonon frequency in cm^-1."""
        return self.mean_energy_mev / MEV_PER_INV_CM

    @property
    def mean_energy_mev(self) -> float:
        """Mean phonon energy in meV."""
        return thermodynamics.mean_energy_mev(self.edges_mev, self.shares)

    def mean_energy_band_mev(self) -> tuple[float, float]:
        """90 % band of the mean phonon energy in meV."""
        energy = thermodynamics.window_mean(lambda e: e, self.edges_mev)
        low, high = self.calibration.mean_energy.band(self.mean_energy_mev, self.member_shares @ energy)
        return float(low), float(high)

    def heat_capacity(self, temperature_k: float) -> float:
        """Heat capacity at constant volume in J/(K mol of atoms)."""
        return thermodynamics.heat_capacity(self.edges_mev, self.shares, temperature_k)

    def heat_capacity_band(self, temperature_k: float) -> tuple[float, float]:
        """90 % band of the heat capacity in J/(K mol of atoms)."""
        kernel = 3.0 * thermodynamics.GAS_CONSTANT_J_PER_K_MOL * thermodynamics.heat_capacity_kernel(
            self.edges_mev, temperature_k
        )  # fmt: skip
        relative = self.calibration.heat_capacity.at(temperature_k)
        low, high = relative.band(self.shares @ kernel, self.member_shares @ kernel)
        return float(low), min(float(high), 3.0 * thermodynamics.GAS_CONSTANT_J_PER_K_MOL)

    def entropy(self, temperature_k: float) -> float:
        """Vibrational entropy in J/(K mol of atoms)."""
        return thermodynamics.entropy(self.edges_mev, self.shares, temperature_k)

    def debye_temperature(self, moment: int) -> float:
        """Debye temperature in K by moment: -2 for Debye-Waller, 0 for entropy, 2 for heat capacity at high
        temperature."""
        return thermodynamics.debye_temperature(self.edges_mev, self.shares, moment)

    def mean_square_displacement(self, temperature_k: float) -> Float64Array:
        """(n_atoms,) mean-square displacement <u_x^2> along one direction, of each site, in angstrom^2."""
        return thermodynamics.mean_square_displacement(
            self.edges_mev, self.site_modes / 3.0, self.masses_u, temperature_k
        )

    def mean_square_displacement_band(self, temperature_k: float) -> tuple[Float64Array, Float64Array]:
        """90 % band of each site's <u_x^2> in angstrom^2, (n_atoms,) each.

        Calibrated on the mass-weighted mean over sites, which is what data without site-projected densities can check.
        """
        kernel = thermodynamics.displacement_kernel(self.edges_mev, temperature_k)
        relative = self.calibration.displacement.at(temperature_k)
        total = self.shares @ kernel
        low, high = relative.band(total, self.member_shares @ kernel)
        sites = self.mean_square_displacement(temperature_k)
        return sites * float(low / total), sites * float(high / total)

    def b_factor(self, temperature_k: float) -> Float64Array:
        """(n_atoms,) crystallographic B in angstrom^2."""
        return thermodynamics.b_factor(self.mean_square_displacement(temperature_k))

    def debye_waller_factor(self, temperature_k: float, q_inv_angstrom: float) -> Float64Array:
        """(n_atoms,) exp(-q^2 <u_x^2>): what thermal motion leaves of each site's elastic intensity."""
        return thermodynamics.debye_waller_factor(self.mean_square_displacement(temperature_k), q_inv_angstrom)
