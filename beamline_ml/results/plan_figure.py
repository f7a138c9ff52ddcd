"""One picture of a measurement plan: at which temperatures to look, and what more beam time buys."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from beamline_ml.records import Float64Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class PlanPicture:
    """What is drawn; None leaves a panel out."""

    title: str
    temperature_k: Float64Array | None = None
    heat_capacity: Float64Array | None = None
    """(3, n) value, lower and upper edge, J/(K mol of atoms)."""
    temperature_points_k: tuple[float, ...] = ()
    total_s: Float64Array | None = None
    """(n,) lengths of the run."""
    relative_error: Float64Array | None = None
    """(n_q, n) of the relaxation time; NaN rows are bins without a fit."""
    wanted: float = float("nan")
    advice: str = ""
    go_on_until_s: float | None = None


def draw(picture: PlanPicture) -> Figure:
    """Draw a plan: heat capacity with the temperature points, and expected errors over beam time."""
    from matplotlib.figure import Figure

    panels: list[Any] = []
    if picture.temperature_k is not None:
        panels.append(_draw_capacity)
    if picture.total_s is not None:
        panels.append(_draw_errors)
    figure = Figure(figsize=(4.6 * max(1, len(panels)), 3.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, max(1, len(panels))))
    for axis, panel in zip(axes, panels, strict=False):
        panel(axis, picture)
    if not panels:
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, "nothing is known yet", ha="center")
    figure.suptitle(picture.title, x=0.01, ha="left")
    if picture.advice:
        figure.supxlabel(textwrap.fill(picture.advice, 62 * max(1, len(panels))), x=0.01, ha="left", fontsize=9)
    return figure


def _draw_capacity(axis: Any, picture: PlanPicture) -> None:
    temperature, capacity = picture.temperature_k, picture.heat_capacity
    if temperature is None or capacity is None:
        return
    axis.fill_between(temperature, capacity[1], capacity[2], alpha=0.25, lw=0, label="90 % band")
    axis.plot(temperature, capacity[0], label="harmonic")
    if picture.temperature_points_k:
        points = np.array(picture.temperature_points_k)
        axis.plot(points, np.interp(points, temperature, capacity[0]), "o", color="C3", label="measure here")
    axis.set(xlabel="temperature (K)", ylabel="heat capacity (J/(K mol of atoms))", ylim=(0.0, None))
    axis.legend(frameon=False, loc="lower right")


def _draw_errors(axis: Any, picture: PlanPicture) -> None:
    total, errors = picture.total_s, picture.relative_error
    if total is None or errors is None:
        return
    known = np.flatnonzero(np.isfinite(errors).all(axis=1))
    for q in known:
        axis.loglog(total, 100.0 * errors[q], color="C0", lw=1, alpha=0.5, label="q bins" if q == known[0] else None)
    axis.loglog(total, 100.0 * np.median(errors[known], axis=0), color="C0", lw=2, label="median")
    axis.axhline(100.0 * picture.wanted, color="0.4", ls="--", lw=1, label="wanted")
    if picture.go_on_until_s is not None:
        axis.axvline(picture.go_on_until_s, color="C3", lw=1.5, label="advised end")
    axis.set(xlabel="length of the run (s)", ylabel="error of the relaxation time (%)")
    _plain_ticks(axis)
    axis.legend(loc="lower left", edgecolor="none")


def _plain_ticks(axis: Any) -> None:
    """1, 2, 5, 10, ... as plain numbers: over one or two decades powers of ten crowd each other out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        scale.set_minor_formatter(NullFormatter())


def advice_text(action: str, go_on_s: float, reason: str) -> str:
    """Advice in one line."""
    return f"{action} for {go_on_s:.3g} s: {reason}" if action == "go on" else f"{action}: {reason}"
