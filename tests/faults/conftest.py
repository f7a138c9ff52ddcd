"""The simulated beamline in this process, writing to the shared stack, and ways to break that stack."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from beamline_ml.acquisition.burst import load_profile
from beamline_ml.acquisition.journal import waiting_journals
from beamline_ml.frames.movie import write_movie
from beamline_ml.service.catalogue import Catalogue
from beamline_ml.service.prefect_api import PrefectApi
from beamline_ml.service.reaper import marked
from beamline_ml.simulation import MovieRecipe, simulate_movie
from tests.service.processes import eventually

N_FRAMES = 200
PERIOD_S = 0.01


@dataclass
class Beamline:
    """A profile in use, and what became of its runs."""

    profile: dict[str, Any]
    stack: Any
    counts: np.ndarray

    def scan(self, n_frames: int = N_FRAMES) -> tuple[str, float]:
        """Take a burst; its uid, and the time beyond the ideal one in s."""
        began = time.monotonic()
        (uid,) = self.profile["RE"](self.profile["xpcs_burst"](n_frames=n_frames))
        return uid, time.monotonic() - began - n_frames * PERIOD_S

    @contextmanager
    def catalogue(self) -> Iterator[Catalogue]:
        with closing(Catalogue(self.stack.settings)) as catalogue:
            yield catalogue

    def results(self, uid: str) -> list[dict[str, Any]]:
        """Metadata of all that ``results/`` holds for a run."""
        with self.catalogue() as catalogue:
            return [dict(node.metadata) for node in catalogue.results_of(uid)]

    def statuses(self, uid: str) -> list[str]:
        return [result["status"] for result in self.results(uid)]

    def live_status(self, uid: str) -> str | None:
        """How the run stands under ``live/``; None when it was not followed."""
        with self.catalogue() as catalogue:
            found = [node for node in catalogue.live.values() if node.metadata["scan_uid"] == uid]
            return found[0].metadata["status"] if found else None

    def is_settled(self, uid: str) -> bool:
        """Whether there is a result or a reason why not; False also while tiled is away."""
        with suppress(httpx.HTTPError):
            return bool({"complete", "failed"} & set(self.statuses(uid)))
        return False

    def wait_for_result(self, uid: str, timeout_s: float = 200.0) -> None:
        """Wait for one complete result, with all frames in tiled and no document waiting on disk."""
        assert eventually(lambda: self.is_settled(uid), timeout_s)
        assert "failed" not in self.statuses(uid), self.results(uid)
        assert eventually(lambda: not waiting_journals(self.stack.settings.backup_dir))
        with self.catalogue() as catalogue:
            np.testing.assert_array_equal(catalogue.raw[uid]["primary"]["det"].read(), self.counts[:N_FRAMES])

    def flow_runs(self, uid: str) -> list[str]:
        """States of a run's flow runs, oldest first."""
        with closing(PrefectApi(self.stack.settings.prefect)) as api:
            return [run.state for run in api.flow_runs(f"scan:{uid}")]

    def pid(self, service: str) -> int:
        """Process id of a service, once it runs."""
        child = self.stack.children[service]
        assert eventually(lambda: child.pid is not None)
        return int(child.pid)

    def kill(self, service: str) -> None:
        os.kill(self.pid(service), signal.SIGKILL)

    def followers(self) -> list[int]:
        """Process ids of the process that follows runs."""
        return [pid for pid in marked(self.stack._token) if b"beamline_ml.live.resident" in _command(pid)]

    def wait_for_follower(self) -> None:
        """Wait until the process that follows runs has imported what it needs."""
        log = self.stack.state.logs / "watcher.log"

        def is_ready() -> bool:
            said = log.read_text()
            return any(f"process {pid} is ready to follow runs" in said for pid in self.followers())

        assert eventually(is_ready)

    def kill_followers(self) -> None:
        for pid in self.followers():
            os.kill(pid, signal.SIGKILL)

    @contextmanager
    def frozen(self, service: str) -> Iterator[None]:
        """A service that accepts connections and never answers."""
        pid = self.pid(service)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):  # killed meanwhile
                os.kill(pid, signal.SIGCONT)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def make_movie(path: Path, n_frames: int = N_FRAMES) -> np.ndarray:
    """Write a small movie and return its counts."""
    recipe = MovieRecipe(n_observed=n_frames, n_future=1, detector_size=64, frame_period_s=PERIOD_S)
    simulated = simulate_movie(recipe, seed=1)
    counts = simulated.counts[:n_frames]
    write_movie(path, counts, simulated.geometry, PERIOD_S, simulated.exposure_s, simulated.sample)
    return counts


@pytest.fixture(scope="session")
def movie(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("movie") / "movie.h5"
    return path, make_movie(path)


@pytest.fixture(scope="session")
def beamline(stack: Any, movie: tuple[Path, np.ndarray]) -> Iterator[Beamline]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEAMLINE_ML_STATE_DIR", str(stack.state.root))
        patch.setenv("BEAMLINE_ML_ACQUISITION__MOVIE", str(movie[0]))
        profile = load_profile(stack.settings.profile_dir)
    yield Beamline(profile, stack, movie[1])
    profile["publication"].close()


@dataclass(frozen=True)
class Fitted:
    """A run that nothing happened to, with its automatic result."""

    uid: str
    beyond_s: float
    """How much longer than its ideal time the scan took."""


@pytest.fixture(scope="session")
def fitted(beamline: Beamline) -> Fitted:
    """One scan for all tests that only look at what became of it."""
    beamline.wait_for_follower()
    uid, beyond_s = beamline.scan()
    beamline.wait_for_result(uid)
    return Fitted(uid, beyond_s)


@pytest.fixture
def when() -> Callable[[float, Callable[[], Any]], None]:
    """Do something after so many seconds, in another thread."""
    import threading

    def later(delay_s: float, action: Callable[[], Any]) -> None:
        threading.Timer(delay_s, action).start()

    return later
