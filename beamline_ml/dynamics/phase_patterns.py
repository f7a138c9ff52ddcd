"""Speckle patterns of particles whose scattering length depends on a phase, and what a run of them says.

A(q) = sum_j w(r_j) (a + m cos theta_j) exp(-i q.r_j): a is the part that every particle scatters alike (charge), m the
part that turns with its phase (a magnetic moment seen in resonance, an oscillating chemical state). With a = 0 this is
the forward model that the code of Andrejevic et al., npj Comput Mater 10, 225 (2024) uses for its lattice of phases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.dynamics.patterns import PatternScattering
from beamline_ml.errors import FitRefused
from beamline_ml.records import BoolArray, Float64Array, IntArray


@dataclass(frozen=True)
class PhaseScattering:
    """Optics, and how much of a particle's scattering turns with its phase."""

    optics: PatternScattering
    charge: float = 1.0
    """a, the same for all particles."""
    phase_contrast: float = 0.0
    """m; 0: phases are seen only by what they do to positions."""

    @property
    def used(self) -> BoolArray:
        """(size, size) pixels outside beam stop and mask."""
        return self.optics.used

    def intensity(self, state: Float64Array) -> Float64Array:
        """Pattern of particles (n, 3): x, y in um, phase in rad; (size, size)."""
        q = self.optics.q_inv_um
        row, col = (np.exp(-1j * np.outer(q, state[:, d])) for d in range(2))
        weight = self.optics.weight(state[:, :2]) * (self.charge + self.phase_contrast * np.cos(state[:, 2]))
        return np.asarray(np.abs((row * weight) @ col.T) ** 2 * self.optics.response * self.used, np.float64)

    def with_tangents(
        self, state: Float64Array, tangent: Float64Array, pixels: IntArray
    ) -> tuple[Float64Array, Float64Array]:
        """Pattern at flat pixel indices (n_pixels,) and its derivative along tangents (n, 3, m): (n_pixels, m)."""
        rows, cols = np.divmod(pixels, self.optics.size)
        axis = self.optics.q_inv_um
        q = np.column_stack([axis[rows], axis[cols]])
        x, beam = state[:, :2], self.optics.weight(state[:, :2])
        wave = np.exp(-1j * (q @ x.T)) * beam
        length = self.charge + self.phase_contrast * np.cos(state[:, 2])
        amplitude = wave @ length
        turned = -self.phase_contrast * np.sin(state[:, 2])[:, None] * tangent[:, 2]
        turned = turned + length[:, None] * np.einsum("nd,ndm->nm", self.optics.fading(x), tangent[:, :2])
        slope = wave @ turned
        for d in range(2):
            slope += -1j * q[:, d : d + 1] * (wave @ (length[:, None] * tangent[:, d]))
        response = self.optics.response[rows, cols]
        return response * np.abs(amplitude) ** 2, 2.0 * (response[:, None] * amplitude.conj()[:, None] * slope).real


@dataclass(frozen=True)
class PhaseObservations:
    """Photon counts of particles with phases whose first configuration is known, positions and phases."""

    counts: NDArray[Any]
    """(n_frames, size, size) photons."""
    times_s: Float64Array
    """(n_frames,) increasing; the particles are at ``start`` at times_s[0]."""
    scattering: PhaseScattering
    start: Float64Array
    """(n, 3): x and y in um, phase in rad."""
    mobile: bool = True
    """False: particles stay where they are (a lattice), only phases change."""

    def __post_init__(self) -> None:
        size = self.scattering.optics.size
        if self.counts.shape != (len(self.times_s), size, size) or len(self.times_s) < 3:
            raise FitRefused(
                f"Counts {self.counts.shape} do not match {len(self.times_s)} times on a {size} x {size} detector.",
                "Give (n_frames >= 3, size, size) counts, one time a frame.",
            )
        if self.start.ndim != 2 or self.start.shape[1] != 3 or len(self.start) < 2:
            raise FitRefused(f"The start {self.start.shape} is not (n >= 2, 3).", "Give x, y and phase per particle.")
        finite = all(np.isfinite(part).all() for part in (self.counts, self.times_s, self.start))
        if not finite or not (np.diff(self.times_s) > 0).all() or (np.asarray(self.counts) < 0).any():
            raise FitRefused(
                "Counts, times or the start are not finite, times do not increase, or counts are negative.",
                "Mask bad pixels and drop bad frames first.",
            )
        if not self.mobile and self.scattering.phase_contrast == 0.0:
            raise FitRefused(
                "Particles that do not move and whose phase scatters nothing give one pattern for ever.",
                "Give the phase a contrast, or let the particles move.",
            )
