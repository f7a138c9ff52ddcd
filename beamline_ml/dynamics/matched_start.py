"""A start that scatters as the sample did when it was first seen.

Particles without order are moved as little as possible until the mean S of every ring is the wanted one: Newton's
method for a few constraints and many coordinates, each step the smallest that meets the linearised constraints. Single
wave vectors are free, so that their intensities keep the scatter that speckles have. What the rings do not see stays
without order.
"""

from __future__ import annotations

import numba
import numpy as np

from beamline_ml.dynamics.shells import Shells
from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array, IntArray

STEPS = 80
LONGEST_LOG_STEP = 0.3
"""By how much one step may change log S of a ring."""
LONGEST_PHASE = 0.5
"""By how much one step may turn the phase of a particle at the largest q."""
CLOSE = 0.01
"""Of log S, where the start is taken as matched."""
REFUSED = 0.1
RIDGE = 1e-6


def matched_start(start_um: Float64Array, n_boxes: int, shells: Shells, structure_factor: Float64Array) -> Float64Array:
    """Positions (n_boxes * n_per_box, 2) um near ``start_um`` whose rings have the given S on average over the boxes.

    Parameters
    ----------
    shells
        Wave vectors on which S is looked at.
    structure_factor
        (n_rings,) wanted S.

    Raises
    ------
    FitRefused
        When no such arrangement is found, as for an S that few particles cannot have.
    """
    x = np.array(start_um)
    target = np.log(structure_factor)
    q_max = float(np.hypot(*shells.vectors_inv_um.T).max())
    off = np.inf
    for _ in range(STEPS):
        s, slope = ring_means(x, n_boxes, shells)
        away = target - np.log(s)
        off = float(np.abs(away).max())
        if off < CLOSE:
            return x
        wanted = s * np.expm1(np.clip(away, -LONGEST_LOG_STEP, LONGEST_LOG_STEP))
        rows = slope.reshape(len(s), -1)
        gram = rows @ rows.T
        gram[np.diag_indices_from(gram)] *= 1.0 + RIDGE
        move = (rows.T @ np.linalg.solve(gram, wanted)).reshape(x.shape)
        x += move * min(1.0, LONGEST_PHASE / (q_max * float(np.abs(move).max())))
    if off < REFUSED:
        return x
    raise FitRefused(
        f"No particles were found with the structure factor that the run began with: log S is off by {off:.2g}.",
        "Check that S(q, t) is absolute (the scattering of the same particles without order), or leave it relative.",
    )


def ring_means(x_um: Float64Array, n_boxes: int, shells: Shells) -> tuple[Float64Array, Float64Array]:
    """S of each ring (n_rings,), averaged over its wave vectors and all boxes, and its slope (n_rings, n, 2) per um."""
    per_box = len(x_um) // n_boxes
    s, slope = np.zeros(shells.n_rings), np.zeros((shells.n_rings, *x_um.shape))
    share = 1.0 / (shells.modes(n_boxes) * per_box)
    for b in range(n_boxes):
        box = slice(b * per_box, (b + 1) * per_box)
        _add_rings(x_um[box], shells.unit_inv_um, shells.modes_2d, shells.ring, share, s, slope[:, box])
    return s, slope


@numba.njit(cache=True, fastmath=True, nogil=True)
def _add_rings(
    x: Float64Array,
    unit: float,
    modes: IntArray,
    ring: IntArray,
    share: Float64Array,
    s: Float64Array,
    slope: Float64Array,
) -> None:
    """Add a box's part to S (n_rings,) and to its slope (n_rings, n, 2)."""
    cosine, sine = np.empty(x.shape[0]), np.empty(x.shape[0])
    for k in range(modes.shape[0]):
        qx, qy = unit * modes[k, 0], unit * modes[k, 1]
        re, im = 0.0, 0.0
        for j in range(x.shape[0]):
            phase = qx * x[j, 0] + qy * x[j, 1]
            cosine[j], sine[j] = np.cos(phase), np.sin(phase)
            re += cosine[j]
            im += sine[j]
        weight = share[ring[k]]
        s[ring[k]] += weight * (re * re + im * im)
        for j in range(x.shape[0]):
            g = 2.0 * weight * (im * cosine[j] - re * sine[j])
            slope[ring[k], j, 0] += g * qx
            slope[ring[k], j, 1] += g * qy
