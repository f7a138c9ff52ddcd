"""Lines of a plan that say what the beam does to the sample: heating, thermal time, attenuation, dose.

Heating is bounded from above: the diffuson conductivity is the least that a dense crystal has, the heat capacity is
harmonic and at constant volume, and the beam is an even disc. Bands are those of the prediction behind the bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import heat
from beamline_ml.guidance.conditions import Conditions
from beamline_ml.phonons import PhononDos
from beamline_ml.phonons.conformal import RelativeBand
from beamline_ml.records import Float64Array, PlanLine

KG_PER_U = 1.66053906892e-27
_PER_M3 = 1e30
_UM = 1e-6
_GRAY_PER_MGY = 1e6


@dataclass(frozen=True, slots=True)
class Banded:
    """A number with its 90 % band."""

    value: float
    lower: float
    upper: float


def banded(dos: PhononDos, temperature_k: float, figure: Callable[[Float64Array], float]) -> Banded:
    """A figure of the shares, with the members' scatter on the wider of the calibrations that enter it."""
    value = figure(dos.shares)
    members = np.array([figure(shares) for shares in dos.member_shares])
    quantile = max(dos.calibration.mean_energy.quantile, dos.calibration.heat_capacity.at(temperature_k).quantile)
    low, high = RelativeBand(quantile).band(value, members)
    return Banded(value, float(low), float(high))


def conductivity_lines(dos: PhononDos, conditions: Conditions) -> list[PlanLine]:
    """The bound on heat conductivity that the heating lines rest on."""
    density, temperature_k = _density_per_m3(conditions), conditions.temperature_k
    bound = banded(
        dos,
        temperature_k,
        lambda shares: heat.conductivity_bound_w_per_m_k(dos.edges_mev, shares, density, temperature_k),
    )
    return [
        _line(
            "conductivity_bound", bound, "W/(m K)", "knowledge",
            "Diffusons alone carry this much; it bounds heating from above and does not predict the conductivity.",
        )
    ]  # fmt: skip


def steady_heating_lines(dos: PhononDos, conditions: Conditions) -> list[PlanLine]:
    """Lasting rise of temperature, and the transmission of an attenuator that keeps it allowed."""
    rise = _steady_k(dos, conditions)
    absorbed = "of which it absorbs all, for want of an attenuation length"
    if conditions.attenuation_length_um is not None:
        absorbed = f"of which it absorbs {100 * _absorbed_share(conditions):.2g} %"
    reason = (
        f"At most this much, with {conditions.beam_power_w:.2g} W on the sample, {absorbed}, and a perfect contact at "
        "the sink; a contact that resists adds to it."
    )
    limit = "heating" if rise.upper > conditions.allowed_heating_k else "none"
    return [_line("steady_heating", rise, "K", limit, reason)]


def pulse_heating_lines(dos: PhononDos, conditions: Conditions) -> list[PlanLine]:
    """Rise of temperature within one pulse at the face of the sample."""
    density, temperature_k = _density_per_m3(conditions), conditions.temperature_k
    absorbed = _pulse_j_per_m3(conditions)
    rise = banded(
        dos,
        temperature_k,
        lambda shares: heat.pulse_heating_k(dos.edges_mev, shares, density, temperature_k, absorbed),
    )
    limit = "heating" if rise.upper > conditions.allowed_heating_k else "none"
    reason = "One pulse is over before heat can leave, and the face of the sample takes up most."
    return [_line("pulse_heating", rise, "K", limit, reason)]


def transmission_lines(dos: PhononDos, conditions: Conditions) -> list[PlanLine]:
    """Transmission of the attenuator with which lasting and pulsed heating together stay allowed."""
    allowed = conditions.allowed_heating_k
    pulsed = not conditions.unknown("pulse_rate_hz", "attenuation_length_um")
    share = banded(dos, conditions.temperature_k, lambda shares: _allowed_share(dos, shares, conditions, pulsed))
    if share.lower >= 1.0:
        limit, reason = "flux", f"The full beam warms the sample by less than {allowed:g} K."
    else:
        limit = "heating"
        reason = f"With this share of the beam the sample warms by at most {allowed:g} K."
    if not pulsed:
        reason = f"{reason[:-1]}, heating within pulses left out."
    capped = Banded(min(share.value, 1.0), min(share.lower, 1.0), min(share.upper, 1.0))
    return [_line("attenuator_transmission", capped, "1", limit, reason)]


