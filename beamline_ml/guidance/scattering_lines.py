"""Lines of a plan that say where and how finely to look: temperatures, energies, momentum transfer, Debye-Waller."""

from __future__ import annotations

import numpy as np

from beamline_ml.guidance import spectrum
from beamline_ml.guidance.conditions import Conditions
from beamline_ml.guidance.temperatures import temperature_steps
from beamline_ml.phonons import PhononDos
from beamline_ml.phonons.conformal import RelativeBand
from beamline_ml.phonons.windows import MEV_PER_INV_CM
from beamline_ml.records import Float64Array, PlanLine

GRID_MEV = 20.0 * MEV_PER_INV_CM
"""Width of the energy windows in meV: nothing finer is known."""
NEGLIGIBLE_LOSS = 0.01
_EDGE_BAND = RelativeBand(2.42)
"""Calibrated with the shipped weights on 121 held-out crystals; ``make bench ROOM=guidance`` watches its coverage."""
_STEP_NAMES = {"heat_capacity": "heat capacity", "displacement": "mean-square displacement"}


def temperature_lines(dos: PhononDos, conditions: Conditions) -> list[PlanLine]:
    """Temperature points at equal steps of heat capacity or mean-square displacement."""
    lowest_k, highest_k = conditions.temperature_range_k or (np.nan, np.nan)
    quantity = conditions.temperature_steps
    steps = temperature_steps(dos, lowest_k, highest_k, conditions.n_temperatures, quantity)
    last = conditions.n_temperatures - 1
    reason = (
        f"Between neighbouring points the harmonic {_STEP_NAMES[quantity]} grows by the same amount; expansion and "
        "anharmonicity, which matter above about the Debye temperature, are not in it."
    )
    return [
        PlanLine(
            f"temperature_point_{index + 1}",
            float(steps.temperature_k[index]),
            float(steps.lower_k[index]),
            float(steps.upper_k[index]),
            "K",
            "sample environment" if index in (0, last) else f"equal steps of {_STEP_NAMES[quantity]}",
            reason,
        )
        for index in range(conditions.n_temperatures)
    ]


def energy_window_lines(dos: PhononDos, conditions: Conditions) -> list[PlanLine]:
    """Ends of the energy scan on the loss and on the gain side."""
    loss, loss_low, loss_high = (spectrum.HEADROOM * value for value in predicted_upper_edge_mev(dos))
    gain = spectrum.gain_side_mev(conditions.temperature_k)
    occupied = gain < loss
    return [
        PlanLine(
            "energy_loss_end", loss, loss_low, loss_high, "meV", "band edge",
            "Below this energy lie 99.5 % of the modes, with a tenth to spare.",
        ),
        PlanLine(
            "energy_gain_end", min(gain, loss), min(gain, loss_low), min(gain, loss_high), "meV",
            "occupation" if occupied else "band edge",
            f"At {conditions.temperature_k:g} K the Bose factor falls below 0.05 beyond {gain:.1f} meV."
            if occupied
            else "The bands end before the modes run out of occupation.",
        ),
    ]  # fmt: skip


def predicted_upper_edge_mev(dos: PhononDos) -> tuple[float, float, float]:
    """Upper band edge of a predicted density with its 90 % band, from the members' own edges."""
    edge, *members = (
        spectrum.upper_edge_mev(dos.edges_mev, shares, spectrum.PREDICTED_EDGE_SHARE)
        for shares in (dos.shares, *dos.member_shares)
    )
    low, high = _EDGE_BAND.band(edge, np.array(members))
    return edge, float(low), float(high)


def resolution_lines(dos: PhononDos, conditions: Conditions) -> list[PlanLine]:
    """The finest resolution that the density gives a reason for."""
    spacing = _smallest_spacing_mev(dos.edges_mev, dos.shares)
    members = [_smallest_spacing_mev(dos.edges_mev, shares) for shares in dos.member_shares]
    useful, low, high = (max(0.5 * value, GRID_MEV) for value in (spacing, min(members), max(members)))
    if spectrum.peaks_mev(dos.edges_mev, dos.shares, GRID_MEV).size < 2:
        limit, reason = "band edge", f"One peak spreads up to {spacing:.1f} meV; the band spans the members' answers."
    elif useful > GRID_MEV:
        limit, reason = (
            "peak spacing",
            f"The closest peaks of the prediction lie {spacing:.1f} meV apart; the band spans the members.",
        )
    else:
        limit = "energy grid of the prediction"
        reason = f"Peaks may lie closer, but nothing finer than {GRID_MEV:.1f} meV is known of this density."
    return [PlanLine("useful_resolution", useful, low, high, "meV", limit, reason)]


