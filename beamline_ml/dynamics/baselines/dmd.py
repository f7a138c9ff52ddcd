"""Dynamic mode decomposition: the decay curves of all rings move linearly from one age to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beamline_ml.dynamics.baselines.observed import Observed, all_pairs, on_grid
from beamline_ml.records import Float64Array

RANK = 3
MIN_SNAPSHOTS = 4
LEAST_SIZE = 1e-6
"""Of the largest singular value: what is smaller is left out."""
MOST_LAGS = 0.5
"""Part of the run that the curves reach to; longer lags continue their curve as an exponential."""


def dmd(observed: Observed, times_s: Float64Array) -> Float64Array:
    """F(age, age + lag) for all rings and lags as one state; next state = A state, A of low rank and not growing.

    Exact DMD: Tu et al., J. Comput. Dyn. 1, 391 (2014), algorithm 2. The grid is taken as even.
    """
    n_seen, n = len(observed.times_s), len(times_s)
    earlier, later, _, _ = all_pairs(times_s)
    n_lags = max(1, int(MOST_LAGS * n_seen))
    states = _curves(observed, n_lags)
    n_states, n_q = len(states), len(observed.q_inv_um)
    if n_states < MIN_SNAPSHOTS:
        ahead = np.repeat(states[-1:], n, axis=0) if n_states else np.ones((n, n_q * n_lags))
    else:
        ahead = _continued(states, n)
    curves = ahead.reshape(n, n_q, n_lags)
    lag = np.minimum(later - earlier, n_lags)
    values = np.clip(curves[earlier, :, lag - 1].T, 1e-6, 1.0)
    return on_grid(values ** ((later - earlier) / lag), earlier, later, n)


def _curves(observed: Observed, n_lags: int) -> Float64Array:
    """(n_ages, n_q * n_lags) measured decay curves; a gap takes the mean of its lag, or 0 where there is none."""
    n = len(observed.times_s)
    age = np.arange(n - n_lags)[:, None]
    values = observed.f[:, age, age + 1 + np.arange(n_lags)[None, :]]
    known = np.isfinite(values)
    mean = np.where(known, values, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.where(known, values, mean[:, None, :]).transpose(1, 0, 2).reshape(n - n_lags, -1)


def _continued(states: Float64Array, n: int) -> Float64Array:
    """Measured states, then those that follow by the linear map, (n, n_state)."""
    pictures, factors = modes_of(states)
    steps = np.arange(1, n - len(states) + 1)
    later = (factors ** steps[:, None] @ pictures).real
    return np.asarray(np.concatenate([states, later])[:n], np.float64)


def modes_of(states: Float64Array) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Pictures (n_modes, n_state) whose sum is the last of the states (n, n_state), and by what each grows a step.

    Where there is nothing to decompose, the last state is one picture, which stays.
    """
    left, size, right = np.linalg.svd(states[:-1].T, full_matrices=False)
    held = (np.arange(len(size)) < RANK) & (size > LEAST_SIZE * max(float(size[0]), 1e-30))
    if not held.any():
        return states[-1:].astype(np.complex128), np.ones(1, np.complex128)
    left = left[:, held]
    reduced = left.T @ states[1:].T @ (right[held].T / size[held])
    values, modes = np.linalg.eig(reduced)
    factors = np.asarray(values / np.maximum(np.abs(values), 1.0), np.complex128)
    weights = np.linalg.lstsq(modes, (left.T @ states[-1]).astype(np.complex128), rcond=None)[0]
    return np.asarray((left @ (modes * weights)).T, np.complex128), factors
