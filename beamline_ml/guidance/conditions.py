"""What is known of beam, sample and instrument; nothing of it is assumed when it is not given."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from beamline_ml.errors import GuidanceError

STEPS = ("heat_capacity", "displacement")
_NOT_POSITIVE_NUMBERS = ("temperature_range_k", "temperature_steps", "n_temperatures")


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions of an experiment; None is 'not known', and the lines that need it are reported as missing.

    Raises
    ------
    GuidanceError
        A number is not positive and finite, the temperature range runs backwards, or the kind of steps is unknown.
    """

    temperature_k: float = 300.0
    """Temperature of the sample before the beam is on."""
    temperature_range_k: tuple[float, float] | None = None
    """What the sample environment reaches; without it, no temperature points."""
    n_temperatures: int = 5
    temperature_steps: str = "heat_capacity"
    """Temperature points lie at equal steps of 'heat_capacity' or of the mean-square 'displacement'."""
    number_density_per_angstrom3: float | None = None
    """Atoms per volume of the sample; a crystal's cell says it."""
    thickness_um: float | None = None
    """Of the sample along the beam."""
    attenuation_length_um: float | None = None
    """Depth in which the sample absorbs 1 - 1/e of the beam at this photon energy."""
    sink_radius_um: float | None = None
    """Distance from the beam to where the sample is held at temperature."""
    photon_energy_kev: float | None = None
    flux_photons_per_s: float | None = None
    """On the sample, averaged over pulses."""
    beam_width_um: float | None = None
    """Full width at half maximum on the sample, horizontal."""
    beam_height_um: float | None = None
    """Full width at half maximum on the sample, vertical."""
    pulse_rate_hz: float | None = None
    """Pulses per second, where the source is pulsed."""
    frame_period_s: float | None = None
    """Time between the starts of two frames."""
    q_inv_angstrom: float | None = None
    """Largest momentum transfer at which speckle is recorded."""
    spectrometer_q_max_inv_angstrom: float | None = None
    """Largest momentum transfer of the inelastic spectrometer."""
    spectrometer_resolution_mev: float | None = None
    """Full width at half maximum of the spectrometer that is at hand."""
    dose_budget_mgy: float | None = None
    """Absorbed dose that the sample bears."""
    measurement_hours: float = 1.0
    """Beam time that a phonon spectrum of the sample takes, change of sample included."""
    allowed_heating_k: float = 1.0
    """How far the beam may warm the sample."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is None or entry.name in _NOT_POSITIVE_NUMBERS:
                continue
            if not (math.isfinite(value) and value > 0.0):
                raise GuidanceError(f"{entry.name} is {value}.", "Give a positive number, or leave it out.")
        self._check_temperatures()

    def _check_temperatures(self) -> None:
        if self.temperature_steps not in STEPS:
            raise GuidanceError(
                f"Temperature steps {self.temperature_steps!r} are unknown.", f"Choose one of {', '.join(STEPS)}."
            )
        if self.temperature_range_k is None:
            return
        low, high = self.temperature_range_k
        if not (0.0 < low < high < math.inf):
            raise GuidanceError(f"The temperature range {low} to {high} K is none.", "Give 0 < lowest < highest.")
        if self.n_temperatures < 2:
            raise GuidanceError(f"{self.n_temperatures} temperatures make no steps.", "Ask for two or more.")

    def unknown(self, *names: str) -> tuple[str, ...]:
        """Those of the named conditions that are not known."""
        return tuple(name for name in names if getattr(self, name) is None)

    def known(self, name: str) -> float:
        """The value of a condition that must be known here.

        Raises
        ------
        GuidanceError
            It is not known.
        """
        value = getattr(self, name)
        if value is None:
            raise GuidanceError(f"{name} is not known.", "Give it in the conditions.")
        return float(value)

    @property
    def beam_radius_um(self) -> float:
        """Radius of the even disc that the beam is taken as: half the mean width.

        A Gaussian beam of the same width is less bright in its middle, so heating computed with the disc bounds it.
        """
        return 0.5 * math.sqrt(self.known("beam_width_um") * self.known("beam_height_um"))

    @property
    def beam_power_w(self) -> float:
        """Power of the beam on the sample."""
        return self.known("flux_photons_per_s") * self.known("photon_energy_kev") * 1.602176634e-16
