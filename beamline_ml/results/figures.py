"""The picture of a result: what was measured, how it was fitted, how it will go on. Plain arrays in, a figure out."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import G2, Forecast, PowerLaw, RelaxationFits
from beamline_ml.results.headline import METHOD_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INV_UM = 1e4
_MOST_CURVES = 5
_TICKS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
"""Labelled ticks of each decade, far enough apart for their labels."""
_HEADLINE_WIDTH = 185
_LEGEND_WIDTH = 18
_INK = "#222222"
_MEASURED = "#0072B2"
_FORECAST = "#D55E00"
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn; without a forecast, only the measured half."""

    title: str
    headline: str
    """What a tired reader should take home, a sentence on each line."""
    age_s: NDArray[Any]
    """(n_rows,) of the measured two-time map."""
    c2: NDArray[Any]
    """(n_q, n_rows, n_rows) measured."""
    g2: G2
    fits: RelaxationFits
    power_law: PowerLaw
    forecast: Forecast | None = None
    kernel: tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]] | None = None
    """r in um, mean force and its standard deviation in um/s, and whether the rings resolve it there."""


def draw(picture: Picture) -> Figure:
    """Six panels: two-time map with forecast region, g2 with fits, tau(q), forecast over time, S(q, t), force law."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        rows = 1 if picture.forecast is None else 2
        figure = Figure(figsize=(13.5, 0.7 + 3.9 * rows), layout="constrained")
        _draw_heading(figure, picture)
        axes = figure.subplots(rows, 3, squeeze=False)
        ring = _telling_ring(picture)
        _draw_map(figure, axes[0, 0], picture, ring)
        _draw_g2(axes[0, 1], picture)
        _draw_relaxation(axes[0, 2], picture)
        if picture.forecast is not None:
            _draw_forecast(axes[1, 0], picture, picture.forecast, ring)
            _draw_structure(axes[1, 1], picture.forecast)
            _draw_kernel(axes[1, 2], picture)
    return figure


def _draw_heading(figure: Figure, picture: Picture) -> None:
    """Title and headline in a strip at the top that the panels leave free."""
    lines = [line for said in picture.headline.splitlines() for line in textwrap.wrap(said, _HEADLINE_WIDTH)]
    height = figure.get_figheight()
    figure.text(0.01, 1 - 0.10 / height, picture.title, fontsize=13, fontweight="bold", va="top")
    figure.text(0.01, 1 - 0.42 / height, "\n".join(lines), fontsize=9.5, color=_INK, va="top", linespacing=1.35)
    strip = (0.5 + 0.19 * len(lines)) / height
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - strip))


def _telling_ring(picture: Picture) -> int:
    """The ring that decays to about a half within the run shows most, in the map and in the forecast."""
    duration_s = float(picture.age_s[-1] - picture.age_s[0])
    distance = np.abs(np.log(picture.fits.relaxation_time_s / (0.35 * duration_s)))
    if picture.forecast is not None:
        told = np.isclose(picture.fits.q_inv_angstrom[:, None], picture.forecast.q_inv_angstrom[None]).any(axis=1)
        distance = np.where(told, np.nan_to_num(distance, nan=1e9), np.nan)
    return int(np.nanargmin(distance)) if np.isfinite(distance).any() else len(picture.fits.q_inv_angstrom) // 2


def _ring_in(forecast: Forecast, q_inv_angstrom: float) -> int:
    """A forecast may leave out rings, so its rings are found by their q."""
    return int(np.argmin(np.abs(forecast.q_inv_angstrom - q_inv_angstrom)))


def _q(q_inv_angstrom: float) -> str:
    return f"q = {q_inv_angstrom * _INV_UM:.3g} µm⁻¹"


def _draw_map(figure: Figure, axes: Axes, picture: Picture, ring: int) -> None:
    measured = picture.c2[ring]
    until_s = float(picture.age_s[-1])
    off_diagonal = measured[~np.eye(len(measured), dtype=bool)]
    low, high = np.nanpercentile(off_diagonal, [1, 99.5])
    image: Any = None
    if picture.forecast is not None:
        told = picture.forecast.c2[_ring_in(picture.forecast, picture.fits.q_inv_angstrom[ring])]
        image = _mesh(axes, picture.forecast.times_s, told, low, high)
    image = _mesh(axes, picture.age_s, measured, low, high) or image
    axes.set_aspect("equal")
    axes.set(xlabel="age t₁ (s)", ylabel="age t₂ (s)")
    axes.set_title(f"Two-time correlation, {_q(picture.fits.q_inv_angstrom[ring])}")
    if picture.forecast is not None:
        axes.plot([until_s, until_s, 0], [0, until_s, until_s], color="white", lw=1.6, ls="--")
        box = {"facecolor": "black", "alpha": 0.45, "edgecolor": "none", "boxstyle": "round,pad=0.25"}
        axes.text(0.03 * until_s, 0.93 * until_s, "measured", color="white", va="top", bbox=box)
        last_s = float(picture.forecast.times_s[-1])
        axes.text(0.03 * until_s, 0.97 * last_s, "forecast", color="white", va="top", bbox=box)
    figure.colorbar(image, ax=axes, shrink=0.85, label="C₂(q, t₁, t₂)")


def _mesh(axes: Axes, times_s: NDArray[Any], values: NDArray[Any], low: float, high: float) -> Any:
    masked = np.ma.masked_invalid(values)
    return axes.pcolormesh(
        times_s, times_s, masked, vmin=low, vmax=high, cmap="viridis", shading="nearest", rasterized=True
    )


def _draw_g2(axes: Axes, picture: Picture) -> None:
    import matplotlib as mpl

    g2, fits = picture.g2, picture.fits
    rings = np.unique(np.linspace(0, len(g2.g2) - 1, min(_MOST_CURVES, len(g2.g2))).round().astype(int))
    colors = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, len(rings)))
    curves = fits.curves(g2.delay_s)
    for ring, color in zip(rings, colors, strict=True):
        label = _q(g2.q_inv_angstrom[ring])
        axes.errorbar(g2.delay_s, g2.g2[ring], g2.g2_err[ring], fmt="o", ms=2.5, lw=0.8, color=color, label=label)
        if fits.refused[ring] is None:
            axes.plot(g2.delay_s, curves[ring], color=color, lw=1.4)
    axes.set_xscale("log")
    axes.set(xlabel="delay τ (s)", ylabel="g₂(q, τ)")
    axes.set_title("g₂ with stretched-exponential fits")
    axes.legend(loc="best")


def _draw_relaxation(axes: Axes, picture: Picture) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    fits, law = picture.fits, picture.power_law
    q_um = fits.q_inv_angstrom * _INV_UM
    held = np.isfinite(fits.relaxation_time_s)
    axes.set_title("Relaxation time against q")
    if not held.any():
        _explain(axes, "No ring relaxes within the run.")
        return
    axes.errorbar(
        q_um[held], fits.relaxation_time_s[held], fits.relaxation_time_s_err[held], fmt="o", color=_MEASURED, capsize=2
    )
    if law.diffusion_coefficient_um2_per_s is not None:
        label = (
            f"D = {law.diffusion_coefficient_um2_per_s:.3g} ± {law.diffusion_coefficient_um2_per_s_err:.2g} µm²/s\n"
            "1/(D q²), dotted"
        )
        axes.plot(q_um, 1 / (law.diffusion_coefficient_um2_per_s * q_um**2), color=_INK, lw=1.2, ls=":", label=label)
    elif np.isfinite(law.exponent):
        pivot = np.exp(np.log(q_um[held]).mean()), np.exp(np.log(fits.relaxation_time_s[held]).mean())
        line = pivot[1] * (q_um[held] / pivot[0]) ** -law.exponent
        label = f"τ ∝ 1/q$^n$, n = {law.exponent:.2f} ± {law.exponent_err:.2f}\n(diffusion: n = 2)"
        axes.plot(q_um[held], line, color=_INK, lw=1.2, label=label)
    slow = np.flatnonzero(~held)
    if slow.size:
        axes.plot([], [], " ", label=f"{slow.size} of {len(held)} rings: no relaxation time (see table)")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=_TICKS))
        axis.set_minor_locator(LogLocator(subs="auto"))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="q (µm⁻¹)", ylabel="relaxation time (s)")
    axes.legend(loc="best")


def _draw_forecast(axes: Axes, picture: Picture, forecast: Forecast, ring: int) -> None:
    """Correlation of one age near the end of the run with every other: measured before, forecast after."""
    times_s, until_s = forecast.times_s, forecast.observed_until_s
    ahead = _ring_in(forecast, picture.fits.q_inv_angstrom[ring])
    reference = int(np.searchsorted(times_s, 0.75 * until_s))
    future = np.flatnonzero(times_s >= until_s)
    row = int(np.argmin(np.abs(picture.age_s - times_s[reference])))
    measured_at = np.delete(np.arange(len(picture.age_s)), row)
    axes.plot(
        picture.age_s[measured_at], picture.c2[ring, row, measured_at], ".", ms=3, color=_MEASURED, label="measured"
    )
    band = forecast.lower[ahead, reference, future], forecast.upper[ahead, reference, future]
    axes.fill_between(times_s[future], *band, color=_FORECAST, alpha=0.25, lw=0, label="95 % band")
    axes.plot(
        times_s, np.where(np.arange(len(times_s)) == reference, np.nan, forecast.c2[ahead, reference]), color=_FORECAST
    )
    said = f"forecast by {METHOD_NAMES.get(forecast.method, forecast.method)}"
    axes.plot([], [], color=_FORECAST, label=textwrap.fill(said, _LEGEND_WIDTH))
    _mark_end(axes, until_s)
    axes.set(xlabel="age t₂ (s)", ylabel="C₂(q, t₁, t₂)")
    axes.set_title(f"How t₁ = {times_s[reference]:.3g} s is remembered, {_q(forecast.q_inv_angstrom[ahead])}")
    axes.legend(loc="upper right")


def _mark_end(axes: Axes, until_s: float) -> None:
    axes.axvline(until_s, color=_INK, lw=1, ls="--")
    axes.text(until_s, 0.02, " end of run", transform=axes.get_xaxis_transform(), ha="left", va="bottom", color=_INK)


def _draw_structure(axes: Axes, forecast: Forecast) -> None:
    import matplotlib as mpl

    n_q = len(forecast.q_inv_angstrom)
    rings = np.unique(np.linspace(0, n_q - 1, min(_MOST_CURVES, n_q)).round().astype(int))
    colors = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, len(rings)))
    observed = forecast.times_s <= forecast.observed_until_s
    for ring, color in zip(rings, colors, strict=True):
        scale = np.nanmean(forecast.s_q[ring, observed][: max(1, observed.sum() // 8)])
        axes.plot(forecast.times_s, forecast.s_q[ring] / scale, color=color, label=_q(forecast.q_inv_angstrom[ring]))
        band = forecast.s_q_lower[ring, ~observed] / scale, forecast.s_q_upper[ring, ~observed] / scale
        axes.fill_between(forecast.times_s[~observed], *band, color=color, alpha=0.2, lw=0)
    _mark_end(axes, forecast.observed_until_s)
    axes.set(xlabel="age (s)", ylabel="S(q, t) relative to the start")
    axes.set_title("Structure: scattered intensity per ring")
    axes.legend(loc="best")


def _draw_kernel(axes: Axes, picture: Picture) -> None:
    if picture.kernel is None:
        _explain(axes, "No force law was fitted.")
        return
    r_um, mean, deviation, resolved = picture.kernel
    low, high = mean - 2 * deviation, mean + 2 * deviation
    axes.fill_between(r_um, low, high, where=resolved, color=_MEASURED, alpha=0.25, lw=0, label="95 % band")
    axes.plot(r_um, np.where(resolved, mean, np.nan), color=_MEASURED, label="fitted")
    if not resolved.all():
        nearest_um = float(r_um[resolved].min(initial=float(r_um[-1])))
        axes.axvspan(float(r_um[0]), nearest_um, color=_INK, alpha=0.12, lw=0, label="too close to resolve")
        axes.plot(r_um, np.where(r_um <= nearest_um, mean, np.nan), color=_MEASURED, ls=":")
    axes.axhline(0, color=_INK, lw=0.8)
    axes.text(0.98, 0.97, "repulsion ↑   attraction ↓", transform=axes.transAxes, ha="right", va="top", fontsize=8)
    axes.set(xlabel="distance r (µm)", ylabel="velocity a neighbour causes (µm/s)")
    axes.set_title("Learned force law of the particles")
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.94))


def _explain(axes: Axes, reason: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, reason, ha="center", va="center", wrap=True, color=_INK, fontsize=10)
