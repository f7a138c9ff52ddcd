"""The fused pair kernel on the CPU: velocities, their tangents and their cotangents in one sweep over the pairs.

The velocity of particle i is u_i = sum_j f(r_ij) (x_i - x_j) / r_ij with the B-spline f of ``spline``. The three sweeps
are written by hand (value; forward derivative for many tangents at once; reverse derivative), so that no array of the
size of pairs x coefficients ever exists. Distances below ``CORE`` times the spacing count as that distance.
"""

from __future__ import annotations

import numba
import numpy as np

CORE = 1e-6


@numba.njit(cache=True, fastmath=True, inline="always")
def spline_weights(u):  # type: ignore[no-untyped-def]
    """First index and the four B-spline weights and slopes at u = r / spacing."""
    k = int(u)
    t = u - k
    s = 1.0 - t
    t2 = t * t
    b0 = s * s * s / 6.0
    b1 = (3.0 * t2 * t - 6.0 * t2 + 4.0) / 6.0
    b2 = (-3.0 * t2 * t + 3.0 * t2 + 3.0 * t + 1.0) / 6.0
    b3 = t2 * t / 6.0
    d0 = -s * s / 2.0
    d1 = (3.0 * t2 - 4.0 * t) / 2.0
    d2 = (-3.0 * t2 + 2.0 * t + 1.0) / 2.0
    d3 = t2 / 2.0
    return k, b0, b1, b2, b3, d0, d1, d2, d3


@numba.njit(cache=True, fastmath=True, inline="always")
def spline_at(coefficients, k, weights):  # type: ignore[no-untyped-def]
    """A spline, or its slope, from the four weights at the index k of padded coefficients."""
    return (
        weights[0] * coefficients[k]
        + weights[1] * coefficients[k + 1]
        + weights[2] * coefficients[k + 2]
        + weights[3] * coefficients[k + 3]
    )


@numba.njit(cache=True, fastmath=True, inline="always")
def add_opposite(rates, i, j, d, rate):  # type: ignore[no-untyped-def]
    """Add to component d of particle i what its partner j loses."""
    rates[i, d] += rate
    rates[j, d] -= rate


@numba.njit(cache=True, fastmath=True, inline="always")
def add_displaced(tangent, out_tangent, i, j, hxx, hxy, hyx, hyy):  # type: ignore[no-untyped-def]
    """What a pair's velocities change by when its particles are displaced: its (2, 2) slope along all tangents."""
    for a in range(tangent.shape[2]):
        tx = tangent[i, 0, a] - tangent[j, 0, a]
        ty = tangent[i, 1, a] - tangent[j, 1, a]
        vx = hxx * tx + hxy * ty
        vy = hyx * tx + hyy * ty
        out_tangent[i, 0, a] += vx
        out_tangent[i, 1, a] += vy
        out_tangent[j, 0, a] -= vx
        out_tangent[j, 1, a] -= vy


@numba.njit(cache=True, inline="always")
def padded(coefficients):  # type: ignore[no-untyped-def]
    """With four zeros more; one by one, as an assignment of slices takes seconds to compile, for its error message."""
    longer = np.zeros(coefficients.shape[0] + 4)
    for k in range(coefficients.shape[0]):
        longer[k] = coefficients[k]
    return longer


@numba.njit(cache=True, fastmath=True, inline="always")
def polynomials(coefficients):  # type: ignore[no-untyped-def]
    """(n, 4) the spline between its knots, as powers of the distance from the knot in units of the spacing."""
    c = padded(coefficients)
    out = np.empty((coefficients.shape[0], 4))
    for k in range(coefficients.shape[0]):
        out[k, 0] = (c[k] + 4.0 * c[k + 1] + c[k + 2]) / 6.0
        out[k, 1] = (c[k + 2] - c[k]) / 2.0
        out[k, 2] = (c[k] - 2.0 * c[k + 1] + c[k + 2]) / 2.0
        out[k, 3] = (c[k + 3] - c[k] + 3.0 * (c[k + 1] - c[k + 2])) / 6.0
    return out


@numba.njit(cache=True, fastmath=True, inline="always")
def force_per_distance(pieces, r, per_spacing):  # type: ignore[no-untyped-def]
    """f(r) / r of the spline whose ``polynomials`` these are, r below the cutoff."""
    r = max(r, CORE / per_spacing)
    # Just below the cutoff, rounding may reach the number of pieces.
    k = min(int(r * per_spacing), pieces.shape[0] - 1)
    t = r * per_spacing - k
    return (((pieces[k, 3] * t + pieces[k, 2]) * t + pieces[k, 1]) * t + pieces[k, 0]) / r


