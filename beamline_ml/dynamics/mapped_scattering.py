"""A known object as a complex map, seen through the modes of a partly coherent beam: what ptychography retrieves.

The beam's modes P_m stand at u on the object O: I = sum_m |FFT(P_m(r) O(r + u))|^2 (Thibault and Menzel, Nature 494, 68
(2013)). Between its pixels the map is a cubic B-spline, whose slope is exact, so that u can be fitted as everything
else is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, fftshift, ifftshift
from scipy.ndimage import spline_filter

from beamline_ml.dynamics.pair_kernel import spline_weights
from beamline_ml.errors import FitRefused
from beamline_ml.records import BoolArray, Float64Array, IntArray

TAPS = 4
"""Pixels of the map that one value between them rests on, along each axis."""


@dataclass(frozen=True)
class MappedScattering:
    """Object and beam on one grid; u is where the beam's middle stands, (row, column) in um from the map's middle."""

    object_map: NDArray[Any]
    """(rows, columns) complex transmission."""
    modes: NDArray[Any]
    """(n_modes, size, size) complex amplitudes of the beam."""
    pixel_um: float
    """Of both."""
    mask: BoolArray | None = None
    """(size, size) True = use; None = all. The direct beam is at [size // 2, size // 2] of a pattern."""

    def __post_init__(self) -> None:
        square = self.modes.ndim == 3 and self.modes.shape[1] == self.modes.shape[2]
        room = self.object_map.ndim == 2 and min(self.object_map.shape) >= self.modes.shape[-1] + TAPS
        if not (square and room):
            raise FitRefused(
                f"Modes {self.modes.shape} cannot move over an object {self.object_map.shape}.",
                f"Give (n, size, size) modes and an object with at least {TAPS} pixels more along each axis.",
            )
        if not (self.pixel_um > 0 and np.isfinite(self.object_map).all() and np.isfinite(self.modes).all()):
            raise FitRefused("The object, the beam or the size of their pixels is not finite.", "Retrieve them again.")

    @property
    def size(self) -> int:
        """Rows and columns of a pattern."""
        return int(self.modes.shape[-1])

    @property
    def used(self) -> BoolArray:
        """(size, size) pixels that count."""
        return np.ones((self.size, self.size), bool) if self.mask is None else self.mask

    @property
    def length_um(self) -> float:
        """Root mean square half width of the beam."""
        at = (np.arange(self.size) - (self.size - 1) / 2) * self.pixel_um
        light = (np.abs(self.modes) ** 2).sum(axis=0)
        return float(np.sqrt((light * (at[:, None] ** 2 + at[None, :] ** 2)).sum() / light.sum()))

    def intensity(self, u_um: Float64Array) -> Float64Array:
        """Pattern at a position (2,) um, (size, size)."""
        (patch,) = self._patches(u_um, ((0, 0),))
        return np.asarray((np.abs(self._waves(patch)) ** 2).sum(axis=0) * self.used, np.float64)

    def with_tangents(
        self, u_um: Float64Array, tangent: Float64Array, pixels: IntArray
    ) -> tuple[Float64Array, Float64Array]:
        """Pattern at flat pixel indices (n_pixels,) and its derivative along tangents (1, 2, m): (n_pixels, m).

        ``u_um`` (1, 2): object and beam are one particle.
        """
        patches = self._patches(u_um[0], ((0, 0), (1, 0), (0, 1)))
        wave, *slopes = (self._waves(patch).reshape(len(self.modes), -1)[:, pixels] for patch in patches)
        by_u = np.stack([2.0 * (wave.conj() * slope).real.sum(axis=0) for slope in slopes], axis=1)
        return (np.abs(wave) ** 2).sum(axis=0), by_u @ tangent[0]

    def _waves(self, patch: NDArray[Any]) -> NDArray[Any]:
        """(n_modes, size, size) amplitudes on the detector behind a patch of the object."""
        behind = ifftshift(self.modes * patch, axes=(1, 2))
        return np.asarray(fftshift(fft2(behind, norm="ortho"), axes=(1, 2)))

    @cached_property
    def _spline(self) -> NDArray[Any]:
        real, imaginary = (spline_filter(part, order=3) for part in (self.object_map.real, self.object_map.imag))
        return np.asarray(real + 1j * imaginary)

    def _patches(self, u_um: Float64Array, orders: tuple[tuple[int, int], ...]) -> list[NDArray[Any]]:
        """The object under the beam, or its derivatives of these orders by row and column, in 1/um each.

        A beam that would leave the map stays at its edge.
        """
        size = self.size
        begin, weights = [], []
        for extent, along in zip(self.object_map.shape, u_um, strict=True):
            at = float(np.clip((extent - size) / 2 + along / self.pixel_um, 1.0, extent - size - TAPS + 1.0))
            right, *taps = spline_weights(at)
            begin.append(right - 1)
            weights.append((taps[:TAPS], taps[TAPS:]))
        window = self._spline[begin[0] : begin[0] + size + TAPS - 1, begin[1] : begin[1] + size + TAPS - 1]
        out = []
        for by_row, by_column in orders:
            rows = sum(w * window[k : k + size] for k, w in enumerate(weights[0][by_row]))
            patch = sum(w * rows[:, k : k + size] for k, w in enumerate(weights[1][by_column]))
            out.append(np.asarray(patch) / self.pixel_um ** (by_row + by_column))
        return out
