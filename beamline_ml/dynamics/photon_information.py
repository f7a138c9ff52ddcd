"""What photon counts say about the parameters of a motion: residuals with Poisson weights and a Huber cut.

Weights are those of the *prediction*: weights from the data would favour dark speckles.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import FitRefused
from beamline_ml.records import BoolArray, Float64Array, IntArray

N_PIXELS = 800
"""Enough to find the way, and for frames that come later."""
HUBER = 3.0
DARK = 0.1
"""Photons added to the expected ones, so that dark pixels keep a finite weight."""


class Scattering(Protocol):
    """Whatever turns a state into patterns with derivatives: positions, positions and phases, a rigid object."""

    def with_tangents(
        self, at: Float64Array, tangent: Float64Array, pixels: IntArray, /
    ) -> tuple[Float64Array, Float64Array]:
        """|A|^2 at flat pixel indices (n_pixels,) and its derivative along tangents (n, d, m): (n_pixels, m)."""
        ...


def photon_residual(counts: NDArray[Any], expected: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Counts minus expected photons in units of their noise, and the weight of each square under the Huber cut."""
    residual = (counts - expected) / np.sqrt(expected + DARK)
    return residual, np.minimum(1.0, HUBER / np.maximum(np.abs(residual), 1e-12))


def photon_information(
    scattering: Scattering,
    counts: NDArray[Any],
    states: Float64Array,
    tangents: Float64Array,
    pixels: IntArray,
    scale: float,
) -> tuple[Float64Array, Float64Array, float]:
    """What frames say about m parameters: information (m, m), pull (m,) and Huber-weighted sum of squares.

    Parameters
    ----------
    counts
        (n_frames, size, size) photons.
    states, tangents
        (n_frames, n, d) states and their derivatives (n_frames, n, d, m).
    pixels
        (n_pixels,) flat indices that are looked at.
    scale
        Photons per unit of intensity.
    """
    m = tangents.shape[3]
    information, pull, misfit = np.zeros((m, m)), np.zeros(m), 0.0
    for frame, at, tangent in zip(counts, states, tangents, strict=True):
        value, slope = scattering.with_tangents(at, tangent, pixels)
        expected = scale * value
        residual, weight = photon_residual(frame.ravel()[pixels], expected)
        rows = scale * slope / np.sqrt(expected + DARK)[:, None]
        information += rows.T @ (weight[:, None] * rows)
        pull += rows.T @ (weight * residual)
        misfit += float((weight * residual**2).sum())
    return information, pull, misfit


def photons_per_intensity(frame: NDArray[Any], expected: Float64Array, used: BoolArray) -> float:
    """Scale that gives a pattern (size, size) as many photons as the frame holds on the pixels ``used``."""
    return float(frame[used].sum() / max(expected[used].sum(), 1e-30))


def chosen_pixels(counts: NDArray[Any], used: BoolArray, rng: np.random.Generator, most: int = N_PIXELS) -> IntArray:
    """Flat indices of pixels drawn in proportion to the light that they saw, (at most ``most``,), sorted.

    Raises
    ------
    FitRefused
        When fewer than eight pixels saw a photon.
    """
    light = (counts.mean(axis=0) * used).ravel()
    lit = np.count_nonzero(light)
    if lit < 8:
        raise FitRefused(f"Only {lit} pixels saw a photon.", "Check mask and beam stop, or count longer.")
    picked = rng.choice(light.size, min(most, int(lit)), replace=False, p=light / light.sum())
    return np.sort(picked).astype(np.int64)
