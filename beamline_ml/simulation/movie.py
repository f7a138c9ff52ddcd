"""What a speckle movie is and what goes into making one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.dynamics.systems.self_organising import SelfOrganising
from beamline_ml.records import Float32Array, Geometry


@dataclass(frozen=True, slots=True)
class MovieRecipe:
    """Self-organising particles in a viscous liquid, seen in coherent small-angle scattering.

    The defaults are spheres of 100 nm radius in a liquid like 90 % glycerol at 8 keV and 10 m: within four seconds
    clusters form, watched by a 128 x 128 detector at momentum transfers up to 0.002 1/angstrom.
    """

    n_observed: int = 400
    """Frames that a detector will record."""
    n_future: int = 400
    """Frames after those, which nobody measures: the answer to a forecast."""
    frame_period_s: float = 0.01
    exposure_s: float = 0.009
    detector_size: int = 128
    """Rows and columns of the detector."""
    photon_energy_kev: float = 8.0
    detector_distance_m: float = 10.0
    pixel_size_m: float = 75e-6
    photons_per_pixel: float = 3.0
    """Mean counts per pixel and frame outside the beam stop, over the observed frames."""
    beam_stop_px: float = 4.0
    """Radius of the shadow around the direct beam; no photon is counted there."""
    beam_speckle_px: float = 1.4
    """Edge of the illuminated square in units of 2 pi / dq: speckles are about 1.5 / this pixels wide."""
    system: SelfOrganising = field(default_factory=lambda: SelfOrganising(1.1, 0.4, diffusion_um2_per_s=0.012))
    force_every: int = 2
    """Forces are renewed every so many frames; two frames are 1/20 of the system's time unit."""
    particle_radius_um: float = 0.1
    """Radius of the scattering spheres: their form factor."""

    @property
    def n_total(self) -> int:
        """All frames of the movie."""
        return self.n_observed + self.n_future

    @property
    def geometry(self) -> Geometry:
        """Detector geometry; the direct beam falls on pixel [size // 2, size // 2]."""
        center = float(self.detector_size // 2)
        return Geometry(self.photon_energy_kev, self.detector_distance_m, self.pixel_size_m, center, center)


@dataclass(frozen=True, slots=True)
class Movie:
    """Frames as a detector counts them, and, for a simulated sample, what no detector sees."""

    counts: NDArray[np.uint16]
    """(n_total, rows, cols) photons."""
    intensity: Float32Array | None
    """(n_total, rows, cols) expected photons without counting noise; None for real input."""
    geometry: Geometry
    frame_period_s: float
    exposure_s: float
    sample: dict[str, Any]
    """Entry ``sample`` of a start document: name, composition, number_density_per_um2 where it is known."""
    n_observed: int
    """How many of the frames a detector records; the others are the future."""
    truth: dict[str, Any] = field(default_factory=dict)
    """What the simulation alone knows: diffusion_um2_per_s, kernel_r_um, kernel_um_per_s, ...; empty for real input."""
