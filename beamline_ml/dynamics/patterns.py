"""Speckle patterns of a small, fully coherent beam: the forward model and its derivative.

A(q) = sum_j w(r_j) exp(-i q.r_j) factorises on a square detector, A = E_row^T diag(w) E_col, so a pattern costs
(rows + cols) n exponentials and one matrix product instead of rows x cols x n exponentials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import FitRefused
from beamline_ml.records import BoolArray, Float64Array, IntArray


@dataclass(frozen=True)
class PatternScattering:
    """Detector grid, probe and beam stop."""

    size: int
    """Rows and columns; the direct beam is at [size // 2, size // 2]."""
    dq_inv_um: float
    """Momentum transfer between neighbouring pixels in 1/um."""
    probe_um: float | None = None
    """1/e half width of the Gaussian amplitude of the beam around the origin; None = plane wave."""
    beam_stop_px: float = 3.0
    mask: BoolArray | None = None
    """(size, size) True = use; None = all."""
    sensitivity: Float64Array | None = None
    """(size, size) what a pixel records of a point's intensity, up to one factor for all: the particles' form factor
    (:func:`sphere_form_factor`) times the pixel's efficiency. None = alike everywhere."""

    def __post_init__(self) -> None:
        given = self.sensitivity
        if given is None:
            return
        if given.shape != (self.size, self.size) or not (np.isfinite(given).all() and (given >= 0).all()):
            raise FitRefused(
                f"The sensitivity {given.shape} is not finite and >= 0 on a {self.size} x {self.size} detector.",
                "Give every pixel a number, and those that do not work a zero or a place in the mask.",
            )
        if not (given[self.used] > 0).any():
            raise FitRefused("No pixel that is used is sensitive.", "Check sensitivity, mask and beam stop.")

    @property
    def radius_inv_um(self) -> Float64Array:
        """(size, size) momentum transfer of every pixel in 1/um."""
        return np.asarray(np.hypot(self.q_inv_um[:, None], self.q_inv_um[None, :]), np.float64)

    @property
    def q_inv_um(self) -> Float64Array:
        """(size,) momentum transfer along rows or columns."""
        return np.asarray((np.arange(self.size) - self.size // 2) * self.dq_inv_um, np.float64)

    @property
    def used(self) -> BoolArray:
        """(size, size) pixels outside the beam stop and the mask."""
        offset = np.arange(self.size) - self.size // 2
        lit = np.hypot(offset[:, None], offset[None, :]) >= self.beam_stop_px
        return lit if self.mask is None else lit & self.mask

    @property
    def response(self) -> Float64Array:
        """(size, size) factor of every pixel on the intensity of points, whether it is used or not."""
        return np.ones((self.size, self.size)) if self.sensitivity is None else self.sensitivity

    def weight(self, x_um: Float64Array) -> Float64Array:
        """Amplitude of the beam at each particle, (n,)."""
        if self.probe_um is None:
            return np.ones(len(x_um))
        return np.asarray(np.exp(-(x_um**2).sum(axis=1) / self.probe_um**2), np.float64)

    def intensity(self, x_um: Float64Array) -> Float64Array:
        """Pattern of particles at (n, 2) um, (size, size); no photons fall under beam stop and mask."""
        row, col = (np.exp(-1j * np.outer(self.q_inv_um, x_um[:, d])) for d in range(2))
        amplitude = (row * self.weight(x_um)) @ col.T
        return np.asarray(np.abs(amplitude) ** 2 * self.response * self.used, np.float64)

    def at_pixels(self, x_um: Float64Array, pixels: IntArray) -> Float64Array:
        """Patterns of particles (n_times, n, 2) um at flat pixel indices: (n_times, n_pixels)."""
        return np.stack([self.with_tangents(at, np.empty((*at.shape, 0)), pixels)[0] for at in x_um])

    def with_tangents(
        self, x_um: Float64Array, tangent: Float64Array, pixels: IntArray
    ) -> tuple[Float64Array, Float64Array]:
        """Pattern at flat pixel indices (n_pixels,) and its derivative along tangents (n, 2, m): (n_pixels, m)."""
        rows, cols = np.divmod(pixels, self.size)
        q = np.column_stack([self.q_inv_um[rows], self.q_inv_um[cols]])
        weight = self.weight(x_um)
        row_phase, col_phase = (np.exp(1j * np.outer(self.q_inv_um, x_um[:, d])) for d in range(2))
        phase = (row_phase * weight)[rows] * col_phase[cols]
        total = phase.sum(axis=1)
        # Single precision is plenty for a slope, and twice as fast.
        turned = (2.0 * total.conj()[:, None] * phase).astype(np.complex64)
        n, _, m = tangent.shape
        along = turned.imag @ tangent.reshape(n, 2 * m).astype(np.float32)
        slope = -(q[:, :1] * along[:, :m] + q[:, 1:] * along[:, m:])
        if self.probe_um is not None:
            fading = np.einsum("nd,ndm->nm", self.fading(x_um), tangent)
            slope += turned.real @ fading.astype(np.float32)
        response = self.response[rows, cols]
        return response * np.abs(total) ** 2, np.asarray(response[:, None] * slope, np.float64)

    def with_position_slopes(self, x_um: Float64Array, pixels: IntArray) -> tuple[Float64Array, Float64Array]:
        """Pattern at flat pixel indices (n_pixels,) and its derivatives by every coordinate, (n_pixels, 2 n).

        As :meth:`with_tangents` along 2 n unit vectors, without the products by zero.
        """
        q = self.q_inv_um
        at = np.divmod(pixels, self.size)
        row_phase, column_phase = (np.exp(1j * np.outer(q, x_um[:, d])) for d in range(2))
        phase = (row_phase * self.weight(x_um))[at[0]] * column_phase[at[1]]
        total = phase.sum(axis=1)
        turned = 2.0 * total.conj()[:, None] * phase
        fading = self.fading(x_um)
        response = self.response[at]
        turned *= response[:, None]
        slopes = [((1j * q[at[d]][:, None] + fading[:, d]) * turned).real for d in range(2)]
        return response * np.abs(total) ** 2, np.stack(slopes, axis=2).reshape(len(pixels), -1)

    def fading(self, x_um: Float64Array) -> Float64Array:
        """(n, 2) derivative of the logarithm of the beam's amplitude at each particle, in 1/um."""
        return np.zeros_like(x_um) if self.probe_um is None else np.asarray(-2.0 * x_um / self.probe_um**2, np.float64)


def sphere_form_factor(q_inv_um: Float64Array, radius_um: float) -> Float64Array:
    """Intensity that a homogeneous sphere scatters, of the shape of ``q_inv_um``; 1 at q = 0 (Rayleigh 1911)."""
    x = np.maximum(q_inv_um * radius_um, 1e-4)
    return np.asarray((3.0 * (np.sin(x) - x * np.cos(x)) / x**3) ** 2, np.float64)


class Intensity(Protocol):
    """Whatever turns a state into a pattern: positions, positions and phases, a rigid object."""

    def intensity(self, at: Float64Array, /) -> Float64Array:
        """|A|^2, (size, size)."""
        ...


def expected_photons(scattering: Intensity, photons_per_intensity: float, states: Float64Array) -> Float64Array:
    """Patterns (n_times, size, size) of the states along the first axis."""
    return photons_per_intensity * np.stack([scattering.intensity(at) for at in states])


@dataclass(frozen=True)
class PatternObservations:
    """Photon counts of a run whose first configuration is known (phase retrieval or ptychography of one frame)."""

    counts: NDArray[Any]
    """(n_frames, size, size) photons."""
    times_s: Float64Array
    """(n_frames,) increasing; the particles are at ``start_um`` at times_s[0]."""
    scattering: PatternScattering
    start_um: Float64Array
    """(n_particles, 2)."""

    def __post_init__(self) -> None:
        size = self.scattering.size
        if self.counts.ndim != 3 or self.counts.shape[1:] != (size, size) or len(self.counts) != len(self.times_s):
            raise FitRefused(
                f"Counts {self.counts.shape} do not match {len(self.times_s)} times on a {size} x {size} detector.",
                "Give (n_frames, size, size) counts, one time a frame.",
            )
        if self.start_um.ndim != 2 or self.start_um.shape[1] != 2 or len(self.start_um) < 2:
            raise FitRefused(
                f"Start positions {self.start_um.shape} are not (n >= 2, 2).", "Give at least two particles."
            )
        if not (np.ptp(self.start_um, axis=0) > 0).all():
            raise FitRefused(
                "All particles start at one place or on one line along the detector: there is nothing to tell apart.",
                "Give the positions of a sample in two dimensions.",
            )
        finite = np.isfinite(self.counts).all() and np.isfinite(self.start_um).all() and np.isfinite(self.times_s).all()
        if not finite or not (np.diff(self.times_s) > 0).all() or (np.asarray(self.counts) < 0).any():
            raise FitRefused(
                "Counts, times or start positions are not finite, times do not increase, or counts are negative.",
                "Mask bad pixels and drop bad frames first.",
            )
