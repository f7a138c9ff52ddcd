"""The page's words: head, health, forecasts and recent runs as HTML."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from textwrap import shorten
from typing import Any

import numpy as np

from beamline_ml.live.page.snapshot import RunLine, Snapshot
from beamline_ml.results.headline import METHOD_NAMES

LONGEST_REMARK = 140
_STATUS = {
    "live": ("LIVE", "#14743c"),
    "complete": ("FINISHED", "#1f5a92"),
    "superseded": ("FINISHED", "#1f5a92"),
    "failed": ("NOT ANALYSED", "#a02020"),
    "idle": ("NO STOP DOCUMENT", "#a06a00"),
}


def header(snapshot: Snapshot | None, trouble: str | None) -> str:
    """Which run this is, how far it has come, and what is wrong."""
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
    return f"<b>{snapshot.n_correlated}</b> of {health.get('frames_planned')} frames correlated"


def advice(snapshot: Snapshot) -> str:
    """How much longer the run is worth, while it goes on; nothing before there is anything to go by."""
    told = snapshot.advice
    if not told or snapshot.line.status != "live":
        return ""
    action = str(told["action"])
    head = {
        "go on": f"GO ON for {_duration(float(told['go_on_s']))}",
        "stop": "STOP",
        "change frame period": f"TAKE FRAMES EVERY {float(told['frame_period_s']):.3g} s",
    }.get(action, action.upper())
    color = {"stop": "#1f5a92", "go on": "#14743c"}.get(action, "#a06a00")
    more = " ".join(escape(sentence) for sentence in (str(told["reason"]), *_gains(told)))
    return (
        f"<div style='border-left:6px solid {color};padding:4px 10px'><b style='color:{color}'>{head}.</b> {more}</div>"
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _gains(told: Mapping[str, Any]) -> list[str]:
    """What a further minute would buy, where it is known."""
    gains = []
    now, then = told.get("relative_error_now"), told.get("relative_error_in_a_minute")
    if now is not None and then is not None:
        gains.append(f"A further minute brings the error from {100 * now:.2g} to {100 * then:.2g} %.")
    now, then = told.get("forecast_error_now"), told.get("forecast_error_in_a_minute")
    if now is not None and then is not None:
        gains.append(f"The error of the forecast goes from {now:.2g} to {then:.2g} of the contrast.")
    return gains


def scores(snapshot: Snapshot) -> str:
    """Every forecast of the run and how it turned out, the latest first."""
    told = snapshot.scores
    if not told:
        return ""
    heads = ("made at age", "by", "error since, of the contrast", "inside its 95 % band")
    rows = [
        (f"{at:.3g} s", METHOD_NAMES.get(str(by), str(by)), _number(rmse, ".3f"), _number(covered, ".0%"))
        for at, by, rmse, covered in zip(*(told[n] for n in ("made_at_s", "method", "rmse", "covered")), strict=True)
    ]
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>" for cells in rows[::-1])
    title = "<h3>Forecasts of this run, and what became of them</h3>"
    return f"{title}<table style='border-spacing:14px 2px;text-align:left'><tr>{head}</tr>{body}</table>"


def _number(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "not yet known"


def health(snapshot: Snapshot) -> str:
    """How well the run is being followed."""
    health = snapshot.health
    if not health:
        return ""
    lag = health.get("lag_s")
    announced = max(int(health.get("frames_announced") or 0), snapshot.n_correlated)
    facts = [
        f"{announced} frames announced, {snapshot.n_correlated} correlated",
        "" if lag is None else f"C₂ is {lag:.2g} s behind the frames",
        f"frames read from {'the detector file' if health.get('frames_read_by') == 'file' else 'tiled'}",
        f"{health.get('missed_updates')} updates not taken by tiled",
        f"{health.get('skipped_fits')} fits skipped to keep up",
    ]
    return "<h3>Run health</h3><p>" + " · ".join(escape(fact) for fact in facts if fact) + "</p>"


def run_list(lines: Sequence[RunLine], links: dict[str, str]) -> str:
    """Recent runs, and where else to look."""
    rows = "".join(_run_row(line, links["tiled"]) for line in lines)
    pages = " · ".join(f"<a href='{escape(uri)}'>{escape(name)}</a>" for name, uri in links.items())
    table = f"<table style='border-spacing:10px 2px;text-align:left'>{rows}</table>"
    return f"<h3>Recent runs</h3><div style='overflow-x:auto'>{table}</div><p>Pages: {pages}</p>"


def _run_row(line: RunLine, tiled: str) -> str:
    word = _STATUS.get(line.status, (line.status, ""))[0]
    link = f"<a href='{escape(tiled)}/ui/browse/{line.place}/{escape(line.key)}'>{escape(line.uid[:8])}</a>"
    cells = (escape(word), escape(line.sample), str(line.scan_id), link, escape(shorten(line.said, LONGEST_REMARK)))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
