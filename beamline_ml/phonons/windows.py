"""The energy windows of a phonon density of states, and how the published 51 points follow from them.

A density of states is kept as the share of the 3N modes that lies in each of 72 windows: 5 cm^-1 wide below 110 cm^-1
(the heat capacity at low temperature is made there), then the published convention of 20 cm^-1 windows centred at
120, 140, ..., 1000 cm^-1, then five wide ones up to 4,500 cm^-1 (O-H, C-H and N-H stretches; 13 % of the data set has
more than 1 % of its modes there).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from beamline_ml.records import Float64Array

MEV_PER_INV_CM = 0.1239841984332
"""h c in meV cm (CODATA 2018)."""

FINE_LIMIT_INV_CM = 110.0
CONVENTION_LIMIT_INV_CM = 1010.0
EDGES_INV_CM: Float64Array = np.concatenate(
    [
        np.arange(0.0, FINE_LIMIT_INV_CM, 5.0),
        np.arange(FINE_LIMIT_INV_CM, CONVENTION_LIMIT_INV_CM + 1.0, 20.0),
        [1200.0, 1500.0, 2000.0, 3000.0, 4500.0],
    ]
)
"""(73,) edges of the windows in cm^-1."""
N_WINDOWS = len(EDGES_INV_CM) - 1
WIDTHS_INV_CM: Float64Array = np.diff(EDGES_INV_CM)
"""(72,) window widths in cm^-1."""
POINTS_INV_CM: Float64Array = np.arange(0.0, 1001.0, 20.0)
"""(51,) the published sampling points in cm^-1."""

_IMAGINARY_BELOW_INV_CM = -10.0
_SAVGOL_HALF_WIDTH = 50


def window_shares(first_inv_cm: float, step_inv_cm: float, dos: Float64Array) -> Float64Array:
    """Share of the modes in each window, from a density of states on a regular frequency grid.

    What broadening smears to just below zero (down to -10 cm^-1) is folded back. Imaginary modes beyond that are left
    out and the rest is scaled to 1: a harmonic network cannot say what an unstable mode would become.

    Parameters
    ----------
    first_inv_cm, step_inv_cm
        First frequency and spacing of the grid in cm^-1.
    dos
        (n,) density in any unit; negative values count as zero.

    Returns
    -------
    (72,) float64 shares with sum 1.
    """
    counts = np.clip(dos.astype(np.float64), 0.0, None)
    cumulative = np.concatenate([[0.0], np.cumsum(counts)])
    bounds = first_inv_cm + step_inv_cm * (np.arange(len(dos) + 1) - 0.5)
    shares = np.diff(np.interp(EDGES_INV_CM, bounds, cumulative))
    mirrored = np.interp([0.0, -5.0, _IMAGINARY_BELOW_INV_CM], bounds, cumulative)
    shares[:2] += -np.diff(mirrored)
    total: Float64Array = shares / shares.sum()
    return total


def published_points_matrix() -> Float64Array:
    """Linear map (51, 72) from window shares to the published 51 points, before their maximum is scaled to 1.

    The published curves are raw densities on a 1 cm^-1 grid smoothed by a Savitzky-Golay filter (101 points, cubic)
    and read off at 0, 20, ..., 1000 cm^-1. Within a window the density is taken as uniform; against the published
    points this map alone leaves a mean squared error of 0.0006.
    """
    offsets = np.arange(-_SAVGOL_HALF_WIDTH, _SAVGOL_HALF_WIDTH + 1.0)
    kernel = _savgol_kernel(offsets)
    matrix = np.empty((len(POINTS_INV_CM), N_WINDOWS))
    for column, (low, high) in enumerate(pairwise(EDGES_INV_CM)):
        inside = np.arange(low + 0.25, high, 0.5)
        distance = inside[None, :] - POINTS_INV_CM[:, None]
        matrix[:, column] = np.interp(distance, offsets, kernel, left=0.0, right=0.0).mean(axis=1)
    return matrix


def _savgol_kernel(offsets: Float64Array) -> Float64Array:
    """Smoothing weights of a cubic Savitzky-Golay filter (Savitzky & Golay, Anal. Chem. 36, 1627 (1964))."""
    m = float(_SAVGOL_HALF_WIDTH)
    scale = (2.0 * m + 3.0) * (2.0 * m + 1.0) * (2.0 * m - 1.0)
    kernel: Float64Array = 3.0 * (3.0 * m * m + 3.0 * m - 1.0 - 5.0 * offsets**2) / scale
    return kernel
