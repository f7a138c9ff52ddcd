"""The tables of a live record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from beamline_ml.live.forecaster import Score
from beamline_ml.records import G2, RelaxationFits
from beamline_ml.results.content import ResultTable


def g2_table(g2: G2, fits: RelaxationFits) -> ResultTable:
    """g2 of every ring, one row for each ring and lag, with the fitted curve beside it (NaN where refused)."""
    n_q, n_tau = g2.g2.shape
    decay = np.exp(-2 * (g2.delay_s / fits.relaxation_time_s[:, None]) ** fits.stretching[:, None])
    columns: dict[str, Any] = {
        "q_inv_angstrom": np.repeat(g2.q_inv_angstrom, n_tau),
        "delay_s": np.tile(g2.delay_s, n_q),
        "g2": g2.g2.ravel(),
        "g2_err": g2.g2_err.ravel(),
        "fit": (fits.baseline[:, None] + fits.contrast[:, None] * decay).ravel(),
    }
    return ResultTable("g2", columns, f"intensity correlation function so far ({g2.definition}) and its KWW fit")


def relaxation_table(fits: RelaxationFits) -> ResultTable:
    """One row for each ring, as in the final result."""
    columns: dict[str, Any] = {
        name: getattr(fits, name)
        for name in (
            "q_inv_angstrom",
            "relaxation_time_s",
            "relaxation_time_s_err",
            "contrast",
            "contrast_err",
            "stretching",
            "stretching_err",
        )
    }
    columns["refused"] = [reason or "" for reason in fits.refused]
    return ResultTable("relaxation", columns, "KWW fit of g2 so far for each ring; NaN where it was refused, and why")


def forecast_table(scores: Sequence[Score]) -> ResultTable:
    """One row for each forecast so far, scored against what happened since."""
    columns: dict[str, Any] = {
        "number": [score.number for score in scores],
        "made_at_s": [score.made_at_s for score in scores],
        "method": [score.method for score in scores],
        "rmse": [score.rmse for score in scores],
        "covered": [score.covered for score in scores],
        "n_entries": [score.n_entries for score in scores],
    }
    return ResultTable(
        "forecasts",
        columns,
        "every forecast of this run: RMSE of C2 in units of the contrast, and share inside its band",
    )
