"""What the beam does to the temperature of a crystal of which only the density of states is known.

Every function errs to the hot side. The lattice conducts heat at least as well as by diffusons alone, stores at least
its harmonic heat at constant volume, and gives none of it to the air. What lies between crystal and holder (glue,
grease, a gap) comes on top and is not known here.

Sources: diffuson conductivity, M. T. Agne, R. Hanus, G. J. Snyder, Energy Environ. Sci. 11, 609 (2018); discs
on half-spaces and plates, H. S. Carslaw, J. C. Jaeger, Conduction of Heat in Solids, 2nd ed.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from beamline_ml.errors import GuidanceError
from beamline_ml.phonons.thermodynamics import BOLTZMANN_MEV_PER_K, heat_capacity_kernel, window_mean
from beamline_ml.records import Float64Array

BOLTZMANN_J_PER_K = 1.380649e-23
HBAR_MEV_S = 6.582119569e-13
JOULE_PER_MEV = 1.602176634e-22
_HOTTEST_K = 1e6


def conductivity_bound_w_per_m_k(
    edges_mev: Float64Array, shares: Float64Array, number_density_per_m3: float, temperature_k: float
) -> float:
    """Heat conductivity by diffusons alone, n^(1/3) k_B / pi <C(E)/k_B omega>, below that of the crystal.

    It is a bound for heating estimates and no prediction of the crystal's conductivity, which is usually far higher.

    Parameters
    ----------
    edges_mev, shares
        (n_w + 1,) and (n_w,) energy windows and the share of the modes in each.
    """

    def kernel(energy_mev: Float64Array) -> Float64Array:
        half = np.minimum(energy_mev / (2.0 * BOLTZMANN_MEV_PER_K * temperature_k), 300.0)
        return energy_mev / HBAR_MEV_S * (half / np.sinh(half)) ** 2

    rate_per_s = float(shares @ window_mean(kernel, edges_mev))
    return number_density_per_m3 ** (1.0 / 3.0) * BOLTZMANN_J_PER_K * rate_per_s / np.pi


def volume_heat_capacity_j_per_m3_k(
    edges_mev: Float64Array, shares: Float64Array, number_density_per_m3: float, temperature_k: float
) -> float:
    """Harmonic heat capacity at constant volume of a unit of volume."""
    per_mode = float(shares @ heat_capacity_kernel(edges_mev, temperature_k))
    return 3.0 * number_density_per_m3 * BOLTZMANN_J_PER_K * per_mode


def thermal_time_s(
    beam_radius_m: float, conductivity_w_per_m_k: float, volume_heat_capacity_j_per_m3_k: float
) -> float:
    """Time a^2 / (4 D) in which heat leaves the beam's footprint sideways."""
    return beam_radius_m**2 * volume_heat_capacity_j_per_m3_k / (4.0 * conductivity_w_per_m_k)


def steady_heating_k(
    absorbed_power_w: float,
    beam_radius_m: float,
    thickness_m: float,
    sink_radius_m: float,
    conductivity_w_per_m_k: float,
) -> float:
    """Bound on the lasting rise of temperature in the middle of an even disc of beam on a plate held at its rim.

    The rise is that of the thin plate, P/(2 pi kappa t) (ln(R/a) + 1/2), plus that of spreading into depth, which a
    half-space bounds by P/(pi kappa a): the sum bounds plates of any thickness, wherever in depth they absorb.

    Raises
    ------
    GuidanceError
        The rim lies within the beam.
    """
    if sink_radius_m <= beam_radius_m:
        raise GuidanceError(
            f"The heat sink at {1e6 * sink_radius_m:g} um lies within the beam of radius {1e6 * beam_radius_m:g} um.",
            "Give the distance from the middle of the beam to where the sample is held at temperature.",
        )
    plate = (np.log(sink_radius_m / beam_radius_m) + 0.5) / (2.0 * thickness_m)
    return float(absorbed_power_w / (np.pi * conductivity_w_per_m_k) * (plate + 1.0 / beam_radius_m))


def pulse_heating_k(
    edges_mev: Float64Array,
    shares: Float64Array,
    number_density_per_m3: float,
    temperature_k: float,
    absorbed_j_per_m3: float,
) -> float:
    """Rise of temperature when a volume takes up heat faster than it can pass it on.

    The heat content at the end is that at the start plus what was absorbed; the heat capacity follows the density of
    states on the way, so cold crystals become much hotter than their capacity at the start suggests.

    Raises
    ------
    GuidanceError
        The crystal would reach a million kelvin: the pulse ends it, and no temperature describes that.
    """
    per_mode_mev = absorbed_j_per_m3 / (3.0 * number_density_per_m3) / JOULE_PER_MEV
    goal = _heat_mev(edges_mev, shares, temperature_k) + per_mode_mev
    if per_mode_mev <= 0.0:
        return 0.0
    if _heat_mev(edges_mev, shares, _HOTTEST_K) < goal:
        raise GuidanceError(
            f"A pulse of {absorbed_j_per_m3:.3g} J/m^3 leaves no crystal.", "Attenuate, or widen the beam."
        )
    end = brentq(lambda t: _heat_mev(edges_mev, shares, t) - goal, temperature_k, _HOTTEST_K, xtol=1e-9, rtol=1e-12)
    return float(end) - temperature_k


def absorbable_j_per_m3(
    edges_mev: Float64Array,
    shares: Float64Array,
    number_density_per_m3: float,
    temperature_k: float,
    rise_k: float,
) -> float:
    """Heat that a unit of volume takes up while it becomes this much warmer: the inverse of ``pulse_heating_k``."""
    gained = _heat_mev(edges_mev, shares, temperature_k + rise_k) - _heat_mev(edges_mev, shares, temperature_k)
    return 3.0 * number_density_per_m3 * gained * JOULE_PER_MEV


def _heat_mev(edges_mev: Float64Array, shares: Float64Array, temperature_k: float) -> float:
    """Mean thermal energy of a mode, without its zero-point motion."""

    def kernel(energy_mev: Float64Array) -> Float64Array:
        x = np.minimum(energy_mev / (BOLTZMANN_MEV_PER_K * temperature_k), 600.0)
        return energy_mev / np.expm1(x)

    return float(shares @ window_mean(kernel, edges_mev))
