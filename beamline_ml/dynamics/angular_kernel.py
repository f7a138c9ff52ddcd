"""The pair kernel of an anisotropic force: velocities and their tangents in one sweep over the pairs.

With e the unit vector from j to i and phi its direction in the laboratory, u_i = sum_j F(r, phi) e and
F = f(r) + sum_m [a_m(r) cos 2 m phi + b_m(r) sin 2 m phi], every function of r a B-spline of ``spline``. The harmonics
are even, so that a pair seen from its other end feels the opposite: momentum is conserved (dipoles in a field, the
second harmonic, are the best known case). Derivatives are written by hand as in ``pair_kernel``.
"""

from __future__ import annotations

import numba
import numpy as np

from beamline_ml.dynamics.pair_kernel import CORE, add_displaced, add_opposite, padded, spline_at, spline_weights


@numba.njit(cache=True, fastmath=True, nogil=True)
def angular_tangent(x, box, first, second, splines, cutoff, tangent, out, out_tangent):  # type: ignore[no-untyped-def]
    """Velocities and their derivatives along many tangents.

    ``splines`` (1 + 2 H, n_coefficients) um/s: f, a_1, b_1, a_2, ... ``tangent`` (n, 2, m): derivative of the positions
    to m parameters, the first of which are the splines' coefficients in this order. ``out`` (n, 2) and ``out_tangent``
    (n, 2, m) are added to; m = 0 leaves derivatives out.
    """
    n_splines, n_coefficients = splines.shape
    spacing = cutoff / n_coefficients
    pieces = np.zeros((n_splines, n_coefficients + 4))
    for s in range(n_splines):
        pieces[s] = padded(splines[s])
    turned, turning = np.ones(n_splines), np.zeros(n_splines)
    inverse_box = 1.0 / box if box > 0.0 else 0.0
    for p in range(first.shape[0]):
        i, j = first[p], second[p]
        dx, dy = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1]
        dx -= box * np.rint(dx * inverse_box)
        dy -= box * np.rint(dy * inverse_box)
        r = np.sqrt(dx * dx + dy * dy)
        if r >= cutoff:
            continue
        r = max(r, CORE * spacing)
        k, b0, b1, b2, b3, d0, d1, d2, d3 = spline_weights(r / spacing)
        weights, slopes = (b0, b1, b2, b3), (d0 / spacing, d1 / spacing, d2 / spacing, d3 / spacing)
        ex, ey = dx / r, dy / r
        _harmonics(ex, ey, turned, turning)
        force, by_r, by_phi = 0.0, 0.0, 0.0
        for s in range(n_splines):
            value = spline_at(pieces[s], k, weights)
            force += turned[s] * value
            by_r += turned[s] * spline_at(pieces[s], k, slopes)
            by_phi += turning[s] * value
        add_opposite(out, i, j, 0, force * ex)
        add_opposite(out, i, j, 1, force * ey)
        if tangent.shape[2]:
            _add_moved(tangent, out_tangent, i, j, ex, ey, by_r, by_phi / r, force / r)
            _add_own(out_tangent, i, j, k, weights, n_coefficients, turned, ex, ey)


@numba.njit(cache=True, fastmath=True, inline="always")
def _harmonics(ex, ey, turned, turning):  # type: ignore[no-untyped-def]
    """1, cos 2 phi, sin 2 phi, cos 4 phi, ... and their derivatives to phi, from the unit vector."""
    cos_2, sin_2 = ex * ex - ey * ey, 2.0 * ex * ey
    cosine, sine = 1.0, 0.0
    for s in range(1, turned.shape[0], 2):
        cosine, sine = cosine * cos_2 - sine * sin_2, sine * cos_2 + cosine * sin_2
        turned[s], turned[s + 1] = cosine, sine
        turning[s], turning[s + 1] = -(s + 1.0) * sine, (s + 1.0) * cosine


@numba.njit(cache=True, fastmath=True, inline="always")
def _add_moved(tangent, out_tangent, i, j, ex, ey, by_r, by_phi_per_r, force_per_r):  # type: ignore[no-untyped-def]
    """What a pair's velocities change by when its particles are displaced: along e, and across it."""
    hxx = by_r * ex * ex - by_phi_per_r * ex * ey + force_per_r * ey * ey
    hxy = (by_r - force_per_r) * ex * ey + by_phi_per_r * ex * ex
    hyx = (by_r - force_per_r) * ex * ey - by_phi_per_r * ey * ey
    hyy = by_r * ey * ey + by_phi_per_r * ex * ey + force_per_r * ex * ex
    add_displaced(tangent, out_tangent, i, j, hxx, hxy, hyx, hyy)


@numba.njit(cache=True, fastmath=True, inline="always")
def _add_own(out_tangent, i, j, k, weights, n_coefficients, turned, ex, ey):  # type: ignore[no-untyped-def]
    """What a pair's velocities change by when the coefficients change that it feels."""
    for s in range(turned.shape[0]):
        for w in range(min(4, n_coefficients - k)):
            factor = weights[w] * turned[s]
            own = out_tangent[:, :, s * n_coefficients + k + w]
            add_opposite(own, i, j, 0, factor * ex)
            add_opposite(own, i, j, 1, factor * ey)
