"""Which lags are worth keeping."""

from __future__ import annotations

import numpy as np

from beamline_ml.errors import CorrelationError
from beamline_ml.records import IntArray


def quasi_logarithmic(max_lag: int, per_level: int = 8) -> IntArray:
    """Every lag up to ``per_level``, then half as many again for every doubling, up to ``max_lag``."""
    if max_lag < 1:
        raise CorrelationError(f"The longest lag would be {max_lag}.", "Correlation needs at least two frames.")
    lags = list(range(1, per_level + 1))
    step = 1
    while lags[-1] < max_lag:
        step *= 2
        lags += [k * step for k in range(per_level // 2 + 1, per_level + 1)]
    return np.array([lag for lag in lags if lag <= max_lag], np.int64)
