"""Rings and sectors of momentum transfer on a flat detector that stands square to the beam."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from beamline_ml.errors import GeometryError
from beamline_ml.records import Float64Array, Geometry, IntArray

MIN_BEAM_STOP_PX = 3.0
BEAM_STOP_SHARE = 0.08


def momentum_transfer(geometry: Geometry, radius_px: ArrayLike) -> Float64Array:
    """Momentum transfer in 1/angstrom at a distance from the beam centre in pixels.

    q = (4 pi / wavelength) sin(theta / 2) with tan(theta) = radius / distance: exact for a flat detector square to the
    beam, no small-angle shortcut.
    """
    _check_geometry(geometry)
    radius_m = np.asarray(radius_px, np.float64) * geometry.pixel_size_m
    theta = np.arctan2(radius_m, geometry.detector_distance_m)
    return 4.0 * np.pi / geometry.wavelength_angstrom * np.sin(theta / 2.0)


def polar_pixels(geometry: Geometry, frame_shape: tuple[int, int]) -> tuple[Float64Array, Float64Array]:
    """(rows, cols) distance from the beam centre in pixels, and azimuth in [0, 2 pi) from +column towards +row."""
    rows, cols = np.indices(frame_shape, dtype=np.float64)
    rows -= geometry.beam_center_row_px
    cols -= geometry.beam_center_column_px
    return np.hypot(rows, cols), np.arctan2(rows, cols) % (2 * np.pi)


def partition(
    geometry: Geometry,
    frame_shape: tuple[int, int],
    n_q: int,
    q_range: tuple[float | None, float | None],
    n_phi: int = 1,
    n_static: int | None = None,
    mask: ArrayLike | None = None,
) -> tuple[IntArray, IntArray | None, Float64Array]:
    """Dynamic labels, static labels and the mean q of each bin; see ``QMap.from_geometry`` for the arguments.

    Raises
    ------
    GeometryError
        Unphysical geometry, numbers that make no sense, or rings too thin to hold a pixel.
    """
    _check_numbers(n_q, n_phi, n_static)
    radius, azimuth = polar_pixels(geometry, frame_shape)
    q = momentum_transfer(geometry, radius)
    edges = _edges(geometry, frame_shape, radius, q, q_range, n_q)
    ring = np.searchsorted(edges, q, side="right") - 1
    inside = (ring >= 0) & (ring < n_q) & _usable(mask, frame_shape)
    sector = np.minimum((azimuth / (2 * np.pi) * n_phi).astype(np.int64), n_phi - 1)
    labels = np.where(inside, ring * n_phi + sector + 1, 0).astype(np.int64)
    counts = np.bincount(labels.ravel(), minlength=n_q * n_phi + 1)[1:]
    if (counts == 0).any():
        raise GeometryError(
            f"{int((counts == 0).sum())} of {n_q * n_phi} q bins hold no pixel between q = {edges[0]:.3g} and "
            f"{edges[-1]:.3g} 1/angstrom.",
            "Ask for fewer bins, or set the q range to what the detector sees.",
        )
    q_mean = np.bincount(labels.ravel(), weights=q.ravel(), minlength=n_q * n_phi + 1)[1:] / counts
    static = None if n_static is None else _static_rings(q, edges, labels, sector, n_phi, n_static // n_q)
    return labels, static, q_mean


def _static_rings(
    q: Float64Array, edges: Float64Array, labels: IntArray, sector: IntArray, n_phi: int, per_ring: int
) -> IntArray:
    fine = np.linspace(edges[0], edges[-1], (edges.size - 1) * per_ring + 1)
    # Rounding must not push a pixel on a ring edge out of its dynamic bin.
    ring = (labels - 1) // n_phi
    sub = np.clip(np.searchsorted(fine, q, side="right") - 1 - ring * per_ring, 0, per_ring - 1)
    raw = np.where(labels > 0, (ring * per_ring + sub) * n_phi + sector + 1, 0)
    kept, compact = np.unique(raw, return_inverse=True)
    return (compact.reshape(raw.shape) + (0 if kept[0] == 0 else 1)).astype(np.int64)


def _edges(
    geometry: Geometry,
    frame_shape: tuple[int, int],
    radius: Float64Array,
    q: Float64Array,
    q_range: tuple[float | None, float | None],
    n_q: int,
) -> Float64Array:
    outer_px = _outer_radius_px(geometry, frame_shape)
    if outer_px is None:
        low, high = float(q.min()), float(q.max()) * (1 + 1e-12)
    else:
        inner_px = max(MIN_BEAM_STOP_PX, BEAM_STOP_SHARE * outer_px)
        low, high = (float(v) for v in momentum_transfer(geometry, [inner_px, outer_px]))
    low = low if q_range[0] is None else float(q_range[0])
    high = high if q_range[1] is None else float(q_range[1])
    if not (np.isfinite([low, high]).all() and 0 <= low < high):
        raise GeometryError(
            f"The q range {low:.4g} to {high:.4g} 1/angstrom is empty (pixels reach {float(q.max()):.4g}).",
            "Check beam centre, distance and pixel size, or set the q range.",
        )
    return np.linspace(low, high, n_q + 1)


def _outer_radius_px(geometry: Geometry, frame_shape: tuple[int, int]) -> float | None:
    """Radius of the largest whole ring, or None when the beam does not hit the detector with room around it."""
    row, col = geometry.beam_center_row_px, geometry.beam_center_column_px
    margin = min(row, frame_shape[0] - 1 - row, col, frame_shape[1] - 1 - col) + 0.5
    return margin if margin > 2 * MIN_BEAM_STOP_PX else None


def _usable(mask: ArrayLike | None, frame_shape: tuple[int, int]) -> np.ndarray:
    if mask is None:
        return np.ones(frame_shape, np.bool_)
    usable = np.asarray(mask).astype(np.bool_)
    if usable.shape != tuple(frame_shape):
        raise GeometryError(
            f"The mask is {usable.shape} (rows, cols) but frames are {tuple(frame_shape)}.",
            "Give the mask in the orientation of the frames.",
        )
    return usable


def _check_geometry(geometry: Geometry) -> None:
    for name in ("photon_energy_kev", "detector_distance_m", "pixel_size_m"):
        value = getattr(geometry, name)
        if not (np.isfinite(value) and value > 0):
            raise GeometryError(f"{name} is {value!r}.", "It must be a positive number; correct the run's metadata.")
    if not np.isfinite([geometry.beam_center_row_px, geometry.beam_center_column_px]).all():
        raise GeometryError("The beam centre is not a finite number.", "Correct the run's metadata.")


def _check_numbers(n_q: int, n_phi: int, n_static: int | None) -> None:
    if n_q < 1 or n_phi < 1:
        raise GeometryError(f"n_q = {n_q} and n_phi = {n_phi} make no bins.", "Use at least one ring and one sector.")
    if n_static is not None and (n_static < n_q or n_static % n_q):
        raise GeometryError(
            f"n_static = {n_static} is no multiple of n_q = {n_q}.", "Static rings must subdivide the dynamic rings."
        )
