"""How the error of a run's forecasts shrinks as the run grows, from the forecasts made during the run."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from beamline_ml.errors import GuidanceError
from beamline_ml.records import Float64Array

_LEAST_FORECASTS = 3


def expected_forecast_error(observed_s: Float64Array, error: Float64Array, then_s: float) -> float:
    """Error to expect of a forecast made when the run is ``then_s`` long.

    The squared error is taken as a part that more data does not touch (the model's) and one that falls inversely with
    the length of the run (the noise's); both are fitted, neither is negative.

    Parameters
    ----------
    observed_s
        (n,) lengths of the run when forecasts were made, in s.
    error
        (n,) their errors, scored against what then happened (any unit).
    then_s
        Length of the run in s.

    Raises
    ------
    GuidanceError
        Fewer than three forecasts have been scored, or a number is not positive and finite.
    """
    known = np.isfinite(error) & np.isfinite(observed_s) & (observed_s > 0)
    if known.sum() < _LEAST_FORECASTS:
        raise GuidanceError(
            f"{int(known.sum())} forecasts of this run have been scored.", f"Wait for {_LEAST_FORECASTS}."
        )
    if not (np.isfinite(then_s) and then_s > 0):
        raise GuidanceError(f"A run of {then_s} s is none.", "Give its length in s.")
    design = np.stack([np.ones(int(known.sum())), 1.0 / observed_s[known]], axis=1)
    # Squared errors scatter in proportion to themselves, so each counts relative to its size.
    squared = error[known] ** 2
    weight = 1.0 / np.maximum(squared, 1e-6 * float(squared.max()) + 1e-300)
    part, _ = nnls(design * weight[:, None], squared * weight)
    return float(np.sqrt(part @ np.array([1.0, 1.0 / then_s])))
