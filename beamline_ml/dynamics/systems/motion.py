"""Integration of the systems' equations, apart from what fits use, so that truth and model share no solver."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from beamline_ml.dynamics.neighbours import build_pairs
from beamline_ml.dynamics.pair_kernel import pair_velocity
from beamline_ml.records import Float64Array


def runge_kutta(
    rate: Callable[[float, Float64Array], Float64Array],
    start: Float64Array,
    times_s: Float64Array,
    steps_per_time: int,
) -> Float64Array:
    """Solution of dy/dt = rate(t, y) at the given times, (n_times, *start.shape), by the classical scheme of order 4.

    Parameters
    ----------
    start
        y at times_s[0], any shape.
    times_s
        (n_times,) increasing; each interval is cut into ``steps_per_time`` equal steps.
    """
    y = np.array(start, dtype=np.float64)
    out = [y]
    for begin, end in pairwise(times_s):
        h = (end - begin) / steps_per_time
        for step in range(steps_per_time):
            t = begin + step * h
            k1 = rate(t, y)
            k2 = rate(t + 0.5 * h, y + 0.5 * h * k1)
            k3 = rate(t + 0.5 * h, y + 0.5 * h * k2)
            k4 = rate(t + h, y + h * k3)
            y = y + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        out.append(y)
    return np.stack(out)


def pair_trajectory(
    start_um: Float64Array, times_s: Float64Array, coefficients: Float64Array, cutoff_um: float, steps_per_time: int
) -> Float64Array:
    """Particles that feel a radial force in open space without noise, (n_times, n, 2) um; the force is a spline."""

    def velocity(_: float, x: Float64Array) -> Float64Array:
        pairs = build_pairs(x, 0.0, cutoff_um)
        out = np.zeros_like(x)
        pair_velocity(x, 0.0, pairs.first, pairs.second, coefficients, cutoff_um, out)
        return out

    return runge_kutta(velocity, start_um, times_s, steps_per_time)
