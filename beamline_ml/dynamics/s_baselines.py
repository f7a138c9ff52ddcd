"""Forecasts of S(q, t) that everybody can make: no change, and the straight line of log S over log t (coarsening)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from beamline_ml.records import Float64Array

SBaseline = Callable[[Float64Array, int, Float64Array, Float64Array], Float64Array]
"""(log S (n_q, n), n_train, times (n,), all times (m,)) -> log S (n_q, m)."""


def s_persistence(log_s: Float64Array, n_train: int, times: Float64Array, all_times: Float64Array) -> Float64Array:
    """log S stays as it was in the last training blocks, (n_q, n_all)."""
    last = log_s[:, max(0, n_train - 3) : n_train].mean(axis=1)
    out = np.repeat(last[:, None], len(all_times), axis=1)
    out[:, :n_train] = log_s[:, :n_train]
    return out


def s_log_line(log_s: Float64Array, n_train: int, times: Float64Array, all_times: Float64Array) -> Float64Array:
    """log S is a straight line in log t over the later half of the training blocks."""
    half = n_train // 2
    x = np.log(times[half:n_train])
    slope, offset = np.polyfit(x, log_s[:, half:n_train].T, 1)
    out = offset[:, None] + slope[:, None] * np.log(np.maximum(all_times, times[0]))[None, :]
    out[:, :n_train] = log_s[:, :n_train]
    return out


S_BASELINES: dict[str, SBaseline] = {"persistence": s_persistence, "log_log_line": s_log_line}
