"""The pair kernel of particles that carry a phase: velocities and their tangents in one sweep over the pairs.

With D = theta_j - theta_i and e the unit vector from j to i, three B-splines of ``spline`` speak:
dx_i/dt = sum_j (f(r) + g(r) cos D) e and dtheta_i/dt = sum_j k(r) sin D (the first harmonics of a phase coupling;
swarmalators, Kuramoto oscillators). Momentum and the sum of phases are conserved. Derivatives are written by hand as in
``pair_kernel``.
"""

from __future__ import annotations

import numba
import numpy as np

from beamline_ml.dynamics.pair_kernel import CORE, _padded, _weights


@numba.njit(cache=True, fastmath=True, nogil=True)
def phase_tangent(state, first, second, splines, cutoff, mobile, tangent, out, out_tangent):  # type: ignore[no-untyped-def]
    """Rates of positions and phases, and their derivatives along m parameters.

    ``state`` (n, 3): x, y in um and phase in rad; ``splines`` (3, n_coefficients): f, g in um/s and k in rad/s.
    ``tangent`` (n, 3, m): the first parameters are the splines' coefficients in order (f, g, k), or k's alone where the
    particles do not move. ``out`` (n, 3) and ``out_tangent`` (n, 3, m) are added to; m = 0 leaves derivatives out.
    """
    n_coefficients = splines.shape[1]
    m = tangent.shape[2]
    spacing = cutoff / n_coefficients
    f_c = _padded(splines[0])
    g_c = _padded(splines[1])
    k_c = _padded(splines[2])
    at_k = 2 * n_coefficients if mobile else 0
    for p in range(first.shape[0]):
        i = first[p]
        j = second[p]
        dx = state[i, 0] - state[j, 0]
        dy = state[i, 1] - state[j, 1]
        r = np.sqrt(dx * dx + dy * dy)
        if r >= cutoff:
            continue
        r = max(r, CORE * spacing)
        q, b0, b1, b2, b3, d0, d1, d2, d3 = _weights(r / spacing)
        cosine = np.cos(state[j, 2] - state[i, 2])
        sine = np.sin(state[j, 2] - state[i, 2])
        k = b0 * k_c[q] + b1 * k_c[q + 1] + b2 * k_c[q + 2] + b3 * k_c[q + 3]
        k_slope = (d0 * k_c[q] + d1 * k_c[q + 1] + d2 * k_c[q + 2] + d3 * k_c[q + 3]) / spacing
        out[i, 2] += k * sine
        out[j, 2] -= k * sine
        ex = dx / r
        ey = dy / r
        force = 0.0
        slope = 0.0
        g = 0.0
        if mobile:
            g = b0 * g_c[q] + b1 * g_c[q + 1] + b2 * g_c[q + 2] + b3 * g_c[q + 3]
            force = b0 * f_c[q] + b1 * f_c[q + 1] + b2 * f_c[q + 2] + b3 * f_c[q + 3] + g * cosine
            g_slope = (d0 * g_c[q] + d1 * g_c[q + 1] + d2 * g_c[q + 2] + d3 * g_c[q + 3]) / spacing
            slope = (d0 * f_c[q] + d1 * f_c[q + 1] + d2 * f_c[q + 2] + d3 * f_c[q + 3]) / spacing + g_slope * cosine
            out[i, 0] += force * ex
            out[i, 1] += force * ey
            out[j, 0] -= force * ex
            out[j, 1] -= force * ey
        for a in range(m):
            tx = tangent[i, 0, a] - tangent[j, 0, a]
            ty = tangent[i, 1, a] - tangent[j, 1, a]
            turn = tangent[j, 2, a] - tangent[i, 2, a]
            along = ex * tx + ey * ty
            change = k_slope * sine * along + k * cosine * turn
            out_tangent[i, 2, a] += change
            out_tangent[j, 2, a] -= change
            if mobile:
                radial = slope * along - g * sine * turn - force / r * along
                vx = radial * ex + force / r * tx
                vy = radial * ey + force / r * ty
                out_tangent[i, 0, a] += vx
                out_tangent[i, 1, a] += vy
                out_tangent[j, 0, a] -= vx
                out_tangent[j, 1, a] -= vy
        if m == 0:
            continue
        for s in range(4):
            if q + s < n_coefficients:
                b = b0 if s == 0 else (b1 if s == 1 else (b2 if s == 2 else b3))
                out_tangent[i, 2, at_k + q + s] += b * sine
                out_tangent[j, 2, at_k + q + s] -= b * sine
                if mobile:
                    for at, factor in ((q + s, b), (n_coefficients + q + s, b * cosine)):
                        out_tangent[i, 0, at] += factor * ex
                        out_tangent[i, 1, at] += factor * ey
                        out_tangent[j, 0, at] -= factor * ex
                        out_tangent[j, 1, at] -= factor * ey
