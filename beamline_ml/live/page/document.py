"""The page itself: figures that are drawn once and then fed, in Bokeh."""

from __future__ import annotations

import time
from html import escape
from textwrap import shorten
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models.annotations import ColorBar, Span, Whisker
from bokeh.models.mappers import LinearColorMapper
from bokeh.models.sources import ColumnDataSource
from bokeh.models.widgets import Div, Select
from bokeh.plotting import figure
from jinja2 import Template
from numpy.typing import NDArray

from beamline_ml.live.page.poller import NEWEST, Poller, Wanted
from beamline_ml.live.page.snapshot import ForecastView, RunLine, Snapshot

REFRESH_MS = 400
LONGEST_REMARK = 140
MOST_PIXELS = 300
"""C2 is thinned to so many rows on the page; tiled has all of them."""
_MEASURED, _OTHERS, _FORECAST, _FIT = "#1f5a92", "#b9c9d9", "#c7501d", "#202020"
_METHODS = {
    "neural_ode": "graph neural ODE",
    "ageing_kww": "ageing KWW",
    "homodyne": "homodyne power law",
    "gaussian_process": "Gaussian process",
    "persistence": "persistence (no change)",
}
_STATUS = {
    "live": ("LIVE", "#14743c"),
    "complete": ("FINISHED", "#1f5a92"),
    "superseded": ("FINISHED", "#1f5a92"),
    "failed": ("NOT ANALYSED", "#a02020"),
    "idle": ("NO STOP DOCUMENT", "#a06a00"),
}
TEMPLATE = """{% extends base %}
{% block preamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body { margin: 0; background: #fafafa; color: #202020; font-family: system-ui, sans-serif; }</style>
{% endblock %}
"""


class Page:
    """One open page.

    Parameters
    ----------
    poller
        Where snapshots come from.
    links
        Address of tiled's page and of Prefect's, by name.
    """

    def __init__(self, poller: Poller, links: dict[str, str]) -> None:
        self._poller = poller
        self._links = links
        self._shown: Snapshot | None = None
        self._header, self._health = Div(sizing_mode="stretch_width"), Div(sizing_mode="stretch_width")
        newest: Any = [(NEWEST, "the newest")]
        self._run = Select(title="Run", value=NEWEST, options=newest, min_width=220)
        self._ring = Select(title="q ring", value="", options=[], width=150)
        self._map, self._g2, self._tau = _MapFigure(), _G2Figure(), _AgeingFigure()
        self._memory, self._scores = _MemoryFigure(), Div(sizing_mode="stretch_width")
        self._list = Div(sizing_mode="stretch_width")

    @property
    def said(self) -> str:
        """What the head of the page says, as HTML."""
        return str(self._header.text)

    def attach(self, document: Document) -> None:
        """Put the page into a browser's document and keep it fed."""
        document.title = "beamline-ml live"
        document.template = Template(TEMPLATE)
        figures = [self._map.figure, self._g2.figure, self._memory.figure, self._tau.figure]
        flow = {"display": "flex", "flex-wrap": "wrap", "gap": "12px"}
        panels = row(*figures, styles=flow, sizing_mode="stretch_width")
        document.add_root(
            column(
                self._header,
                row(self._run, self._ring, styles=flow),
                panels,
                self._scores,
                self._health,
                self._list,
                sizing_mode="stretch_width",
                styles={"padding": "8px 12px", "max-width": "1280px", "margin": "0 auto"},
            )
        )
        self.refresh()
        document.add_periodic_callback(self.refresh, REFRESH_MS)

    def _wanted(self) -> Wanted:
        return Wanted(str(self._run.value), int(self._ring.value) if self._ring.value else None)

    def refresh(self) -> None:
        """Show what has changed since the last time."""
        snapshot = self._poller.snapshot(self._wanted())
        self._offer_runs()
        self._header.text = _header(snapshot or self._shown, self._poller.trouble)
        self._list.text = _run_list(self._poller, self._links)
        if snapshot is None or snapshot is self._shown:
            return
        self._shown = snapshot
        self._offer_rings(snapshot)
        self._health.text = _health(snapshot)
        self._scores.text = _scores(snapshot)
        for part in (self._map, self._g2, self._tau, self._memory):
            part.show(snapshot)

    def _offer_runs(self) -> None:
        options: Any = [(NEWEST, "the newest")]
        options += [(line.key, f"{line.sample}, scan {line.scan_id} ({line.uid[:8]})") for line in self._poller.lines]
        if options != self._run.options:
            self._run.options = options

    def _offer_rings(self, snapshot: Snapshot) -> None:
        options: Any = [(str(k), f"{q * 1e4:.3g} 1/µm") for k, q in enumerate(snapshot.q_inv_angstrom)]
        if options and options != self._ring.options:
            self._ring.options = options
            self._ring.value = str(snapshot.ring)


