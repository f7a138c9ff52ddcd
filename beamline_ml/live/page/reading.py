"""Snapshots from tiled: of a run that goes on, C2 first; of a finished one, its result."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.live.page.matrix import RingMatrix
from beamline_ml.live.page.snapshot import ForecastView, RunLine, Snapshot
from beamline_ml.records import stretched_g2

_TABLES = ("g2", "relaxation", "ageing", "forecasts")
Columns = dict[str, NDArray[Any]]


def read_rows(
    children: Mapping[str, Any],
    metadata: Mapping[str, Any],
    line: RunLine,
    ring: int | None,
    matrix: RingMatrix,
    before: Snapshot | None,
) -> Snapshot:
    """A run that goes on with C2 as it is now, and everything else as it was in ``before``."""
    known = before if before is not None and before.line.key == line.key else Snapshot(line)
    if "c2" not in children:
        return replace(known, line=line)
    n_q = int(children["c2"].shape[0])
    q = known.q_inv_angstrom if known.is_placed else _momentum_transfers(children, n_q)
    ring = n_q // 2 if ring is None else min(ring, n_q - 1)
    c2 = matrix.updated(children, line.key, ring, (metadata.get("health") or {}).get("correlated_again") or 0)
    frames_per_row = int(metadata["time_binning"])
    row_s = frames_per_row * float(metadata["frame_period_s"])
    first_s = 0.5 * (row_s - float(metadata["frame_period_s"]))
    placed = replace(known, line=line, q_inv_angstrom=q, ring=ring, row_s=row_s, first_s=first_s)
    return with_rows(replace(placed, frames_per_row=frames_per_row), c2)


def with_rows(snapshot: Snapshot, c2: NDArray[np.float32]) -> Snapshot:
    """The same with another C2."""
    return snapshot if c2 is snapshot.c2 else replace(snapshot, c2=c2, age_s=_ages(snapshot, len(c2)))


def _ages(snapshot: Snapshot, n: int) -> NDArray[np.float64]:
    """Age of each row; a row is the mean of its frames."""
    return snapshot.first_s + np.arange(n, dtype=np.float64) * snapshot.row_s


def _momentum_transfers(children: Mapping[str, Any], n_q: int) -> NDArray[np.float64]:
    """NaN while C2 is there before them."""
    if "q_inv_angstrom" not in children:
        return np.full(n_q, np.nan)
    return np.asarray(children["q_inv_angstrom"].read())


def read_tables(
    children: Mapping[str, Any],
    metadata: Mapping[str, Any],
    snapshot: Snapshot,
    before: Snapshot | None,
    executor: Executor,
) -> Snapshot:
    """The same run with its tables, its newest forecast, and what its metadata says of them."""
    snapshot = replace(snapshot, health=metadata.get("health") or {}, advice=metadata.get("advice"))
    reading = {name: executor.submit(_columns, children[name]) for name in _TABLES if name in children}
    tables: dict[str, Columns] = {name: future.result() for name, future in reading.items()}
    if not snapshot.is_placed:
        return snapshot
    q = snapshot.q_inv_angstrom[snapshot.ring]
    scores = tables.get("forecasts", {})
    return replace(
        snapshot,
        g2=_of_ring(tables.get("g2", {}), q),
        relaxation=tables.get("relaxation", {}),
        ageing=tables.get("ageing", {}),
        forecast=_live_forecast(children, scores, q, before, executor),
        scores=scores,
    )


def _columns(client: Any) -> Columns:
    table = client.read()
    return {column: table[column].to_numpy() for column in table.columns}


def _of_ring(columns: Columns, q: float) -> Columns:
    if not columns:
        return {}
    mine = np.isclose(columns["q_inv_angstrom"], q)
    return {name: values[mine] for name, values in columns.items()}


def _live_forecast(
    children: Mapping[str, Any], scores: Columns, q: float, before: Snapshot | None, executor: Executor
) -> ForecastView | None:
    """The newest forecast; it never changes, so it is read once."""
    number = int(scores["number"][-1]) if scores else 0
    if f"forecast_{number}" not in children:
        return None
    array = children[f"forecast_{number}"]
    key = f"{array.uri} {q:g}"
    if before is not None and before.forecast is not None and before.forecast.key == key:
        return before.forecast
    rings = np.asarray(array.metadata["q_inv_angstrom"], np.float64)
    times = executor.submit(children[f"forecast_{number}_times_s"].read)
    value, lower, upper = np.asarray(array[:, int(np.argmin(np.abs(rings - q)))])
    made_at_s, method = float(scores["made_at_s"][-1]), str(scores["method"][-1])
    return ForecastView(np.asarray(times.result()), value, lower, upper, made_at_s, method, key)


def read_result(result: Any, line: RunLine, ring: int | None, matrix: RingMatrix) -> Snapshot:
    """A finished run; ``result`` is its :class:`beamline_ml.results.client.XPCSFit`."""
    if result.status != "complete":
        return Snapshot(line)
    q = np.asarray(result.q_inv_angstrom)
    ring = len(q) // 2 if ring is None else min(ring, len(q) - 1)
    table = result.relaxation
    relaxation = {name: table[name].to_numpy() for name in table.columns}
    fit = _kww(result.delay_s, relaxation, ring)
    return Snapshot(
        line=line,
        q_inv_angstrom=q,
        ring=ring,
        age_s=np.asarray(result.age_s),
        c2=matrix.updated(result, line.key, ring, None),
        g2={"delay_s": result.delay_s, "g2": result.g2[ring], "g2_err": result.g2_err[ring], "fit": fit},
        relaxation=relaxation,
        forecast=_final_forecast(result, q[ring]),
    )


def _kww(delay_s: NDArray[Any], relaxation: Mapping[str, NDArray[Any]], ring: int) -> NDArray[Any]:
    names = ("relaxation_time_s", "contrast", "stretching", "baseline")
    return stretched_g2(delay_s, *(float(relaxation[name][ring]) for name in names))


def _final_forecast(result: Any, q: float) -> ForecastView | None:
    told = result.forecast
    if told is None:
        return None
    mine = int(np.argmin(np.abs(told.q_inv_angstrom - q)))
    return ForecastView(
        told.times_s, told.c2[mine], told.lower[mine], told.upper[mine], told.observed_until_s, told.method
    )
