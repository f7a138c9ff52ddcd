"""The plan that a density of states and the conditions of an experiment allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import heating_lines, scattering_lines
from beamline_ml.guidance.conditions import Conditions
from beamline_ml.phonons import PhononDos
from beamline_ml.records import MissingLine, Plan, PlanLine

_BEAM = ("flux_photons_per_s", "photon_energy_kev", "beam_width_um", "beam_height_um")
_DENSITY = "number_density_per_angstrom3"


@dataclass(frozen=True, slots=True)
class _Topic:
    quantity: str
    needs: tuple[str, ...]
    why: str
    """Why it cannot be had without what it needs."""
    lines: Callable[[PhononDos, Conditions], list[PlanLine]]


_TOPICS = (
    _Topic(
        "temperature_points", ("temperature_range_k",), "Points lie within what the sample environment reaches.",
        scattering_lines.temperature_lines,
    ),
    _Topic("energy_window", (), "", scattering_lines.energy_window_lines),
    _Topic("useful_resolution", (), "", scattering_lines.resolution_lines),
    _Topic(
        "modes_in_elastic_line", ("spectrometer_resolution_mev",), "The elastic line is as wide as the resolution.",
        scattering_lines.elastic_line_lines,
    ),
    _Topic("phonon_momentum_transfer", (), "", scattering_lines.momentum_lines),
    _Topic(
        "debye_waller_loss", ("q_inv_angstrom",), "The loss grows with the momentum transfer of the speckle.",
        scattering_lines.debye_waller_lines,
    ),
    _Topic(
        "conductivity_bound", (_DENSITY,), "Heat hops from atom to atom, so the bound needs their number in a volume.",
        heating_lines.conductivity_lines,
    ),
    _Topic(
        "steady_heating", (*_BEAM, _DENSITY, "thickness_um", "sink_radius_um"),
        "The rise follows from the absorbed power, the beam's size and the way that heat takes to the sink.",
        heating_lines.steady_heating_lines,
    ),
    _Topic(
        "pulse_heating", (*_BEAM, _DENSITY, "pulse_rate_hz", "attenuation_length_um"),
        "The rise follows from the energy of a pulse and the volume that takes it up.",
        heating_lines.pulse_heating_lines,
    ),
    _Topic(
        "attenuator_transmission", (*_BEAM, _DENSITY, "thickness_um", "sink_radius_um"),
        "How much to attenuate follows from the heating.",
        heating_lines.transmission_lines,
    ),
    _Topic(
        "thermal_time", ("beam_width_um", "beam_height_um", _DENSITY),
        "Heat leaves a small beam sooner than a large one.",
        heating_lines.thermal_time_lines,
    ),
    _Topic(
        "dose_time", (*_BEAM, _DENSITY, "attenuation_length_um", "dose_budget_mgy"),
        "Dose is absorbed energy per mass, and the budget is the sample's.",
        heating_lines.dose_lines,
    ),
)  # fmt: skip


def plan_from_dos(dos: PhononDos, conditions: Conditions | None = None) -> Plan:
    """Everything that the density of states says about how to measure this sample.

    Parameters
    ----------
    dos
        Predicted density with its ensemble and calibration.
    conditions
        What is known of beam, sample and instrument.

    Returns
    -------
    Plan
        A line for each number that can be had; for each that cannot, what is missing and why it is needed, or why the
        conditions contradict each other (a heat sink within the beam, a pulse that would end the sample). The
        prediction's own warnings are the plan's.
    """
    conditions = conditions or Conditions()
    lines: list[PlanLine] = []
    missing: list[MissingLine] = []
    for topic in _TOPICS:
        unknown = conditions.unknown(*topic.needs)
        if unknown:
            missing.append(MissingLine(topic.quantity, unknown, topic.why))
            continue
        try:
            lines += topic.lines(dos, conditions)
        except GuidanceError as refusal:
            missing.append(MissingLine(topic.quantity, topic.needs, str(refusal)))
    return Plan(tuple(lines), tuple(missing), dos.warnings)
