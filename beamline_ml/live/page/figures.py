"""The four figures of the page: drawn once, then fed with what is new."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from bokeh.models.annotations import ColorBar, Span, Whisker
from bokeh.models.mappers import LinearColorMapper
from bokeh.models.sources import ColumnDataSource
from bokeh.models.tickers import FixedTicker
from bokeh.plotting import figure
from numpy.typing import NDArray

from beamline_ml.live.forecaster import FEWEST_ROWS
from beamline_ml.live.page.snapshot import ForecastView, Snapshot
from beamline_ml.results.headline import METHOD_NAMES

MOST_PIXELS = 300
"""C2 is thinned to so many rows on the page; tiled has all of them."""
_FLEXIBLE: dict[str, str | None] = {"flex": "1 1 440px", "min-width": "300px"}
_MEASURED, _OTHERS, _FORECAST, _FIT = "#1f5a92", "#b9c9d9", "#c7501d", "#202020"


def _figure(title: str, x: str, y: str, **told: Any) -> Any:
    plot = figure(
        title=title,
        x_axis_label=x,
        y_axis_label=y,
        height=380,
        sizing_mode="stretch_width",
        styles=_FLEXIBLE,
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll=None,
        **told,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    return plot


class MapFigure:
    """C2 as measured, and forecast beyond."""

    shows = ("c2", "q_inv_angstrom", "forecast")
    """What of a snapshot is drawn."""

    def __init__(self) -> None:
        self._mapper = LinearColorMapper(palette="Viridis256", low=1.0, high=2.0, nan_color="#e6e6e6")
        self.figure = _figure("C₂", "age t₁ (s)", "age t₂ (s)", match_aspect=True)
        self.figure.styles = {**_FLEXIBLE, "max-width": "470px"}  # wider, a square map has blank margins
        empty: dict[str, list[Any]] = {"image": [], "x": [], "y": [], "dw": [], "dh": []}
        self._ahead, self._measured = ColumnDataSource(dict(empty)), ColumnDataSource(dict(empty))
        self._ahead_shown: ForecastView | None = None
        for source in (self._ahead, self._measured):
            self.figure.image("image", "x", "y", "dw", "dh", source=source, color_mapper=self._mapper)
        self._ends = [
            Span(dimension=d, line_color="white", line_dash="dashed", line_width=2) for d in ("width", "height")
        ]
        for span in self._ends:
            self.figure.add_layout(span)
        self.figure.add_layout(ColorBar(color_mapper=self._mapper, width=10), "right")
        self.figure.x_range.range_padding = self.figure.y_range.range_padding = 0

    def show(self, snapshot: Snapshot) -> None:
        """Feed the figure."""
        if len(snapshot.c2) < 2:
            for source in (self._ahead, self._measured):
                source.data = {name: [] for name in source.data}
            self._ahead_shown = None
            self.figure.title.text = "C₂: waiting for frames"
            return
        q = snapshot.q_inv_angstrom[snapshot.ring] * 1e4
        ahead = snapshot.forecast
        where = f" at q = {q:.3g} 1/µm" if snapshot.is_placed else ""
        self.figure.title.text = f"C₂{where}" + ("" if ahead is None else "; beyond the dashes: forecast")
        measured = _image(snapshot.c2, snapshot.age_s)
        self._scale(measured["image"][0])
        self._measured.data = measured
        end_s = float(snapshot.age_s[-1])
        for span in self._ends:
            span.update(location=end_s, visible=ahead is not None)
        if ahead is not self._ahead_shown:
            empty: dict[str, list[Any]] = {name: [] for name in self._ahead.data}
            self._ahead.data = empty if ahead is None else _image(ahead.c2, ahead.times_s)
            self._ahead_shown = ahead

    def _scale(self, image: NDArray[np.float32]) -> None:
        """Colours from the values off the diagonal."""
        off = image[~np.eye(len(image), dtype=bool)]
        low, high = np.nanpercentile(off, [1, 99.5]) if np.isfinite(off).any() else (1.0, 2.0)
        self._mapper.update(low=float(low), high=float(max(high, low + 1e-6)))


def _image(c2: NDArray[np.float32], age_s: NDArray[np.float64]) -> dict[str, list[Any]]:
    step = -(-len(c2) // MOST_PIXELS)
    n = len(c2) // step
    blocks = c2[: n * step, : n * step].reshape(n, step, n, step)
    known = np.isfinite(blocks)
    count = known.sum(axis=(1, 3))
    total = np.where(known, blocks, 0).sum(axis=(1, 3))
    thinned = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    period = float(age_s[1] - age_s[0]) if len(age_s) > 1 else 1.0
    begin, size = float(age_s[0]) - 0.5 * period, n * step * period
    return {"image": [thinned], "x": [begin], "y": [begin], "dw": [size], "dh": [size]}


class G2Figure:
    """g2 with errors and the fitted curve."""

    shows = ("g2", "relaxation")
    """What of a snapshot is drawn."""

    def __init__(self) -> None:
        self.figure = _figure("g₂ and its fit", "delay τ (s)", "g₂(τ)", x_axis_type="log")
        self._points = ColumnDataSource({"x": [], "y": [], "low": [], "high": []})
        self._fit = ColumnDataSource({"x": [], "y": []})
        self.figure.scatter("x", "y", source=self._points, size=5, color=_MEASURED, legend_label="measured")
        self.figure.add_layout(_whisker(self._points, _MEASURED))
        self.figure.line("x", "y", source=self._fit, color=_FIT, line_width=2, legend_label="stretched exponential")
        _put_legend_above(self.figure)
        self.figure.xaxis.ticker = self._ticks = FixedTicker(ticks=[])

    def show(self, snapshot: Snapshot) -> None:
        """Feed the figure."""
        told = snapshot.g2
        if not told:
            self._points.data = {name: [] for name in self._points.data}
            self._fit.data = {"x": [], "y": []}
            return
        x, y, err = told["delay_s"], told["g2"], told["g2_err"]
        self._points.data = {"x": x, "y": y, "low": y - err, "high": y + err}
        self._ticks.ticks = _one_two_five(float(x.min()), float(x.max()))
        self._fit.data = {"x": x, "y": told["fit"]}
        self.figure.title.text = f"g₂ and its fit{_relaxation(snapshot)}"


def _put_legend_above(plot: Any) -> None:
    """Beside the points, not over them: on a telephone it would hide a third of the figure."""
    (legend,) = plot.legend
    plot.add_layout(legend, "above")
    legend.update(orientation="horizontal", border_line_color=None, background_fill_alpha=0.0, padding=0, margin=0)


def _one_two_five(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... between two numbers: Bokeh's own ticks crowd each other out over one or two decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for d in decades for k in (1, 2, 5) if 0.9 * low <= (tick := float(f"{k}e{d}")) <= 1.1 * high]


def _relaxation(snapshot: Snapshot) -> str:
    told = snapshot.relaxation
    if not told:
        return ""
    time_s, err = (float(told[name][snapshot.ring]) for name in ("relaxation_time_s", "relaxation_time_s_err"))
    refused = str(told["refused"][snapshot.ring])
    return f": no relaxation time ({refused})" if refused else f": τ = {time_s:.3g} ± {err:.2g} s"


class AgeingFigure:
    """Relaxation time of every ring over the age of the sample, or over q where the run is over."""

    shows = ("ageing", "relaxation")
    """What of a snapshot is drawn."""

    def __init__(self) -> None:
        self.figure = _figure("Relaxation time", "age (s)", "relaxation time (s)", y_axis_type="log")
        self._points = ColumnDataSource({"x": [], "y": [], "low": [], "high": [], "color": [], "size": []})
        self.figure.scatter("x", "y", source=self._points, size="size", color="color")
        self.figure.add_layout(_whisker(self._points, "color"))

    def show(self, snapshot: Snapshot) -> None:
        """Feed the figure."""
        told, over_age = snapshot.ageing or snapshot.relaxation, bool(snapshot.ageing)
        if not told:
            self._points.data = {name: [] for name in self._points.data}
            return
        q = told["q_inv_angstrom"]
        y, err = told["relaxation_time_s"], told["relaxation_time_s_err"]
        held = np.isfinite(y)
        mine = np.isclose(q, snapshot.q_inv_angstrom[snapshot.ring])
        columns = {
            "x": told["age_s"] if over_age else q * 1e4,
            "y": y,
            "low": np.maximum(y - err, 0.1 * y),
            "high": y + err,
            "color": np.where(mine, _MEASURED, _OTHERS),
            "size": np.where(mine, 9, 5),
        }
        self._points.data = {name: values[held] for name, values in columns.items()}
        self.figure.xaxis.axis_label = "age (s)" if over_age else "q (1/µm)"
        self.figure.title.text = self._title(over_age, bool((mine & held).any()))

    @staticmethod
    def _title(over_age: bool, is_fitted: bool) -> str:
        what = "Relaxation time over age; other rings pale" if over_age else "Relaxation time over q"
        return what if is_fitted else f"{what}; this ring: too slow"


def _whisker(source: ColumnDataSource, color: str) -> Whisker:
    """Error bars without heads."""
    whisker = Whisker(base="x", lower="low", upper="high", source=source, line_color=color)
    whisker.upper_head = whisker.lower_head = None
    return whisker


def _first_forecast(snapshot: Snapshot) -> str:
    """What a run that goes on has to wait for."""
    if snapshot.line.status != "live" or not len(snapshot.c2):
        return ""
    if len(snapshot.c2) < FEWEST_ROWS:
        return f"The first fit begins at {FEWEST_ROWS} rows of C₂; there are {len(snapshot.c2)}."
    return "The first fit takes some seconds."


class MemoryFigure:
    """What the newest forecast said of one age, against what then happened."""

    shows = ("c2", "forecast", "health")
    """What of a snapshot is drawn."""

    def __init__(self) -> None:
        self.figure = _figure("Forecast against what happened", "age t₂ (s)", "C₂(t₁, t₂)")
        self._band = ColumnDataSource({"x": [], "low": [], "high": []})
        self._line, self._points = ColumnDataSource({"x": [], "y": []}), ColumnDataSource({"x": [], "y": []})
        self.figure.varea("x", "low", "high", source=self._band, color=_FORECAST, alpha=0.25, legend_label="95 % band")
        self.figure.line("x", "y", source=self._line, color=_FORECAST, line_width=2, legend_label="forecast")
        self.figure.scatter("x", "y", source=self._points, size=3, color=_MEASURED, legend_label="measured")
        self._from = Span(dimension="height", line_color=_FIT, line_dash="dashed")
        self.figure.add_layout(self._from)
        _put_legend_above(self.figure)

    def show(self, snapshot: Snapshot) -> None:
        """Feed the figure."""
        ahead = snapshot.forecast
        self._from.visible = self.figure.legend.visible = ahead is not None
        if ahead is None or len(snapshot.c2) < 2:
            for source in (self._band, self._line, self._points):
                source.data = {name: [] for name in source.data}
            reason = snapshot.health.get("forecast_refused") or _first_forecast(snapshot)
            self.figure.title.text = f"No forecast yet. {reason}"[:110]
            return
        reference = int(np.searchsorted(ahead.times_s, 0.75 * ahead.from_s))
        reference = min(reference, len(ahead.times_s) - 1)
        self._feed(snapshot, ahead, reference)
        method = METHOD_NAMES.get(ahead.method, ahead.method)
        self.figure.title.text = f"Memory of t₁ = {ahead.times_s[reference]:.3g} s; forecast by {method}"

    def _feed(self, snapshot: Snapshot, ahead: ForecastView, reference: int) -> None:
        others = np.arange(len(ahead.times_s)) != reference
        future = others & (ahead.times_s >= ahead.from_s)
        self._line.data = {"x": ahead.times_s[others], "y": ahead.c2[reference, others]}
        self._band.data = {
            "x": ahead.times_s[future],
            "low": ahead.lower[reference, future],
            "high": ahead.upper[reference, future],
        }
        mine = int(np.argmin(np.abs(snapshot.age_s - ahead.times_s[reference])))
        step = -(-len(snapshot.age_s) // MOST_PIXELS)
        kept = (np.arange(len(snapshot.age_s)) != mine)[::step]
        self._points.data = {"x": snapshot.age_s[::step][kept], "y": snapshot.c2[mine, ::step][kept]}
        self._from.location = ahead.from_s
