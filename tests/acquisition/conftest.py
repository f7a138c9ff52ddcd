"""A short movie, a detector that plays it, and settings that point to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bluesky import RunEngine
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices

from beamline_ml.acquisition import MovieDetector
from beamline_ml.frames.movie import write_movie
from beamline_ml.records import Geometry

GEOMETRY = Geometry(8.0, 5.0, 75e-6, 7.5, 8.5)
PERIOD_S = 0.005
EXPOSURE_S = 0.004
N_FRAMES = 120
SAMPLE = {"name": "silica", "composition": "SiO2", "number_density_per_um2": 1.5}


@pytest.fixture(scope="session")
def counts() -> np.ndarray:
    return np.random.default_rng(7).poisson(0.5, (N_FRAMES, 16, 18)).astype("u2")


@pytest.fixture(scope="session")
def movie_path(tmp_path_factory: pytest.TempPathFactory, counts: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("movie") / "movie.h5"
    write_movie(path, counts, GEOMETRY, PERIOD_S, EXPOSURE_S, SAMPLE)
    return path


@pytest.fixture(scope="session")
def run_engine() -> RunEngine:
    return RunEngine({})


@pytest.fixture
def frames_folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def detector(run_engine: RunEngine, movie_path: Path, frames_folder: Path) -> MovieDetector:
    with init_devices():
        det = MovieDetector(
            StaticPathProvider(UUIDFilenameProvider(), frames_folder), movie_path=movie_path, name="det"
        )
    return det  # noqa: RET504 - named by init_devices
