"""What a density of states says of the inelastic scan: how far in energy, how fine, and at which momentum transfer."""

from __future__ import annotations

import numpy as np
from scipy.signal import find_peaks

from beamline_ml.phonons.thermodynamics import BOLTZMANN_MEV_PER_K
from beamline_ml.records import Float64Array

EDGE_SHARE = 0.995
"""Share of the modes below the upper band edge."""
PREDICTED_EDGE_SHARE = 0.975
"""Share of the *predicted* modes below the same edge. The shipped network leaks a few per cent of them above the top of
the bands; at this share its edge is without bias on held-out crystals (median ratio 0.999 of 121), while at 0.995 it
lies 14 % too high."""
HEADROOM = 1.1
LEAST_OCCUPATION = 0.05
"""Bose factor below which the energy-gain side is not worth scanning."""
MULTIPHONON_LIMIT = 0.3
"""Largest Q^2 <u^2> at which scattering by several phonons stays a correction."""
_PEAK_PROMINENCE = 0.1


def upper_edge_mev(edges_mev: Float64Array, shares: Float64Array, below: float = EDGE_SHARE) -> float:
    """Energy in meV below which this share of the modes lies; uniform density within a window."""
    cumulative = np.concatenate([[0.0], np.cumsum(shares)])
    return float(np.interp(below * cumulative[-1], cumulative, edges_mev))


def gain_side_mev(temperature_k: float) -> float:
    """Energy gain in meV at which the Bose factor has fallen to 0.05: k_B T ln 21."""
    return BOLTZMANN_MEV_PER_K * temperature_k * float(np.log1p(1.0 / LEAST_OCCUPATION))


def share_below(edges_mev: Float64Array, shares: Float64Array, energy_mev: float) -> float:
    """Share of the modes below an energy."""
    cumulative = np.concatenate([[0.0], np.cumsum(shares)])
    return float(np.interp(energy_mev, edges_mev, cumulative) / cumulative[-1])


def peaks_mev(edges_mev: Float64Array, shares: Float64Array, grid_mev: float) -> Float64Array:
    """Energies of the peaks that stand out by a tenth of the highest, on an even grid no finer than ``grid_mev``."""
    top = upper_edge_mev(edges_mev, shares) * HEADROOM
    bounds = np.arange(0.0, top + 2.0 * grid_mev, grid_mev)
    cumulative = np.interp(bounds, edges_mev, np.concatenate([[0.0], np.cumsum(shares)]))
    density = np.concatenate([[0.0], np.diff(cumulative), [0.0]])
    found, _ = find_peaks(density, prominence=_PEAK_PROMINENCE * density.max())
    centres: Float64Array = bounds[found - 1] + 0.5 * grid_mev
    return centres


def strongest_signal_q_inv_angstrom(mean_square_displacement_angstrom2: float) -> float:
    """Momentum transfer at which one-phonon scattering, Q^2 exp(-Q^2 U), is strongest: U^(-1/2)."""
    return float(mean_square_displacement_angstrom2**-0.5)


def single_phonon_q_inv_angstrom(mean_square_displacement_angstrom2: float) -> float:
    """Momentum transfer up to which scattering by several phonons stays a correction: (0.3/U)^(1/2)."""
    return float((MULTIPHONON_LIMIT / mean_square_displacement_angstrom2) ** 0.5)
