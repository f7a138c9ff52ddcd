"""The demo: the whole chain on a simulated beamline, from the movie to the result read back through tiled."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamline_ml.acquisition.burst import Burst, read_burst, start_burst
from beamline_ml.errors import FramesError, ResultError, ServiceError
from beamline_ml.service.movie_source import check_movie
from beamline_ml.service.prefect_api import PrefectApi
from beamline_ml.service.stack import Stack, Step
from beamline_ml.service.state import StateDir
from beamline_ml.service.trigger import scan_tag
from beamline_ml.service.up import embedded_stack
from beamline_ml.settings import Settings, load_settings

RESULT_TIMEOUT_S = 300.0
_POLL_S = 0.5

Tell = Callable[[str, str, str], None]
"""Called with hop, state ('started', 'done', 'failed') and a remark."""


@dataclass(frozen=True)
class Demo:
    """A finished demo, while its stack is still up."""

    stack: Stack
    burst: Burst
    result: Any
    """The complete result, read back through tiled (:class:`beamline_ml.results.client.XPCSFit`)."""
    hops_s: dict[str, float]
    """Seconds from the start of the demo to the end of each hop."""
    folder: Path


def demo_folder(base: Path) -> Path:
    """Fresh state directory ``demo`` under ``base``; ``demo-2``, ... when a kept demo still runs in it."""
    for number in range(1, 100):
        folder = base / ("demo" if number == 1 else f"demo-{number}")
        state = StateDir(folder)
        if not folder.exists():
            return folder
        with contextlib.suppress(ServiceError):
            state.lock()
            state.unlock()
            shutil.rmtree(folder)
            return folder
    raise ServiceError(f"All demo folders in {base} are in use.", "End the demos that were started with --keep.")


@contextmanager
def running_demo(folder: Path, movie: Path | None, tell: Tell) -> Iterator[Demo]:
    """Run the chain once and yield while the stack is still up; it is taken down at the end, whatever happens.

    Parameters
    ----------
    folder
        State directory of the demo's own stack.
    movie
        Real frames to play (.npz video or areaDetector HDF5 file); None simulates the seed system.
    tell
        Hears of each hop.

    Raises
    ------
    BeamlineMLError
        What went wrong, in the words of the hop that refused.
    """
    if movie is not None:
        check_movie(movie)
    began = time.monotonic()
    hops_s: dict[str, float] = {}

    def hear(hop: str, state: str, remark: str = "") -> None:
        if state == "done":
            hops_s[hop] = round(time.monotonic() - began, 2)
        tell(hop, state, remark)

    settings = settings_of(folder)
    with _Movie(folder, movie, settings.analysis.n_q, hear) as making, embedded_stack(settings, _steps(hear)) as stack:
        played = making.wait()
        burst = _scan(stack.settings, played, hear)
        result = _result(stack.settings, burst, hear)
        yield Demo(stack, burst, result, hops_s, folder)


def settings_of(folder: Path) -> Settings:
    """Settings of a stack in this folder, for this process and all that it starts."""
    os.environ["BEAMLINE_ML_STATE_DIR"] = str(folder.absolute())
    return load_settings(state_dir=folder.absolute())


def _steps(hear: Callable[..., None]) -> Callable[[Step], None]:
    names = {"starting": "started", "ready": "done"}

    def on_step(step: Step) -> None:
        if step.state in names:
            hear(step.name, names[step.state])

    return on_step


class _Movie:
    """The process that makes the movie, beside the start of the stack; ended with the block it is used in."""

    def __init__(self, folder: Path, movie: Path | None, n_q: int, hear: Callable[..., None]) -> None:
        self._path = folder / "movie" / "movie.h5"
        self._source = movie
        self._hear = hear
        command = [sys.executable, "-m", "beamline_ml.service.demo_movie", str(self._path.parent), "--n-q", str(n_q)]
        self._command = command if movie is None else [*command, "--movie", str(movie.absolute())]
        self._finished = threading.Event()

    def __enter__(self) -> _Movie:
        self._hear("movie", "started", "simulating" if self._source is None else f"from {self._source.name}")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            self._command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._listener = threading.Thread(target=self._listen, name="movie", daemon=True)
        self._listener.start()
        return self

    def _listen(self) -> None:
        self._errors = self._process.communicate()[1]
        if self._process.returncode == 0:
            self._hear("movie", "done")
        self._finished.set()

    def wait(self) -> Path:
        """Path of the movie, once it is complete."""
        self._finished.wait()
        if self._process.returncode != 0:
            last = (self._errors.strip().splitlines() or ["it was killed"])[-1]
            raise FramesError(f"The movie could not be made: {last}", "Correct the file, or leave --movie out.")
        return self._path

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._finished.wait()


def _scan(settings: Settings, movie: Path, hear: Callable[..., None]) -> Burst:
    hear("scan", "started")
    process = start_burst(settings, movie=movie)
    try:
        burst = read_burst(process)
    finally:
        if process.poll() is None:
            process.kill()
    hear("scan", "done", f"{burst.n_frames} frames in {burst.scan_time_s:.2f} s (ideal {burst.ideal_time_s:.2f} s)")
    return burst


def _result(settings: Settings, burst: Burst, hear: Callable[..., None]) -> Any:
    """Wait for the automatic trigger to bring the complete result of this run."""
    from beamline_ml.results import open_results

    hear("trigger", "started")
    results = open_results(settings.tiled.uri, _key(settings))
    deadline = time.monotonic() + RESULT_TIMEOUT_S
    triggered = False
    with closing(PrefectApi(settings.prefect)) as prefect:
        while time.monotonic() < deadline:
            found = results.of_run(burst.run_uid)
            if found and not triggered:
                hear("trigger", "done")
                hear("analysis", "started", "in the watcher's warm process")
                triggered = True
            for result in found:
                if result.status == "complete":
                    hear("analysis", "done", f"result {result.key}")
                    return result
                if result.error is not None:
                    raise ResultError(
                        f"The demo's run was not analysed: {result.error['culprit']}", result.error["remedy"]
                    )
            if not triggered and prefect.flow_runs(scan_tag(burst.run_uid)):
                hear("trigger", "done")
                hear("analysis", "started", "in the watcher's warm process")
                triggered = True
            time.sleep(_POLL_S)
    raise ResultError(
        f"No result of run {burst.run_uid[:8]} after {RESULT_TIMEOUT_S:.0f} s.",
        f"Read the logs in {StateDir(settings.state_dir).logs}.",
    )


def _key(settings: Settings) -> str | None:
    return settings.tiled.api_key.get_secret_value() if settings.tiled.api_key else None


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write what the table shows as JSON, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    unfinished.replace(path)
