"""Nothing changes any more: the correlation depends on the lag alone, as it did lately."""

from __future__ import annotations

import numpy as np

from beamline_ml.dynamics.baselines.observed import Observed, all_pairs, on_grid
from beamline_ml.records import Float64Array

RECENT = 0.5
"""Share of the run, at its end, that counts as lately."""


def persistence(observed: Observed, times_s: Float64Array) -> Float64Array:
    """Mean correlation at each lag over the recent half of the run; older ages where only they have the lag.

    Lags longer than the run keep the last value seen.
    """
    earlier, later, first_s, second_s = all_pairs(times_s)
    lag_s = second_s - first_s
    rings = [np.interp(lag_s, *_decay(observed, ring)) for ring in range(len(observed.q_inv_um))]
    return on_grid(np.stack(rings), earlier, later, len(times_s))


def _decay(observed: Observed, ring: int) -> tuple[Float64Array, Float64Array]:
    """(lags, mean F) of one ring, starting at (0, 1)."""
    earlier, later = observed.pairs(ring)
    values, steps = observed.f[ring, earlier, later], later - earlier
    begin = observed.times_s[0] + (1 - RECENT) * (observed.times_s[-1] - observed.times_s[0])
    recent = observed.times_s[earlier] >= begin
    lags, means = [0.0], [1.0]
    for step in np.unique(steps):
        here = steps == step
        chosen = here & recent if (here & recent).any() else here
        lags.append(float(np.mean(observed.times_s[later[here]] - observed.times_s[earlier[here]])))
        means.append(float(np.mean(values[chosen])))
    return np.array(lags), np.array(means)