def _figure(title: str, x: str, y: str, **told: Any) -> Any:
    plot = figure(
        title=title,
        x_axis_label=x,
        y_axis_label=y,
        height=380,
        sizing_mode="stretch_width",
        styles={"flex": "1 1 440px", "min-width": "300px"},
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll=None,
        **told,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    return plot


class _MapFigure:
    """C2 as measured, and forecast beyond."""

    def __init__(self) -> None:
        self._mapper = LinearColorMapper(palette="Viridis256", low=1.0, high=2.0, nan_color="#e6e6e6")
        self.figure = _figure("C₂", "age t₁ (s)", "age t₂ (s)", match_aspect=True)
        empty: dict[str, list[Any]] = {"image": [], "x": [], "y": [], "dw": [], "dh": []}
        self._ahead, self._measured = ColumnDataSource(dict(empty)), ColumnDataSource(dict(empty))
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
            self.figure.title.text = "C₂: waiting for frames"
            return
        q = snapshot.q_inv_angstrom[snapshot.ring] * 1e4
        ahead = snapshot.forecast
        self.figure.title.text = f"C₂ at q = {q:.3g} 1/µm" + ("" if ahead is None else "; beyond the dashes: forecast")
        off = snapshot.c2[~np.eye(len(snapshot.c2), dtype=bool)]
        low, high = np.nanpercentile(off, [1, 99.5]) if np.isfinite(off).any() else (1.0, 2.0)
        self._mapper.update(low=float(low), high=float(max(high, low + 1e-6)))
        self._measured.data = _image(snapshot.c2, snapshot.age_s)
        end_s = float(snapshot.age_s[-1])
        for span in self._ends:
            span.update(location=end_s, visible=ahead is not None)
        if ahead is None:
            self._ahead.data = {name: [] for name in self._ahead.data}
        else:
            self._ahead.data = _image(ahead.c2, ahead.times_s)


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


class _G2Figure:
    """g2 with errors and the fitted curve."""

    def __init__(self) -> None:
        self.figure = _figure("g₂ and its fit", "delay τ (s)", "g₂(τ)", x_axis_type="log")
        self._points = ColumnDataSource({"x": [], "y": [], "low": [], "high": []})
        self._fit = ColumnDataSource({"x": [], "y": []})
        self.figure.scatter("x", "y", source=self._points, size=5, color=_MEASURED, legend_label="measured")
        self.figure.add_layout(_whisker(self._points, _MEASURED))
        self.figure.line("x", "y", source=self._fit, color=_FIT, line_width=2, legend_label="stretched exponential")
        self.figure.legend.location = "bottom_left"

    def show(self, snapshot: Snapshot) -> None:
        """Feed the figure."""
        told = snapshot.g2
        if not told:
            self._points.data = {name: [] for name in self._points.data}
            self._fit.data = {"x": [], "y": []}
            return
        x, y, err = told["delay_s"], told["g2"], told["g2_err"]
        self._points.data = {"x": x, "y": y, "low": y - err, "high": y + err}
        self._fit.data = {"x": x, "y": told["fit"]}
        self.figure.title.text = f"g₂ and its fit{_relaxation(snapshot)}"


def _relaxation(snapshot: Snapshot) -> str:
    told = snapshot.relaxation
    if not told:
        return ""
    time_s, err = (float(told[name][snapshot.ring]) for name in ("relaxation_time_s", "relaxation_time_s_err"))
    refused = str(told["refused"][snapshot.ring])
    return f": no relaxation time ({refused})" if refused else f": τ = {time_s:.3g} ± {err:.2g} s"


class _AgeingFigure:
    """Relaxation time of every ring over the age of the sample, or over q where the run is over."""

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


class _MemoryFigure:
    """What the newest forecast said of one age, against what then happened."""

    def __init__(self) -> None:
        self.figure = _figure("Forecast against what happened", "age t₂ (s)", "C₂(t₁, t₂)")
        self._band = ColumnDataSource({"x": [], "low": [], "high": []})
        self._line, self._points = ColumnDataSource({"x": [], "y": []}), ColumnDataSource({"x": [], "y": []})
        self.figure.varea("x", "low", "high", source=self._band, color=_FORECAST, alpha=0.25, legend_label="95 % band")
        self.figure.line("x", "y", source=self._line, color=_FORECAST, line_width=2, legend_label="forecast")
        self.figure.scatter("x", "y", source=self._points, size=3, color=_MEASURED, legend_label="measured")
        self._from = Span(dimension="height", line_color=_FIT, line_dash="dashed")
        self.figure.add_layout(self._from)
        self.figure.legend.location = "top_right"

    def show(self, snapshot: Snapshot) -> None:
        """Feed the figure."""
        ahead = snapshot.forecast
        self._from.visible = self.figure.legend.visible = ahead is not None
        if ahead is None or len(snapshot.c2) < 2:
            for source in (self._band, self._line, self._points):
                source.data = {name: [] for name in source.data}
            reason = snapshot.health.get("forecast_refused") or ""
            self.figure.title.text = f"No forecast yet. {reason}"[:110]
            return
        reference = int(np.searchsorted(ahead.times_s, 0.75 * ahead.from_s))
        reference = min(reference, len(ahead.times_s) - 1)
        self._feed(snapshot, ahead, reference)
        method = _METHODS.get(ahead.method, ahead.method)
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


def _header(snapshot: Snapshot | None, trouble: str | None) -> str:
    warning = "" if trouble is None else f"<p style='color:#a02020'><b>{escape(trouble)}</b></p>"
    if snapshot is None:
        return f"<h2>beamline-ml</h2>{warning}<p>No run yet. The page fills by itself when one begins.</p>"
    line = snapshot.line
    word, color = _STATUS.get(line.status, (line.status.upper(), "#606060"))
    badge = f"<span style='background:{color};color:white;border-radius:4px;padding:2px 8px'>{word}</span>"
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.run_time))
    said = f"<p>{escape(line.said)}</p>" if line.said else ""
    return (
        f"<h2 style='margin:4px 0'>{escape(line.sample)} {badge}</h2>"
        f"<div>scan {line.scan_id} · {escape(line.uid[:8])} · begun {when} · {_progress(snapshot)}</div>{said}{warning}"
    )


