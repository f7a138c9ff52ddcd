"""A measurement plan as people hold it: the tiled client class of the spec ``MeasurementPlan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tiled.client.container import Container

from beamline_ml.errors import ResultError
from beamline_ml.records import Float64Array

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class MeasurementPlan(Container):
    """What to do with one sample next; tables and arrays are fetched when they are asked for."""

    def __repr__(self) -> str:
        return f"<MeasurementPlan {self.item['id']}: {self.sample_name}, {self.metadata.get('status')}>"

    @property
    def sample_name(self) -> str:
        """Name of the sample."""
        return str(self.metadata.get("sample", {}).get("name", "unnamed"))

    @property
    def advice(self) -> dict[str, Any] | None:
        """What to do with the latest run (action, go_on_s, reason, ...); None when there is none to go by."""
        advice = self.metadata.get("advice")
        return None if advice is None else dict(advice)

    @property
    def conditions(self) -> dict[str, Any]:
        """Beam, sample and instrument as the plan took them."""
        return dict(self.metadata.get("conditions", {}))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons for caution."""
        return tuple(self.metadata.get("warnings", ()))

    @property
    def plan(self) -> pd.DataFrame:
        """One row a number: quantity, value, lower, upper, unit, limit, reason.

        Raises
        ------
        ResultError
            Nothing could be said of this sample; ``missing`` says why.
        """
        if "plan" not in self:
            raise ResultError(f"{self.item['id']} has no lines.", "Look at its table 'missing'.")
        return self["plan"].read()

    @property
    def missing(self) -> pd.DataFrame | None:
        """What cannot be said, what it needs, and why; None when nothing is missing."""
        return self["missing"].read() if "missing" in self else None

    def plot(self) -> Figure:
        """Temperature points on the heat capacity, and what more beam time buys."""
        from beamline_ml.results.plan_figure import PlanPicture, advice_text, draw

        advice, goal = self.advice or {}, self.metadata.get("goal", {})
        headline = self.metadata.get("headline", {})
        points = [value for name, value in headline.items() if name.startswith("temperature_point_")]
        total_s = self._maybe("total_s")
        return draw(
            PlanPicture(
                title=self.sample_name,
                temperature_k=self._maybe("temperature_k"),
                heat_capacity=self._maybe("heat_capacity"),
                temperature_points_k=tuple(points),
                total_s=total_s,
                relative_error=self._maybe("relative_error"),
                wanted=float(goal.get("relative_error", np.nan)),
                advice=advice_text(advice["action"], advice["go_on_s"], advice["reason"]) if advice else "",
                go_on_until_s=None if total_s is None or not advice else float(total_s[0]) + advice["go_on_s"],
            )
        )

    def _maybe(self, name: str) -> Float64Array | None:
        return np.asarray(self[name].read()) if name in self else None