def thermal_time_lines(dos: PhononDos, conditions: Conditions) -> list[PlanLine]:
    """Time in which the footprint cools sideways, against the time between frames."""
    density, temperature_k, radius = _density_per_m3(conditions), conditions.temperature_k, conditions.beam_radius_um

    def time_s(shares: Float64Array) -> float:
        conductivity = heat.conductivity_bound_w_per_m_k(dos.edges_mev, shares, density, temperature_k)
        capacity = heat.volume_heat_capacity_j_per_m3_k(dos.edges_mev, shares, density, temperature_k)
        return heat.thermal_time_s(radius * _UM, conductivity, capacity)

    time = banded(dos, temperature_k, time_s)
    limit, reason = _cooling(time, conditions.frame_period_s)
    return [_line("thermal_time", time, "s", limit, reason)]


def _cooling(time: Banded, frame_period_s: float | None) -> tuple[str, str]:
    if frame_period_s is None:
        return "none", "At most this long heat stays in the footprint; give the frame period to compare."
    if frame_period_s >= time.upper:
        return "none", f"Frames {frame_period_s:g} s apart begin cool: each finds the heat of the last one gone."
    return "frame period", f"Frames {frame_period_s:g} s apart may add up their heat, for it stays up to this long."


def dose_lines(dos: PhononDos, conditions: Conditions) -> list[PlanLine]:
    """Time in the full beam that the dose budget allows at the face of the sample."""
    mass_kg_per_m3 = _density_per_m3(conditions) * float(dos.masses_u.mean()) * KG_PER_U
    rate = conditions.beam_power_w / (_area_m2(conditions) * conditions.known("attenuation_length_um") * _UM)
    gray_per_s = rate / mass_kg_per_m3
    budget_s = conditions.known("dose_budget_mgy") * _GRAY_PER_MGY / gray_per_s
    frames = "" if conditions.frame_period_s is None else f" ({budget_s / conditions.frame_period_s:,.0f} frames)"
    return [
        PlanLine(
            "dose_time", budget_s, budget_s, budget_s, "s", "dose",
            f"The face absorbs {gray_per_s / _GRAY_PER_MGY:.3g} MGy/s, so this exposure{frames} uses up the budget.",
        )
    ]  # fmt: skip


def _line(quantity: str, number: Banded, unit: str, limit: str, reason: str) -> PlanLine:
    return PlanLine(quantity, number.value, number.lower, number.upper, unit, limit, reason)


def _density_per_m3(conditions: Conditions) -> float:
    return conditions.known("number_density_per_angstrom3") * _PER_M3


def _area_m2(conditions: Conditions) -> float:
    return float(np.pi * (conditions.beam_radius_um * _UM) ** 2)


def _absorbed_share(conditions: Conditions) -> float:
    """Share of the beam that stays in the sample; all of it where the attenuation length is not known."""
    if conditions.attenuation_length_um is None:
        return 1.0
    return float(-np.expm1(-conditions.known("thickness_um") / conditions.attenuation_length_um))


def _pulse_j_per_m3(conditions: Conditions) -> float:
    pulse_j = conditions.beam_power_w / conditions.known("pulse_rate_hz")
    return pulse_j / (_area_m2(conditions) * conditions.known("attenuation_length_um") * _UM)


def _steady_of(dos: PhononDos, shares: Float64Array, conditions: Conditions) -> float:
    conductivity = heat.conductivity_bound_w_per_m_k(
        dos.edges_mev, shares, _density_per_m3(conditions), conditions.temperature_k
    )
    return heat.steady_heating_k(
        conditions.beam_power_w * _absorbed_share(conditions),
        conditions.beam_radius_um * _UM,
        conditions.known("thickness_um") * _UM,
        conditions.known("sink_radius_um") * _UM,
        conductivity,
    )


def _steady_k(dos: PhononDos, conditions: Conditions) -> Banded:
    return banded(dos, conditions.temperature_k, lambda shares: _steady_of(dos, shares, conditions))


def _allowed_share(dos: PhononDos, shares: Float64Array, conditions: Conditions, pulsed: bool) -> float:
    """Share of the beam, possibly above 1, with which all heating together is just allowed."""
    steady, allowed = _steady_of(dos, shares, conditions), conditions.allowed_heating_k
    if not pulsed:
        return allowed / steady
    per_pulse = _pulse_j_per_m3(conditions)
    density, temperature_k = _density_per_m3(conditions), conditions.temperature_k
    highest = heat.absorbable_j_per_m3(dos.edges_mev, shares, density, temperature_k, allowed) / per_pulse

    def excess(share: float) -> float:
        warm = heat.pulse_heating_k(dos.edges_mev, shares, density, temperature_k, share * per_pulse)
        return share * steady + warm - allowed

    top = min(highest, allowed / steady)
    if not np.isfinite(top):
        raise GuidanceError("No share of the beam keeps the heating allowed.", "Widen the beam.")
    return float(brentq(excess, 0.0, top)) if excess(top) > 0.0 else float(top)
