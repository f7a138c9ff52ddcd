"""Stretched exponential whose relaxation time grows with age as a power law, ring by ring."""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares

from beamline_ml.dynamics.baselines.observed import Observed, all_pairs, on_grid
from beamline_ml.records import Float64Array

_LOWER = np.array([-7.0, -3.0, 0.2])
_UPPER = np.array([7.0, 3.0, 2.5])
_STARTS = (np.array([-1.0, 0.0, 1.0]), np.array([1.0, 0.5, 1.0]))
_MIN_PAIRS = 6


def ageing_kww(observed: Observed, times_s: Float64Array) -> Float64Array:
    """F = exp(-2 (lag / relaxation_time)^stretching), relaxation_time ~ (mean age)^ageing; fitted to each ring.

    The form in which ageing of soft glasses is reported (for example Cipelletti et al., Phys. Rev. Lett. 84, 2275
    (2000)).
    """
    earlier, later, first_s, second_s = all_pairs(times_s)
    duration_s = observed.times_s[-1]
    rings = [
        _decay(_fit(observed, ring, duration_s), first_s / duration_s, second_s / duration_s)
        for ring in range(len(observed.q_inv_um))
    ]
    return on_grid(np.stack(rings), earlier, later, len(times_s))


def _fit(observed: Observed, ring: int, duration_s: float) -> Float64Array:
    """(log relaxation time at the end of the run, ageing exponent, stretching), times in units of the run."""
    earlier, later = observed.pairs(ring)
    if len(earlier) < _MIN_PAIRS:
        return _STARTS[1]
    first, second = observed.times_s[earlier] / duration_s, observed.times_s[later] / duration_s
    values, error = observed.f[ring, earlier, later], observed.f_err[ring, earlier, later]
    error = np.hypot(error, 0.01)

    def residual(p: Float64Array) -> Float64Array:
        return (_decay(p, first, second) - values) / error

    fits = [least_squares(residual, start, bounds=(_LOWER, _UPPER), loss="soft_l1") for start in _STARTS]
    return np.asarray(min(fits, key=lambda fit: fit.cost).x, dtype=np.float64)


def _decay(p: Float64Array, first: Float64Array, second: Float64Array) -> Float64Array:
    relaxation = np.exp(p[0]) * (0.5 * (first + second)) ** p[1]
    return np.asarray(np.exp(-2 * ((second - first) / relaxation) ** p[2]), dtype=np.float64)
