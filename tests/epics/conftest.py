"""A soft IOC with areaDetector's names, and the template profile of a beamline that takes its frames from it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from beamline_ml.correlation import QMap
from beamline_ml.frames.movie import write_movie
from beamline_ml.records import Geometry
from beamline_ml.settings import load_settings, shipped_root
from tests.correlation.speckle import counts

PREFIX = "XPCS-SIM:"
GEOMETRY = Geometry(8.0, 5.0, 75e-6, 15.5, 11.5)
SHAPE = (32, 24)
N_FRAMES = 160
PERIOD_S = 0.01
EXPOSURE_S = 0.009
N_Q = 3
RELAXATION_FRAMES = 12.0
"""Of the innermost ring; ring q relaxes q times faster."""
SAMPLE = {"name": "latex", "composition": "C8H8"}

Documents = dict[str, list[dict[str, Any]]]


class Ioc:
    """The soft IOC, a process of its own."""

    def __init__(self, movie: Path) -> None:
        self._movie = movie
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.epics.ioc", PREFIX, str(self._movie)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self._process = subprocess.Popen(command, text=True, cwd=Path(__file__).parents[2], **pipes)
        said: list[str] = []
        while "ready" not in "".join(said[-1:]):
            line = self._process.stdout.readline()
            assert line, "".join(said)
            said.append(line)

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self._process is not None
        self._process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@dataclass
class Beamline:
    """A profile in use."""

    profile: dict[str, Any]
    settings: Any
    ioc: Ioc
    counts: np.ndarray

    def take(self, plan: Any, on_document: Callable[[str, dict[str, Any]], None] | None = None) -> Documents:
        """Run a plan and return its documents by name; ``on_document`` sees each as it comes."""
        documents: Documents = defaultdict(list)

        def keep(name: str, document: dict[str, Any]) -> None:
            documents[name].append(document)
            if on_document is not None:
                on_document(name, document)

        engine = self.profile["RE"]
        token = engine.subscribe(keep)
        try:
            engine(plan)
        except BaseException as error:
            error.documents = documents
            raise
        finally:
            engine.unsubscribe(token)
        return documents

    def burst(self, n_frames: int = N_FRAMES, exposure_s: float = EXPOSURE_S, period_s: float = PERIOD_S) -> Any:
        return self.profile["xpcs_burst"](n_frames, exposure_s, period_s, sample=SAMPLE)


@pytest.fixture(scope="session")
def speckle() -> np.ndarray:
    """(n_frames, rows, cols) Poisson counts of rings that relax q times as fast as the first."""
    qmap = QMap.from_geometry(GEOMETRY, SHAPE, n_q=N_Q)
    return counts(np.random.default_rng(7), qmap, N_FRAMES, 4.0, RELAXATION_FRAMES)


@pytest.fixture(scope="session")
def movie(tmp_path_factory: pytest.TempPathFactory, speckle: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("movie") / "movie.h5"
    write_movie(path, speckle, GEOMETRY, PERIOD_S, EXPOSURE_S, SAMPLE)
    return path


@pytest.fixture(scope="session")
def channel_access() -> Iterator[None]:
    """Channel Access on loopback and on ports that nobody else uses; a process reads this with its first channel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPICS_CA_ADDR_LIST", "127.0.0.1")
        patch.setenv("EPICS_CA_AUTO_ADDR_LIST", "NO")
        patch.setenv("EPICS_CA_SERVER_PORT", str(_free_port()))
        patch.setenv("EPICS_CA_REPEATER_PORT", str(_free_port()))
        yield


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        stream.bind(("127.0.0.1", 0))
        datagram.bind(stream.getsockname())
        return int(stream.getsockname()[1])


@pytest.fixture(scope="session")
def ioc(channel_access: None, movie: Path) -> Iterator[Ioc]:
    running = Ioc(movie)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def frames_folder(tiled_server: Any) -> Path:
    folder = Path(tiled_server.frames_dir) / "epics"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def site_profile(tmp_path_factory: pytest.TempPathFactory, frames_folder: Path) -> Path:
    """A copy of the template with its values set, as a beamline does it."""
    profile = tmp_path_factory.mktemp("site") / "xpcs"
    shutil.copytree(shipped_root() / "profiles" / "template", profile)
    values = {
        "beamline.toml": {'"XPCS-DET:"': f'"{PREFIX}"', '"/data"': f'"{frames_folder}"'},
        "startup/90-plans.py": {
            "=9.65": "=8.0",
            "=10.0": "=5.0",
            "row_px=512.0": "row_px=15.5",
            "n_px=512.0": "n_px=11.5",
        },
    }
    for file, changes in values.items():
        text = (profile / file).read_text()
        for old, new in changes.items():
            assert text.count(old) == 1, (file, old)
            text = text.replace(old, new)
        (profile / file).write_text(text)
    return profile


@pytest.fixture(scope="session")
def environment(
    tiled_server: Any, tiled_root: Any, site_profile: Path, movie: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Where this beamline's services are, and that its fits go without a dynamics model."""
    if "epics_fits" not in tiled_root:
        tiled_root.create_container("epics_fits")
    address = urlsplit(tiled_server.uri)
    told = {
        "PROFILE": str(site_profile),
        "STATE_DIR": str(tmp_path_factory.mktemp("state")),
        "TILED__URI": f"{address.scheme}://{address.netloc}",
        "TILED__API_KEY": parse_qs(address.query)["api_key"][0],
        "TILED__RAW": "epics_raw",
        "TILED__RESULTS": "epics_fits",
        "ANALYSIS__N_Q": str(N_Q),
        "ANALYSIS__MODEL": "none",
    }
    return {f"BEAMLINE_ML_{name}": value for name, value in told.items()}


@pytest.fixture
def at_the_beamline(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows and settings of this test are those of the beamline."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def beamline(ioc: Ioc, environment: dict[str, str], speckle: np.ndarray) -> Iterator[Beamline]:
    from beamline_ml.acquisition.burst import load_profile

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        settings = load_settings()
        profile = load_profile(settings.profile_dir)
    yield Beamline(profile, settings, ioc, speckle)
    profile["publication"].close()


@pytest.fixture
def own_process(environment: dict[str, str], movie: Path, tmp_path: Path) -> dict[str, str]:
    """Environment of another process that runs the simulated beamline with its detector behind EPICS."""
    return {
        **os.environ,
        **environment,
        "BEAMLINE_ML_PROFILE": "sim_xpcs",
        "BEAMLINE_ML_STATE_DIR": str(tmp_path),
        "BEAMLINE_ML_ACQUISITION__MOVIE": str(movie),
        "BEAMLINE_ML_ACQUISITION__DETECTOR_PREFIX": PREFIX,
    }
