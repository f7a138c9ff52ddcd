"""What the page shows at one moment, read from a live record or, once there is one, from the final result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_RUNS = 8
"""Runs in the list."""
_NOTHING = np.zeros(0)


@dataclass(frozen=True)
class RunLine:
    """One line of the list of runs."""

    key: str
    place: str
    """'live' or 'results': where it is read from."""
    sample: str
    scan_id: int | None
    uid: str
    status: str
    run_time: float
    said: str
    """The headline in one sentence."""


@dataclass(frozen=True)
class ForecastView:
    """A forecast of one ring: value and 95 % band."""

    times_s: NDArray[np.float64]
    c2: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    from_s: float
    method: str


@dataclass(frozen=True)
class Snapshot:
    """Everything about one run, for one ring."""

    line: RunLine
    q_inv_angstrom: NDArray[np.float64] = field(default_factory=lambda: _NOTHING)
    ring: int = 0
    age_s: NDArray[np.float64] = field(default_factory=lambda: _NOTHING)
    c2: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(n, n) of the chosen ring."""
    g2: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """delay_s, g2, g2_err, fit of the chosen ring."""
    relaxation: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Columns of the relaxation table."""
    ageing: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Columns of the table of relaxation times over age, of all rings."""
    forecast: ForecastView | None = None
    scores: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Columns of the table of forecasts."""
    health: Mapping[str, Any] = field(default_factory=dict)
    read_at: float = field(default_factory=time.time)


def run_lines(live: Any, results: Any) -> list[RunLine]:
    """Runs that go on, then finished ones, the latest first; a run appears once."""
    found: dict[str, RunLine] = {}
    for place, container, statuses in (("results", results, ("complete", "failed")), ("live", live, None)):
        for key, node in container.items().tail(4 * MOST_RUNS):
            metadata = node.metadata
            if statuses is not None and metadata.get("status") not in statuses:
                continue
            line = _line(key, place, metadata)
            if line.uid not in found or (place == "live" and line.status == "live"):
                found[line.uid] = line
    ranked = sorted(found.values(), key=lambda line: (line.status != "live", -line.run_time))
    return ranked[:MOST_RUNS]


def _line(key: str, place: str, metadata: Mapping[str, Any]) -> RunLine:
    error = metadata.get("error") or {}
    said = (metadata.get("summary") or [error.get("culprit", "")])[0]
    return RunLine(
        key=key,
        place=place,
        sample=str((metadata.get("sample") or {}).get("name", "unnamed")),
        scan_id=metadata.get("scan_id"),
        uid=str(metadata.get("scan_uid", "")),
        status=str(metadata.get("status")),
        run_time=float(metadata.get("run_time") or 0.0),
        said=str(said),
    )


class RingMatrix:
    """C2 of one ring of one run, of which only new rows are fetched."""

    def __init__(self) -> None:
        self._of: tuple[str, int] = ("", -1)
        self._c2 = np.zeros((0, 0), np.float32)
        self._version: Any = None

    def updated(self, node: Any, key: str, ring: int, version: Any) -> NDArray[np.float32]:
        """The matrix as it is now; ``version`` changes when earlier rows did."""
        n = int(node["c2"].shape[1])
        old = len(self._c2)
        if (key, ring) != self._of or n < old or version != self._version:
            self._of, self._version, old = (key, ring), version, 0
            self._c2 = np.zeros((0, 0), np.float32)
        if n == old:
            return self._c2
        # The last rows may have been seen before their mirror image was there.
        first = max(0, old - 1)
        rows = np.asarray(node["c2"][ring, first:n, :n])
        grown = np.full((n, n), np.nan, np.float32)
        grown[:first, :first] = self._c2[:first, :first]
        grown[first:, :] = rows
        grown[:first, first:] = rows[:, :first].T
        grown[first:, first:] = _mirrored(rows[:, first:])
        self._c2 = grown
        return grown


def _mirrored(square: NDArray[np.float32]) -> NDArray[np.float32]:
    lower = np.tril(square)
    return lower + np.tril(square, -1).T


def read_live(node: Any, line: RunLine, ring: int, matrix: RingMatrix) -> Snapshot:
    """A run that goes on."""
    metadata = node.metadata
    health = metadata.get("health") or {}
    names = set(node)
    if not {"c2", "q_inv_angstrom", "age_s"} <= names:
        return Snapshot(line, health=health)
    q = np.asarray(node["q_inv_angstrom"].read())
    ring = min(ring, len(q) - 1)
    c2 = matrix.updated(node, line.key, ring, health.get("correlated_again"))
    scores = _columns(node, "forecasts", names)
    return Snapshot(
        line=line,
        q_inv_angstrom=q,
        ring=ring,
        age_s=_ages(metadata, len(c2)),
        c2=c2,
        g2=_of_ring(_columns(node, "g2", names), q[ring]),
        relaxation=_columns(node, "relaxation", names),
        ageing=_columns(node, "ageing", names),
        forecast=_live_forecast(node, scores, q[ring], metadata),
        scores=scores,
        health=health,
    )


def _ages(metadata: Mapping[str, Any], n: int) -> NDArray[np.float64]:
    """Age of each row; a row is the mean of its frames."""
    binning, period_s = int(metadata["time_binning"]), float(metadata["frame_period_s"])
    rows = np.arange(n, dtype=np.float64)
    return (rows * binning + (binning - 1) / 2) * period_s


def _columns(node: Any, name: str, names: set[str]) -> dict[str, NDArray[Any]]:
    if name not in names:
        return {}
    table = node[name].read()
    return {column: table[column].to_numpy() for column in table.columns}


def _of_ring(columns: dict[str, NDArray[Any]], q: float) -> dict[str, NDArray[Any]]:
    if not columns:
        return {}
    mine = np.isclose(columns["q_inv_angstrom"], q)
    return {name: values[mine] for name, values in columns.items()}


def _live_forecast(
    node: Any, scores: Mapping[str, NDArray[Any]], q: float, metadata: Mapping[str, Any]
) -> ForecastView | None:
    if not scores:
        return None
    number = int(scores["number"][-1])
    array = node[f"forecast_{number}"]
    rings = np.asarray(array.metadata["q_inv_angstrom"], np.float64)
    value, lower, upper = np.asarray(array[:, int(np.argmin(np.abs(rings - q)))])
    times_s = np.asarray(node[f"forecast_{number}_times_s"].read())
    return ForecastView(times_s, value, lower, upper, float(scores["made_at_s"][-1]), str(scores["method"][-1]))


def read_result(result: Any, line: RunLine, ring: int, matrix: RingMatrix) -> Snapshot:
    """A finished run; ``result`` is its :class:`beamline_ml.results.client.XPCSFit`."""
    if result.status != "complete":
        return Snapshot(line)
    q = np.asarray(result.q_inv_angstrom)
    ring = min(ring, len(q) - 1)
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
        health={},
    )


def _kww(delay_s: NDArray[Any], relaxation: Mapping[str, NDArray[Any]], ring: int) -> NDArray[Any]:
    contrast, time_s, stretching, baseline = (
        float(relaxation[name][ring]) for name in ("contrast", "relaxation_time_s", "stretching", "baseline")
    )
    return np.asarray(baseline + contrast * np.exp(-2 * (delay_s / time_s) ** stretching))


def _final_forecast(result: Any, q: float) -> ForecastView | None:
    told = result.forecast
    if told is None:
        return None
    mine = int(np.argmin(np.abs(told.q_inv_angstrom - q)))
    return ForecastView(
        told.times_s, told.c2[mine], told.lower[mine], told.upper[mine], told.observed_until_s, told.method
    )
