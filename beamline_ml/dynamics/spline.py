"""Radial force as a uniform cubic B-spline: the bottleneck through which every force law speaks to the integrator.

With knots a distance ``spacing_um = cutoff_um / n_coefficients`` apart, f(r) = sum_k c_k B3(r / spacing - k + 1) for
0 <= r < cutoff. Coefficient k is centred at r = (k - 1) spacing; three further ones beyond the cutoff are zero, so that
force, slope and curvature vanish there and no particle feels a jump when a neighbour leaves its reach.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from beamline_ml.records import Float64Array


def knot_radii(n_coefficients: int, cutoff_um: float) -> Float64Array:
    """Centres of the basis functions in um, (n_coefficients,); the first lies one spacing below zero."""
    return np.asarray((np.arange(n_coefficients) - 1.0) * spline_spacing(n_coefficients, cutoff_um), np.float64)


def spline_spacing(n_coefficients: int, cutoff_um: float) -> float:
    """Distance between knots in um, such that the free coefficients vanish at and beyond the cutoff."""
    return cutoff_um / n_coefficients


def _cubic(distance: Float64Array) -> Float64Array:
    """Centred cubic B-spline with unit knots."""
    a = np.abs(distance)
    inner = 2.0 / 3.0 - a**2 + a**3 / 2.0
    outer = np.clip(2.0 - a, 0.0, None) ** 3 / 6.0
    return np.where(a < 1.0, inner, outer)


def spline_basis(r_um: Float64Array, n_coefficients: int, cutoff_um: float) -> Float64Array:
    """Values of all basis functions, (len(r_um), n_coefficients); zero at and beyond the cutoff."""
    spacing = spline_spacing(n_coefficients, cutoff_um)
    r = np.asarray(r_um, dtype=np.float64)
    values = _cubic(r[:, None] / spacing - (np.arange(n_coefficients) - 1.0)[None, :])
    return np.where(r[:, None] < cutoff_um, values, 0.0)


def spline_deviation(r_um: Float64Array, covariance: Float64Array, cutoff_um: float) -> Float64Array:
    """(len(r_um),) standard deviation of a spline whose coefficients have this covariance."""
    basis = spline_basis(r_um, len(covariance), cutoff_um)
    return np.asarray(np.sqrt(np.maximum(np.einsum("rk,kl,rl->r", basis, covariance, basis), 0.0)), np.float64)


def fit_spline(
    force: Callable[[Float64Array], Float64Array], n_coefficients: int, cutoff_um: float, r_min_um: float = 0.0
) -> Float64Array:
    """Least-squares coefficients of a force law on r_min..cutoff, (n_coefficients,).

    Forces that diverge at contact are represented from ``r_min_um`` on; below it the spline goes on smoothly.
    """
    r = np.linspace(r_min_um, cutoff_um, 8 * n_coefficients, endpoint=False) + cutoff_um / (16 * n_coefficients)
    r = r[r < cutoff_um]
    basis = spline_basis(r, n_coefficients, cutoff_um)
    # A whisper of curvature penalty decides the coefficients that no sample reaches.
    curvature = 1e-5 * np.diff(np.eye(n_coefficients), n=2, axis=0)
    target = np.concatenate([force(r), np.zeros(len(curvature))])
    return np.linalg.lstsq(np.vstack([basis, curvature]), target, rcond=None)[0]
