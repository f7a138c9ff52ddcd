"""What the page shows at one moment, read from a live record or, once there is one, from the final result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    key: str = ""
    """What it was read from."""


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
    advice: Mapping[str, Any] | None = None
    """Whether it is worth going on, as the run's record says."""
    row_s: float = 1.0
    """Time between rows of C2."""
    frames_per_row: int = 1
    first_s: float = 0.0
    """Age of its first row."""

    @property
    def n_correlated(self) -> int:
        """Frames that C2 holds: what the record says of them is older than C2 itself."""
        return max(int(self.health.get("frames_correlated") or 0), len(self.c2) * self.frames_per_row)

    @property
    def is_placed(self) -> bool:
        """Whether it is known which momentum transfer each ring has."""
        return len(self.q_inv_angstrom) > 0 and bool(np.isfinite(self.q_inv_angstrom).all())


def live_lines(live: Any) -> tuple[dict[str, Any], list[RunLine]]:
    """Clients of the latest runs below ``live/`` by key, and a line for each."""
    nodes = _latest(live)
    return nodes, [_line(key, "live", node.metadata) for key, node in nodes.items()]


def result_lines(results: Any) -> list[RunLine]:
    """A line for each of the latest results that is finished."""
    lines = (_line(key, "results", node.metadata) for key, node in _latest(results).items())
    return [line for line in lines if line.status in ("complete", "failed")]


def _latest(container: Any) -> dict[str, Any]:
    most = 4 * MOST_RUNS
    return dict(container.items().page_size(most).tail(most))


def merged_lines(live: Sequence[RunLine], results: Sequence[RunLine]) -> list[RunLine]:
    """Runs that go on, then finished ones, the latest first; a run appears once."""
    found = {line.uid: line for line in results}
    for line in live:
        if line.uid not in found or line.status == "live":
            found[line.uid] = line
    return sorted(found.values(), key=lambda line: (line.status != "live", -line.run_time))[:MOST_RUNS]


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