@numba.njit(cache=True, fastmath=True, nogil=True)
def pair_velocity(x, box, first, second, coefficients, cutoff, out):  # type: ignore[no-untyped-def]
    """Add pair velocities to ``out`` (n, 2) um/s; positions (n, 2) um, half list, spline coefficients um/s."""
    pieces = polynomials(coefficients)
    per_spacing = coefficients.shape[0] / cutoff
    inverse_box = 1.0 / box if box > 0.0 else 0.0
    for p in range(first.shape[0]):
        i = first[p]
        j = second[p]
        dx = x[i, 0] - x[j, 0]
        dy = x[i, 1] - x[j, 1]
        dx -= box * np.rint(dx * inverse_box)
        dy -= box * np.rint(dy * inverse_box)
        r = np.sqrt(dx * dx + dy * dy)
        if r >= cutoff:
            continue
        g = force_per_distance(pieces, r, per_spacing)
        out[i, 0] += g * dx
        out[i, 1] += g * dy
        out[j, 0] -= g * dx
        out[j, 1] -= g * dy


@numba.njit(cache=True, fastmath=True, nogil=True)
def pair_tangent(x, box, first, second, coefficients, cutoff, tangent, out, out_tangent):  # type: ignore[no-untyped-def]
    """Velocities and their derivatives along many tangents.

    ``tangent`` (n, 2, m): derivative of the positions to m parameters, of which the first n_coefficients are the spline
    coefficients themselves. ``out`` (n, 2) and ``out_tangent`` (n, 2, m) are added to.
    """
    n_coefficients = coefficients.shape[0]
    spacing = cutoff / n_coefficients
    padded_c = padded(coefficients)
    inverse_box = 1.0 / box if box > 0.0 else 0.0
    for p in range(first.shape[0]):
        i = first[p]
        j = second[p]
        dx = x[i, 0] - x[j, 0]
        dy = x[i, 1] - x[j, 1]
        dx -= box * np.rint(dx * inverse_box)
        dy -= box * np.rint(dy * inverse_box)
        r = np.sqrt(dx * dx + dy * dy)
        if r >= cutoff:
            continue
        r = max(r, CORE * spacing)
        k, b0, b1, b2, b3, d0, d1, d2, d3 = spline_weights(r / spacing)
        f = b0 * padded_c[k] + b1 * padded_c[k + 1] + b2 * padded_c[k + 2] + b3 * padded_c[k + 3]
        slope = (d0 * padded_c[k] + d1 * padded_c[k + 1] + d2 * padded_c[k + 2] + d3 * padded_c[k + 3]) / spacing
        g = f / r
        ex = dx / r
        ey = dy / r
        out[i, 0] += f * ex
        out[i, 1] += f * ey
        out[j, 0] -= f * ex
        out[j, 1] -= f * ey
        hxx = g + (slope - g) * ex * ex
        hxy = (slope - g) * ex * ey
        hyy = g + (slope - g) * ey * ey
        add_displaced(tangent, out_tangent, i, j, hxx, hxy, hxy, hyy)
        for s in range(4):
            if k + s < n_coefficients:
                b = b0 if s == 0 else (b1 if s == 1 else (b2 if s == 2 else b3))
                out_tangent[i, 0, k + s] += b * ex
                out_tangent[i, 1, k + s] += b * ey
                out_tangent[j, 0, k + s] -= b * ex
                out_tangent[j, 1, k + s] -= b * ey


@numba.njit(cache=True, fastmath=True, nogil=True)
def pair_cotangent(x, box, first, second, coefficients, cutoff, cotangent, out_x, out_c):  # type: ignore[no-untyped-def]
    """Reverse derivative: add J_x^T w to ``out_x`` (n, 2) and J_c^T w to ``out_c`` (n_coefficients,)."""
    n_coefficients = coefficients.shape[0]
    spacing = cutoff / n_coefficients
    padded_c = padded(coefficients)
    inverse_box = 1.0 / box if box > 0.0 else 0.0
    for p in range(first.shape[0]):
        i = first[p]
        j = second[p]
        dx = x[i, 0] - x[j, 0]
        dy = x[i, 1] - x[j, 1]
        dx -= box * np.rint(dx * inverse_box)
        dy -= box * np.rint(dy * inverse_box)
        r = np.sqrt(dx * dx + dy * dy)
        if r >= cutoff:
            continue
        r = max(r, CORE * spacing)
        k, b0, b1, b2, b3, d0, d1, d2, d3 = spline_weights(r / spacing)
        f = b0 * padded_c[k] + b1 * padded_c[k + 1] + b2 * padded_c[k + 2] + b3 * padded_c[k + 3]
        slope = (d0 * padded_c[k] + d1 * padded_c[k + 1] + d2 * padded_c[k + 2] + d3 * padded_c[k + 3]) / spacing
        g = f / r
        ex = dx / r
        ey = dy / r
        wx = cotangent[i, 0] - cotangent[j, 0]
        wy = cotangent[i, 1] - cotangent[j, 1]
        along = wx * ex + wy * ey
        gx = g * wx + (slope - g) * ex * along
        gy = g * wy + (slope - g) * ey * along
        out_x[i, 0] += gx
        out_x[i, 1] += gy
        out_x[j, 0] -= gx
        out_x[j, 1] -= gy
        for s in range(4):
            if k + s < n_coefficients:
                b = b0 if s == 0 else (b1 if s == 1 else (b2 if s == 2 else b3))
                out_c[k + s] += b * along
