"""The pair kernel of particles that carry a phase: velocities and their tangents in one sweep over the pairs.

With D = theta_j - theta_i and e the unit vector from j to i, three B-splines of ``spline`` speak:
dx_i/dt = sum_j (f(r) + g(r) cos D) e and dtheta_i/dt = sum_j k(r) sin D (the first harmonics of a phase coupling;
swarmalators, Kuramoto oscillators). Momentum and the sum of phases are conserved. Derivatives are written by hand as in
``pair_kernel``.
"""

from __future__ import annotations

import numba
import numpy as np

from beamline_ml.dynamics.pair_kernel import CORE, add_opposite, padded, spline_at, spline_weights


@numba.njit(cache=True, fastmath=True, nogil=True)
def phase_tangent(state, first, second, splines, cutoff, mobile, tangent, out, out_tangent):  # type: ignore[no-untyped-def]
    """Rates of positions and phases, and their derivatives along m parameters.

    ``state`` (n, 3): x, y in um and phase in rad; ``splines`` (3, n_coefficients): f, g in um/s and k in rad/s.
    ``tangent`` (n, 3, m): the first parameters are the splines' coefficients in order (f, g, k), or k's alone where the
    particles do not move. ``out`` (n, 3) and ``out_tangent`` (n, 3, m) are added to; m = 0 leaves derivatives out.
    """
    n_coefficients = splines.shape[1]
    spacing = cutoff / n_coefficients
    f_c, g_c, k_c = padded(splines[0]), padded(splines[1]), padded(splines[2])
    for p in range(first.shape[0]):
        i, j = first[p], second[p]
        dx, dy = state[i, 0] - state[j, 0], state[i, 1] - state[j, 1]
        r = np.sqrt(dx * dx + dy * dy)
        if r >= cutoff:
            continue
        r = max(r, CORE * spacing)
        q, b0, b1, b2, b3, d0, d1, d2, d3 = spline_weights(r / spacing)
        value, slope = (b0, b1, b2, b3), (d0 / spacing, d1 / spacing, d2 / spacing, d3 / spacing)
        cosine, sine = np.cos(state[j, 2] - state[i, 2]), np.sin(state[j, 2] - state[i, 2])
        ex, ey = dx / r, dy / r
        k, k_slope = spline_at(k_c, q, value), spline_at(k_c, q, slope)
        add_opposite(out, i, j, 2, k * sine)
        force, force_slope, g = 0.0, 0.0, 0.0
        if mobile:
            g = spline_at(g_c, q, value)
            force = spline_at(f_c, q, value) + g * cosine
            force_slope = spline_at(f_c, q, slope) + spline_at(g_c, q, slope) * cosine
            add_opposite(out, i, j, 0, force * ex)
            add_opposite(out, i, j, 1, force * ey)
        for a in range(tangent.shape[2]):
            tx, ty = tangent[i, 0, a] - tangent[j, 0, a], tangent[i, 1, a] - tangent[j, 1, a]
            turn = tangent[j, 2, a] - tangent[i, 2, a]
            along = ex * tx + ey * ty
            add_opposite(out_tangent[:, :, a], i, j, 2, k_slope * sine * along + k * cosine * turn)
            if mobile:
                radial = force_slope * along - g * sine * turn - force / r * along
                add_opposite(out_tangent[:, :, a], i, j, 0, radial * ex + force / r * tx)
                add_opposite(out_tangent[:, :, a], i, j, 1, radial * ey + force / r * ty)
        if tangent.shape[2]:
            _add_own(out_tangent, i, j, q, value, n_coefficients, mobile, ex, ey, cosine, sine)


@numba.njit(cache=True, fastmath=True, inline="always")
def _add_own(out_tangent, i, j, q, value, n_coefficients, mobile, ex, ey, cosine, sine):  # type: ignore[no-untyped-def]
    """What a pair's rates change by when the coefficients change that it feels."""
    at_k = 2 * n_coefficients if mobile else 0
    for s in range(min(4, n_coefficients - q)):
        add_opposite(out_tangent[:, :, at_k + q + s], i, j, 2, value[s] * sine)
        if mobile:
            for at, factor in ((q + s, value[s]), (n_coefficients + q + s, value[s] * cosine)):
                add_opposite(out_tangent[:, :, at], i, j, 0, factor * ex)
                add_opposite(out_tangent[:, :, at], i, j, 1, factor * ey)
