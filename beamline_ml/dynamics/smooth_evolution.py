"""Smooth functions on C2's entries and on S(t): what an evolution without jumps can look like, by low polynomials."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import legendre

from beamline_ml.records import BoolArray, Float64Array

DEGREE = 4
DEGREE_S = 3


def smooth_in_lag_and_age(times_s: Float64Array, entries: BoolArray, stationary: bool) -> Float64Array:
    """(n_entries, n_functions) of log lag and age on the ``entries`` (n_times, n_times); of lag alone if stationary."""
    first, second = np.nonzero(entries)
    lag = times_s[second] - times_s[first]
    shortest = max(float(lag.min()), 1e-12)
    u = _to_unit(np.log1p(lag / shortest))
    age = _to_unit(0.5 * (times_s[first] + times_s[second]))
    columns = []
    for i in range(DEGREE + 1):
        for j in range(1 if stationary else DEGREE + 1 - i):
            columns.append(legendre.legval(u, np.eye(DEGREE + 1)[i]) * legendre.legval(age, np.eye(DEGREE + 1)[j]))
    return np.column_stack(columns)


def smooth_in_time(times_s: Float64Array) -> Float64Array:
    """(n_times, n_functions) of time."""
    return np.asarray(legendre.legvander(_to_unit(times_s), min(DEGREE_S, len(times_s) - 1)), np.float64)


def _to_unit(values: Float64Array) -> Float64Array:
    """Linear map onto -1..1."""
    low, high = float(values.min()), float(values.max())
    return 2.0 * (values - low) / max(high - low, 1e-12) - 1.0
