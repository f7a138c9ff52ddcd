"""A real Prefect server and a real tiled server for the flow, and bursts of speckle whose relaxation is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from beamline_ml.correlation import QMap
from beamline_ml.records import Geometry
from tests.correlation.speckle import counts

GEOMETRY = Geometry(8.0, 5.0, 75e-6, 15.5, 11.5)
SHAPE = (32, 24)
N_FRAMES = 160
N_Q = 3
RELAXATION_FRAMES = 12.0
"""Of the innermost ring; ring q relaxes q times faster."""


@pytest.fixture(scope="session")
def burst_counts() -> np.ndarray:
    """(n_frames, rows, cols) Poisson counts of rings that relax q times as fast as the first."""
    qmap = QMap.from_geometry(GEOMETRY, SHAPE, n_q=N_Q)
    return counts(np.random.default_rng(7), qmap, N_FRAMES, 4.0, RELAXATION_FRAMES)


@pytest.fixture
def take_burst(record_run: Any, write_frames: Any, burst_counts: np.ndarray) -> Callable[..., Any]:
    """Take a burst of the speckle and return the run's client; keywords as for ``record_run``."""

    def take(n_frames: int = N_FRAMES, **told: Any) -> Any:
        path = write_frames(burst_counts[:n_frames])
        return record_run(path, shape=(n_frames, *SHAPE), **told)

    return take


@pytest.fixture
def beamline(
    tiled_server: Any, tiled_root: Any, raw: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Settings of a beamline whose runs and results lie on the test server; gives its results."""
    from beamline_ml.results import Results

    address = urlsplit(tiled_server.uri)
    told = {
        "STATE_DIR": str(tmp_path),
        "TILED__URI": f"{address.scheme}://{address.netloc}",
        "TILED__API_KEY": parse_qs(address.query)["api_key"][0],
        "TILED__RESULTS": "fits",
        "DATA__ALLOWED_ROOTS": f'["{tiled_server.frames_dir}"]',
        "DATA__MISSING_FILE_WAIT_S": "0",
        "ANALYSIS__N_Q": str(N_Q),
        "ANALYSIS__MODEL": "none",
    }
    for name, value in told.items():
        monkeypatch.setenv(f"BEAMLINE_ML_{name}", value)
    if "fits" not in tiled_root:
        tiled_root.create_container("fits")
    return Results(tiled_root["fits"])
