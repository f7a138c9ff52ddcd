"""The tables of a live record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from beamline_ml.correlation import fit_relaxation, g2_from_two_time
from beamline_ml.live.scoring import Score
from beamline_ml.records import G2, RelaxationFits, TwoTime
from beamline_ml.results.content import ResultTable

FEWEST_ROWS_OF_A_WINDOW = 40
"""Shorter windows give no relaxation time worth a point."""


def g2_table(g2: G2, fits: RelaxationFits) -> ResultTable:
    """g2 of every ring, one row for each ring and lag, with the fitted curve beside it (NaN where refused)."""
    n_q, n_tau = g2.g2.shape
    columns: dict[str, Any] = {
        "q_inv_angstrom": np.repeat(g2.q_inv_angstrom, n_tau),
        "delay_s": np.tile(g2.delay_s, n_q),
        "g2": g2.g2.ravel(),
        "g2_err": g2.g2_err.ravel(),
        "fit": fits.curves(g2.delay_s).ravel(),
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


class Ageing:
    """Relaxation time over age, from overlapping windows of the run; each is fitted once, when it is complete.

    Parameters
    ----------
    n_rows
        Rows of C2 that the whole run will have.
    """

    def __init__(self, n_rows: int) -> None:
        self._window = max(FEWEST_ROWS_OF_A_WINDOW, n_rows // 4)
        self._step = max(1, self._window // 2)
        self._fits: list[tuple[float, RelaxationFits]] = []

    def update(self, rows: TwoTime) -> bool:
        """Fit the windows that are complete by now; whether there were any."""
        before = len(self._fits)
        while (last := self._window + len(self._fits) * self._step) <= rows.c2.shape[1]:
            self._fits.append(self._fitted(rows, last - self._window, last))
        return len(self._fits) > before

    @staticmethod
    def _fitted(rows: TwoTime, first: int, last: int) -> tuple[float, RelaxationFits]:
        g2 = g2_from_two_time(rows, first_frame=first, last_frame=last)
        middle_s = 0.5 * float(rows.age_s[first] + rows.age_s[last - 1])
        return middle_s, fit_relaxation(g2, rows)

    def table(self) -> ResultTable:
        """One row for each window and ring; NaN where the fit was refused."""
        columns: dict[str, Any] = {
            "q_inv_angstrom": np.concatenate([fits.q_inv_angstrom for _, fits in self._fits]),
            "age_s": np.concatenate([np.full(len(fits.q_inv_angstrom), age_s) for age_s, fits in self._fits]),
            "relaxation_time_s": np.concatenate([fits.relaxation_time_s for _, fits in self._fits]),
            "relaxation_time_s_err": np.concatenate([fits.relaxation_time_s_err for _, fits in self._fits]),
        }
        return ResultTable("ageing", columns, f"relaxation time in windows of {self._window} rows")


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