def _progress(snapshot: Snapshot) -> str:
    health = snapshot.health
    if not health:
        return f"{len(snapshot.age_s)} rows of C₂"
    return f"<b>{health.get('frames_correlated')}</b> of {health.get('frames_planned')} frames correlated"


def _scores(snapshot: Snapshot) -> str:
    """Every forecast of the run and how it turned out, the latest first."""
    told = snapshot.scores
    if not told:
        return ""
    heads = ("made at age", "by", "error since, of the contrast", "inside its 95 % band")
    rows = [
        (f"{at:.3g} s", _METHODS.get(str(by), str(by)), _number(rmse, ".3f"), _number(covered, ".0%"))
        for at, by, rmse, covered in zip(*(told[n] for n in ("made_at_s", "method", "rmse", "covered")), strict=True)
    ]
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>" for cells in rows[::-1])
    title = "<h3>Forecasts of this run, and what became of them</h3>"
    return f"{title}<table style='border-spacing:14px 2px;text-align:left'><tr>{head}</tr>{body}</table>"


def _number(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "not yet known"


def _health(snapshot: Snapshot) -> str:
    health = snapshot.health
    if not health:
        return ""
    lag = health.get("lag_s")
    facts = [
        f"{health.get('frames_announced')} frames announced, {health.get('frames_correlated')} correlated",
        "" if lag is None else f"C₂ is {lag:.2g} s behind the frames",
        f"frames read from {'the detector file' if health.get('frames_read_by') == 'file' else 'tiled'}",
        f"{health.get('missed_updates')} updates not taken by tiled",
        f"{health.get('skipped_fits')} fits skipped to keep up",
    ]
    return "<h3>Run health</h3><p>" + " · ".join(escape(fact) for fact in facts if fact) + "</p>"


def _run_list(poller: Poller, links: dict[str, str]) -> str:
    lines = "".join(_run_row(line, links["tiled"]) for line in poller.lines)
    pages = " · ".join(f"<a href='{escape(uri)}'>{escape(name)}</a>" for name, uri in links.items())
    table = f"<table style='border-spacing:10px 2px;text-align:left'>{lines}</table>"
    return f"<h3>Recent runs</h3><div style='overflow-x:auto'>{table}</div><p>Pages: {pages}</p>"


def _run_row(line: RunLine, tiled: str) -> str:
    word = _STATUS.get(line.status, (line.status, ""))[0]
    link = f"<a href='{escape(tiled)}/ui/browse/{line.place}/{escape(line.key)}'>{escape(line.uid[:8])}</a>"
    cells = (escape(word), escape(line.sample), str(line.scan_id), link, escape(shorten(line.said, LONGEST_REMARK)))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
