"""Harmonic thermodynamics of a density of states given as modes per energy window.

Everything is a sum over windows of modes times the mean of a textbook kernel over the window (x = E / k_B T):

* heat capacity      3R (x/2)^2 / sinh^2(x/2)
* entropy            3R [ (x/2) coth(x/2) - ln(2 sinh(x/2)) ]
* displacement       hbar^2 / (2 m E) coth(x/2) per mode (one Cartesian direction)

Sources: Ashcroft & Mermin, Solid State Physics, ch. 23 and app. N; Debye temperatures by moment as in Grimvall,
Thermophysical Properties of Materials, sec. 6. Within a window the density is uniform, except in the lowest one,
where it rises as E^2 as it must in any crystal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from beamline_ml.records import Float64Array

BOLTZMANN_MEV_PER_K = 0.08617333262
"""k_B in meV/K (CODATA 2018)."""
GAS_CONSTANT_J_PER_K_MOL = 8.31446261815324
"""R in J/(K mol) (CODATA 2018)."""
HBAR2_PER_U_MEV_ANGSTROM2 = 4.180159279
"""hbar^2 / u in meV angstrom^2 (CODATA 2018)."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def window_mean(kernel: Callable[[Float64Array], Float64Array], edges_mev: Float64Array) -> Float64Array:
    """(n_windows,) mean of a kernel of the energy (meV) over each window, by 12-point Gauss-Legendre quadrature."""
    low, high = edges_mev[:-1, None], edges_mev[1:, None]
    energy = low + (high - low) * (_NODES + 1.0) / 2.0
    density = np.ones_like(energy)
    if edges_mev[0] == 0.0:
        density[0] = energy[0] ** 2
    weight = density * _WEIGHTS
    mean: Float64Array = (kernel(energy) * weight).sum(axis=1) / weight.sum(axis=1)
    return mean


def heat_capacity_kernel(edges_mev: Float64Array, temperature_k: float) -> Float64Array:
    """(n_windows,) heat capacity of a mode in units of k_B."""
    if temperature_k <= 0.0:
        return np.zeros(len(edges_mev) - 1)

    def kernel(energy: Float64Array) -> Float64Array:
        half = _half_x(energy, temperature_k)
        return (half / np.sinh(half)) ** 2

    return window_mean(kernel, edges_mev)


def entropy_kernel(edges_mev: Float64Array, temperature_k: float) -> Float64Array:
    """(n_windows,) entropy of a mode in units of k_B."""
    if temperature_k <= 0.0:
        return np.zeros(len(edges_mev) - 1)

    def kernel(energy: Float64Array) -> Float64Array:
        half = _half_x(energy, temperature_k)
        decay = np.exp(-2.0 * half)
        return 2.0 * half * decay / (1.0 - decay) - np.log1p(-decay)

    return window_mean(kernel, edges_mev)


def displacement_kernel(edges_mev: Float64Array, temperature_k: float) -> Float64Array:
    """(n_windows,) mean of coth(E / 2 k_B T) / (2 E) over the window, in 1/meV."""

    def kernel(energy: Float64Array) -> Float64Array:
        if temperature_k <= 0.0:
            return 0.5 / energy
        return 0.5 / (energy * np.tanh(_half_x(energy, temperature_k)))

    return window_mean(kernel, edges_mev)


def _half_x(energy_mev: Float64Array, temperature_k: float) -> Float64Array:
    """E / (2 k_B T), capped where every kernel has long vanished."""
    half: Float64Array = np.minimum(energy_mev / (2.0 * BOLTZMANN_MEV_PER_K * temperature_k), 300.0)
    return half


def heat_capacity(edges_mev: Float64Array, shares: Float64Array, temperature_k: float) -> float:
    """Heat capacity at constant volume in J/(K mol of atoms); ``shares`` (n_windows,) of the 3N modes sum to 1."""
    return float(3.0 * GAS_CONSTANT_J_PER_K_MOL * shares @ heat_capacity_kernel(edges_mev, temperature_k))


def entropy(edges_mev: Float64Array, shares: Float64Array, temperature_k: float) -> float:
    """Vibrational entropy in J/(K mol of atoms)."""
    return float(3.0 * GAS_CONSTANT_J_PER_K_MOL * shares @ entropy_kernel(edges_mev, temperature_k))


def mean_square_displacement(
    edges_mev: Float64Array, site_shares: Float64Array, masses_u: Float64Array, temperature_k: float
) -> Float64Array:
    """Mean-square displacement along one direction, <u_x^2>, of every site in angstrom^2.

    Parameters
    ----------
    site_shares
        (n_atoms, n_windows) share of each atom's three modes; rows sum to 1.
    masses_u
        (n_atoms,) masses in u.
    """
    per_energy = site_shares @ displacement_kernel(edges_mev, temperature_k)
    value: Float64Array = HBAR2_PER_U_MEV_ANGSTROM2 * per_energy / masses_u
    return value


def b_factor(mean_square_displacement_angstrom2: Float64Array) -> Float64Array:
    """Crystallographic B = 8 pi^2 <u_x^2> in angstrom^2 (International Tables D, 1.9)."""
    value: Float64Array = 8.0 * np.pi**2 * mean_square_displacement_angstrom2
    return value


def debye_waller_factor(mean_square_displacement_angstrom2: Float64Array, q_inv_angstrom: float) -> Float64Array:
    """Factor exp(-q^2 <u_x^2>) by which each site's thermal motion weakens its elastic intensity."""
    value: Float64Array = np.exp(-(q_inv_angstrom**2) * mean_square_displacement_angstrom2)
    return value


def mean_energy_mev(edges_mev: Float64Array, shares: Float64Array) -> float:
    """Mean phonon energy in meV."""
    return float(shares @ window_mean(lambda energy: energy, edges_mev))


def debye_temperature(edges_mev: Float64Array, shares: Float64Array, moment: int) -> float:
    """Debye temperature in K of the Debye solid with the same moment <E^n>; n >= -2 (n = 0 is the logarithmic mean).

    Theta_n = [ (n + 3)/3 <E^n> ]^(1/n) / k_B and Theta_0 = exp(1/3 + <ln E>) / k_B. Different moments serve different
    ends: -2 for the Debye-Waller factor, 0 for the entropy, 2 for the heat capacity at high temperature.
    """
    if moment < -2:
        raise ValueError(f"moment {moment} diverges for a crystal: ask for -2 or higher")
    if moment == 0:
        mean_log = float(shares @ window_mean(np.log, edges_mev))
        return float(np.exp(1.0 / 3.0 + mean_log) / BOLTZMANN_MEV_PER_K)
    mean = float(shares @ window_mean(lambda energy: energy ** float(moment), edges_mev))
    return float(((moment + 3.0) / 3.0 * mean) ** (1.0 / moment) / BOLTZMANN_MEV_PER_K)
