"""The page itself: figures that are drawn once and then fed, in Bokeh."""

from __future__ import annotations

import threading
from typing import Any

from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models.widgets import Div, Select
from jinja2 import Template

from beamline_ml.live.page.figures import AgeingFigure, G2Figure, MapFigure, MemoryFigure
from beamline_ml.live.page.poller import NEWEST, Poller, Wanted
from beamline_ml.live.page.snapshot import Snapshot
from beamline_ml.live.page.words import advice, header, health, run_list, scores

REFRESH_MS = 2000
"""In case the poller's call is lost; news are shown as they come."""
# Bokeh's server sends its scripts for tables, WebGL and formulas (2.3 MB) to every page; this one has none of these.
TEMPLATE = """{% extends base %}
{% block preamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body { margin: 0; background: #fafafa; color: #202020; font-family: system-ui, sans-serif; }</style>
{% endblock %}
{% block js_resources %}
{% for line in (bokeh_js or "").splitlines() if not
   ("bokeh-mathjax" in line or "bokeh-tables" in line or "bokeh-gl" in line) %}{{ line }}
{% endfor %}
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
        self._document: Document | None = None
        self._due = threading.Event()
        self._header, self._advice, self._scores, self._health, self._list = (
            Div(sizing_mode="stretch_width") for _ in range(5)
        )
        newest: Any = [(NEWEST, "the newest")]
        self._run = Select(title="Run", value=NEWEST, options=newest, min_width=220)
        self._ring = Select(title="q ring", value="", options=[], width=150)
        self._proposed_ring = ""
        """The ring that is shown as long as nobody has chosen another."""
        self._parts = (MapFigure(), G2Figure(), MemoryFigure(), AgeingFigure())

    @property
    def said(self) -> str:
        """What the head of the page says, as HTML."""
        return str(self._header.text)

    def attach(self, document: Document) -> None:
        """Put the page into a browser's document and keep it fed."""
        document.title = "beamline-ml live"
        document.template = Template(TEMPLATE)
        flow = {"display": "flex", "flex-wrap": "wrap", "gap": "12px"}
        document.add_root(
            column(
                self._header,
                self._advice,
                row(self._run, self._ring, styles=flow),
                row(*(part.figure for part in self._parts), styles=flow, sizing_mode="stretch_width"),
                self._scores,
                self._health,
                self._list,
                sizing_mode="stretch_width",
                styles={"padding": "8px 12px", "max-width": "1280px", "margin": "0 auto"},
            )
        )
        self.refresh()
        self._document = document
        for select in (self._run, self._ring):
            select.on_change("value", self._choose)
        self._poller.tell(self._call)
        document.on_session_destroyed(self._leave)
        document.add_periodic_callback(self.refresh, REFRESH_MS)

    def _leave(self, session_context: Any) -> None:
        self._poller.forget(self._call)

    def _call(self) -> None:
        """From the poller's thread: have the page refreshed in its own, once for all news until then."""
        if self._document is not None and not self._due.is_set():
            self._due.set()
            self._document.add_next_tick_callback(self.refresh)

    def _choose(self, attr: str, old: object, new: object) -> None:
        self.refresh()

    def _wanted(self) -> Wanted:
        chosen = str(self._ring.value)
        return Wanted(str(self._run.value), None if chosen in ("", self._proposed_ring) else int(chosen))

    def refresh(self) -> None:
        """Show what has changed since the last time, C2 before everything else."""
        self._due.clear()
        snapshot, before = self._poller.snapshot(self._wanted()), self._shown
        if snapshot is not None and snapshot is not before:
            self._shown = snapshot
            for part in self._parts:
                if before is None or any(getattr(before, name) is not getattr(snapshot, name) for name in part.shows):
                    part.show(snapshot)
            self._offer_rings(snapshot)
            self._advice.text, self._health.text, self._scores.text = (
                advice(snapshot),
                health(snapshot),
                scores(snapshot),
            )
        self._offer_runs()
        self._header.text = header(self._shown, self._poller.trouble)
        self._list.text = run_list(self._poller.lines, self._links)

    def _offer_runs(self) -> None:
        options: Any = [(NEWEST, "the newest")]
        options += [(line.key, f"{line.sample}, scan {line.scan_id} ({line.uid[:8]})") for line in self._poller.lines]
        if options != self._run.options:
            self._run.options = options

    def _offer_rings(self, snapshot: Snapshot) -> None:
        if not snapshot.is_placed:
            return
        options: Any = [(str(k), f"{q * 1e4:.3g} 1/µm") for k, q in enumerate(snapshot.q_inv_angstrom)]
        if options != self._ring.options:
            self._ring.options = options
            self._proposed_ring = str(snapshot.ring)
            self._ring.value = self._proposed_ring
