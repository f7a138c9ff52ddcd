"""Results on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from beamline_ml.errors import ResultError
from beamline_ml.results.client import XPCSFit
from beamline_ml.results.headline import value_with_error
from beamline_ml.results.rings import RingRow, ring_rows
from beamline_ml.results.search import open_results

_MOST_LISTED = 20


def chosen_results(name: str | None) -> list[XPCSFit]:
    """Results that a person means: all of a run (complete ones first), one by its key, or the latest of all runs.

    Raises
    ------
    ResultError
        When there is none.
    """
    results = open_results()
    if name is None:
        found = results.search(status=None)[:_MOST_LISTED]
        remedy = "Nothing has been analysed yet; beamline-ml doctor checks the chain."
    elif name in results.container:
        found, remedy = [results[name]], ""
    else:
        found = results.search()[:1] if name == "-1" else results.of_run(name)
        remedy = "It may not have been analysed yet: beamline-ml fit RUN does it; beamline-ml show lists what there is."
    if not found:
        raise ResultError(f"There is no result{'' if name is None else f' of run {name}'}.", remedy)
    return found


def export_result(result: XPCSFit, layout: str, path: Path) -> Path:
    """Write a result as ``nxxpcs`` or ``aps``.

    Raises
    ------
    ResultError
        When the layout is another, or the result is not complete.
    """
    if layout not in ("nxxpcs", "aps"):
        raise ResultError(f"Results are not exported as {layout!r}.", "Choose --format nxxpcs or --format aps.")
    return Path(result.export(layout, path))


def as_rows(found: Sequence[XPCSFit]) -> list[dict[str, Any]]:
    """Results as plain data, complete ones with their rings."""
    return [
        {
            "key": result.key,
            "status": result.status,
            "scan_uid": result.scan_uid,
            "scan_id": result.scan_id,
            "sample": result.sample_name,
            "settings": result.settings,
            "headline": result.headline,
            "warnings": result.warnings,
            "error": result.error,
            "rings": [row.as_json() for row in ring_rows(result.relaxation)] if result.status == "complete" else [],
        }
        for result in found
    ]


def print_results(console: Console, found: Sequence[XPCSFit], whole: bool) -> None:
    """List results, or show each of them whole."""
    if not whole:
        console.print(_listing(found))
        return
    for result in found:
        console.print(f"[bold]{result.key}[/] ({result.status})")
        if result.status == "complete":
            console.print(ring_table(ring_rows(result.relaxation)))
        console.print(result.summary(), markup=False, highlight=False)
        console.print()


def _listing(found: Sequence[XPCSFit]) -> Table:
    table = Table(box=None)
    for heading in ("result", "status", "sample", "taken", "in one sentence"):
        table.add_column(heading, overflow="fold")
    for result in found:
        said = result.metadata.get("summary") or [result.error["culprit"] if result.error else ""]
        taken = "" if result.run_time is None else f"{result.run_time:%Y-%m-%d %H:%M}"
        table.add_row(result.key, result.status, result.sample_name, taken, said[0])
    return table


def ring_table(rows: Sequence[RingRow]) -> Table:
    """Per q: relaxation time, contrast, stretching, with errors."""
    table = Table(title="Relaxation per q ring", title_justify="left")
    for heading in ("q (1/µm)", "relaxation time (s)", "contrast", "stretching"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(f"{row.q_inv_um:.3g}", *_cells(row))
    return table


def _cells(row: RingRow) -> tuple[str, str, str]:
    if row.refused is not None:
        return f"none: {row.refused}", "", ""
    return (
        value_with_error(row.relaxation_time_s, row.relaxation_time_s_err),
        value_with_error(row.contrast, row.contrast_err),
        value_with_error(row.stretching, row.stretching_err),
    )
