"""Homodyne scattering of diffusing particles whose diffusivity changes with age, one law for all rings."""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares

from beamline_ml.dynamics.baselines.observed import Observed, all_pairs, on_grid
from beamline_ml.records import Float64Array

_LOWER = np.array([-16.0, -0.95, -16.0, 1.0])
_UPPER = np.array([10.0, 4.0, 10.0, 3.0])
_STARTS = (np.array([0.0, 0.0, -4.0, 2.0]), np.array([-2.0, 1.0, -2.0, 2.0]), np.array([0.0, -0.5, -4.0, 2.0]))


def homodyne(observed: Observed, times_s: Float64Array) -> Float64Array:
    """F = exp(-2 q^p int J dt), J(t) = A t^a + J0, fitted to all rings at once.

    The transport-coefficient form of He et al., PNAS 121, e2401162121 (2024), without flow; the exponent p of q is free
    around the 2 of diffusion.
    """
    earlier, later, first_s, second_s = all_pairs(times_s)
    duration_s, q_scale = observed.times_s[-1], np.exp(np.mean(np.log(observed.q_inv_um)))
    q = observed.q_inv_um / q_scale
    p = _fit(observed, duration_s, q)
    decays = _decay(p, q[:, None], first_s / duration_s, second_s / duration_s)
    return on_grid(decays, earlier, later, len(times_s))


def _fit(observed: Observed, duration_s: float, q: Float64Array) -> Float64Array:
    """(log A, a, log J0, p) with time in units of the run and q in units of its geometric mean."""
    rings = [observed.pairs(ring) for ring in range(len(q))]
    of_ring = np.concatenate([np.full(len(earlier), ring) for ring, (earlier, _) in enumerate(rings)])
    earlier, later = (np.concatenate(part) for part in zip(*rings, strict=True))
    if len(earlier) <= len(_LOWER):
        return _STARTS[0]
    first, second = observed.times_s[earlier] / duration_s, observed.times_s[later] / duration_s
    values = observed.f[of_ring, earlier, later]
    error = np.hypot(observed.f_err[of_ring, earlier, later], 0.01)

    def residual(p: Float64Array) -> Float64Array:
        return (_decay(p, q[of_ring], first, second) - values) / error

    fits = [least_squares(residual, start, bounds=(_LOWER, _UPPER), loss="soft_l1") for start in _STARTS]
    return np.asarray(min(fits, key=lambda fit: fit.cost).x, dtype=np.float64)


def _decay(p: Float64Array, q: Float64Array, first: Float64Array, second: Float64Array) -> Float64Array:
    power = p[1] + 1.0
    spread = np.exp(p[0]) * (second**power - first**power) / power + np.exp(p[2]) * (second - first)
    return np.asarray(np.exp(-2 * q ** p[3] * spread), dtype=np.float64)
