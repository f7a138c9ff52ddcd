"""How much longer a run that goes on is worth, as its live record says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import Goal, RunSoFar, advise, expected_forecast_error, expected_relative_error
from beamline_ml.live.scoring import Score
from beamline_ml.records import G2, RelaxationFits, TwoTime

MINUTE_S = 60.0


def advice_so_far(
    rows: TwoTime, g2: G2, fits: RelaxationFits, goal: Goal, scores: Sequence[Score]
) -> dict[str, Any] | None:
    """Advice for the run so far, and what a further minute would buy.

    Returns
    -------
    dict or None
        The fields of :class:`beamline_ml.guidance.Advice`, ``relative_error_in_a_minute`` (median over rings with a
        fit), ``forecast_error_now`` and ``forecast_error_in_a_minute`` (of the contrast); NaN where it is not known.
        None where the run gives nothing to go by.
    """
    counts = np.nan_to_num(np.nanmean(rows.frame_sum / rows.n_pixels[:, None], axis=1))
    try:
        run = RunSoFar(g2, fits, len(rows.age_s), rows.frame_period_s, rows.n_pixels, counts, adds_frames=False)
        told = asdict(advise(run, goal))
        soon = expected_relative_error(run, MINUTE_S)
    except GuidanceError:
        return None
    in_a_minute = float(np.nanmedian(soon)) if np.isfinite(soon).any() else float("nan")
    return told | {"relative_error_in_a_minute": in_a_minute} | _forecast_errors(scores, run.duration_s)


def _forecast_errors(scores: Sequence[Score], now_s: float) -> dict[str, float]:
    """Errors to expect of a forecast made now and in a minute, once enough earlier ones have been scored."""
    made_at_s = np.array([score.made_at_s for score in scores])
    errors = np.array([score.rmse for score in scores])
    try:
        now, then = (expected_forecast_error(made_at_s, errors, at_s) for at_s in (now_s, now_s + MINUTE_S))
    except GuidanceError:  # too few forecasts have been scored
        now = then = float("nan")
    return {"forecast_error_now": now, "forecast_error_in_a_minute": then}