def _smallest_spacing_mev(edges_mev: Float64Array, shares: Float64Array) -> float:
    """Between two peaks; where there is only one, the width of the spectrum."""
    peaks = spectrum.peaks_mev(edges_mev, shares, GRID_MEV)
    if peaks.size > 1:
        return float(np.diff(peaks).min())
    return spectrum.upper_edge_mev(edges_mev, shares, spectrum.PREDICTED_EDGE_SHARE)


def elastic_line_lines(dos: PhononDos, conditions: Conditions) -> list[PlanLine]:
    """Share of the modes that the spectrometer at hand cannot tell from elastic scattering."""
    lost_below = 2.0 * conditions.known("spectrometer_resolution_mev")
    lost = spectrum.share_below(dos.edges_mev, dos.shares, lost_below)
    members = np.array([max(spectrum.share_below(dos.edges_mev, m, lost_below), 1e-9) for m in dos.member_shares])
    low, high = dos.calibration.mean_energy.band(max(lost, 1e-9), members)
    return [
        PlanLine(
            "modes_in_elastic_line", lost, float(low), min(float(high), 1.0), "1", "spectrometer resolution",
            f"Modes below {lost_below:.1f} meV, two resolution widths, drown in the elastic line.",
        )
    ]  # fmt: skip


def momentum_lines(dos: PhononDos, conditions: Conditions) -> list[PlanLine]:
    """The momentum transfer at which to take phonon spectra."""
    value, low, high = mean_displacement_angstrom2(dos, conditions.temperature_k)
    limits = [spectrum.single_phonon_q_inv_angstrom(u) for u in (value, high, low)]
    strongest = spectrum.strongest_signal_q_inv_angstrom(value)
    reach = conditions.spectrometer_q_max_inv_angstrom
    capped = reach is not None and reach < limits[0]
    best = [limit if reach is None else min(limit, reach) for limit in limits]
    reason = (
        f"The one-phonon signal still grows (up to {strongest:.1f} 1/A), but the spectrometer ends here."
        if capped
        else f"Beyond it Q^2 <u^2> exceeds {spectrum.MULTIPHONON_LIMIT:g} and scattering by several phonons is no mere "
        f"correction, although the one-phonon signal grows up to {strongest:.1f} 1/A."
    )
    limit = "spectrometer" if capped else "multiphonon scattering"
    return [PlanLine("phonon_momentum_transfer", best[0], best[1], best[2], "1/angstrom", limit, reason)]


def mean_displacement_angstrom2(dos: PhononDos, temperature_k: float) -> tuple[float, float, float]:
    """<u_x^2> of the atoms as X-rays weigh them (by the square of their electrons), with its 90 % band."""
    weight = dos.numbers.astype(np.float64) ** 2
    low, high = dos.mean_square_displacement_band(temperature_k)
    value = dos.mean_square_displacement(temperature_k)
    mean, lower, upper = (float(weight @ u / weight.sum()) for u in (value, low, high))
    return mean, lower, upper


def debye_waller_lines(dos: PhononDos, conditions: Conditions) -> list[PlanLine]:
    """Elastic intensity that thermal motion takes from the speckle."""
    q = conditions.known("q_inv_angstrom")
    value, low, high = mean_displacement_angstrom2(dos, conditions.temperature_k)
    loss, loss_low, loss_high = (float(-np.expm1(-(q**2) * u)) for u in (value, low, high))
    small = loss_high < NEGLIGIBLE_LOSS
    reason = (
        f"At q = {q:g} 1/A thermal motion takes less than 1 % of the speckle: it limits nothing."
        if small
        else f"At q = {q:g} 1/A and {conditions.temperature_k:g} K this part of the elastic intensity becomes thermal "
        "diffuse scattering, which adds background without contrast."
    )
    limit = "none" if small else "thermal motion"
    return [PlanLine("debye_waller_loss", loss, loss_low, loss_high, "1", limit, reason)]
