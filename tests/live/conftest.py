"""A beamline on the shared test server, a run that grows while it is followed, and the movie behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h5py
import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from event_model import compose_run

from beamline_ml.correlation import QMap
from beamline_ml.live.follower import Follower
from beamline_ml.live.forecaster import FitProcess
from beamline_ml.records import Geometry
from beamline_ml.service.catalogue import Catalogue
from beamline_ml.settings import Settings, load_settings
from tests.conftest import DATASET, XPCS, send_descriptor
from tests.correlation.speckle import counts

SHAPE = (32, 24)
N_FRAMES = 240
N_Q = 3


@pytest.fixture(scope="session")
def movie() -> np.ndarray:
    """(n_frames, rows, cols) counts of rings that relax q times as fast as the first."""
    geometry = Geometry(8.0, 5.0, 75e-6, XPCS["beam_center_row_px"], XPCS["beam_center_column_px"])
    return counts(np.random.default_rng(3), QMap.from_geometry(geometry, SHAPE, n_q=N_Q), N_FRAMES, 4.0, 12.0)


@pytest.fixture
def settings(tiled_server: Any, raw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    address = urlsplit(tiled_server.uri)
    told = {
        "STATE_DIR": str(tmp_path),
        "TILED__URI": f"{address.scheme}://{address.netloc}",
        "TILED__API_KEY": parse_qs(address.query)["api_key"][0],
        "TILED__RESULTS": "live-results",
        "PREFECT__API_URL": "http://127.0.0.1:9/api",
        "DATA__ALLOWED_ROOTS": f'["{tiled_server.frames_dir}"]',
        "ANALYSIS__N_Q": str(N_Q),
        "ANALYSIS__MODEL": "none",
        "LIVE__IDLE_LIMIT_S": "5",
    }
    for name, value in told.items():
        monkeypatch.setenv(f"BEAMLINE_ML_{name}", value)
    return load_settings()


class GrowingRun:
    """A burst whose frames arrive when the test says so, written the way areaDetector does."""

    def __init__(self, raw: Any, path: Path, movie: np.ndarray, dtype: str = "<u2") -> None:
        self.movie = movie
        self._file = h5py.File(path, "w", libver="latest")
        shape = movie.shape[1:]
        self._data = self._file.create_dataset(
            DATASET, (0, *shape), maxshape=(None, *shape), dtype=dtype, chunks=(10, *shape)
        )
        self._file.swmr_mode = True
        self._writer = TiledWriter(raw, batch_size=1)
        sample = {"name": "growing latex"}
        xpcs = {**XPCS, "n_frames": len(movie)}
        self._run = compose_run(metadata={"technique": "xpcs", "sample": sample, "scan_id": 77, "xpcs": xpcs})
        self.uid = str(self._run.start_doc["uid"])
        self._writer("start", self._run.start_doc)
        self._descriptor = send_descriptor(self._run, self._writer, shape, dtype, {})
        self._resource = self._run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=f"file://localhost{path}",
            data_key="det",
            parameters={"dataset": DATASET, "chunk_shape": (10, *shape), "swmr": True},
        )
        self._writer("stream_resource", self._resource.stream_resource_doc)
        self.n = 0

    def write(self, n: int, announce: bool = True) -> None:
        """Let the run have ``n`` frames."""
        first, self.n = self.n, n
        self._data.resize(n, axis=0)
        self._data[first:n] = self.movie[first:n]
        self._data.flush()
        if announce:
            datum = self._resource.compose_stream_datum(
                indices={"start": first, "stop": n},
                seq_nums={"start": first + 1, "stop": n + 1},
                descriptor=self._descriptor,
            )
            self._writer("stream_datum", datum)

    def stop(self) -> None:
        self._writer("stop", self._run.compose_stop())

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def begin_run(
    raw: Any, tiled_server: Any, request: pytest.FixtureRequest, movie: np.ndarray
) -> Iterator[Callable[..., GrowingRun]]:
    """Begin a run; keywords: ``movie``."""
    begun: list[GrowingRun] = []

    def begin(movie: np.ndarray = movie) -> GrowingRun:
        name = f"{request.node.name}-{len(begun)}.h5".replace("/", "_")
        begun.append(GrowingRun(raw, tiled_server.frames_dir / name, movie))
        return begun[-1]

    yield begin
    for run in begun:
        run.close()


@pytest.fixture
def followed(settings: Settings, begin_run: Callable[..., GrowingRun]) -> Iterator[tuple[GrowingRun, Follower]]:
    """A run with its first 100 frames published."""
    run = begin_run()
    run.write(100)
    with (
        closing(FitProcess()) as process,
        closing(Catalogue(settings)) as catalogue,
        closing(Follower(settings, catalogue, run.uid, process)) as follower,
    ):
        assert follower.begin()
        advance(follower, 100)
        yield run, follower
        follower.tell("superseded")


def advance(follower: Follower, n_frames: int) -> None:
    follower.take(n_frames)
    follower.publish_all()
