"""Classical forecasts of a two-time correlation, for the neural ODE to beat: each a short file, all with one call.

A forecaster takes what was observed and returns F = (C2 - baseline) / contrast on a longer time grid. It has no access
to anything later than what it is given, which is what makes rolling-origin scores honest.
"""

from __future__ import annotations

from collections.abc import Callable

from beamline_ml.dynamics.baselines.ageing_kww import ageing_kww
from beamline_ml.dynamics.baselines.dmd import dmd
from beamline_ml.dynamics.baselines.gaussian_process import gaussian_process
from beamline_ml.dynamics.baselines.homodyne import homodyne
from beamline_ml.dynamics.baselines.observed import Observed
from beamline_ml.dynamics.baselines.persistence import persistence
from beamline_ml.records import Float64Array

Forecaster = Callable[[Observed, Float64Array], Float64Array]
"""(observed, times_s of the longer grid (n_all,)) -> F (n_q, n_all, n_all), symmetric, finite, within [0, 1]."""

BASELINES: dict[str, Forecaster] = {
    "persistence": persistence,
    "ageing_kww": ageing_kww,
    "homodyne": homodyne,
    "gp": gaussian_process,
    "dmd": dmd,
}

__all__ = ["BASELINES", "Forecaster", "Observed", "ageing_kww", "dmd", "gaussian_process", "homodyne", "persistence"]
