"""The chain's hops, measured on a real stack: ``python -m tests.benchmarks.bench_service``.

One burst after the other on a stack of its own. Every time is that of the machine's wall clock; hops are taken from
the clocks of those who did them (RunEngine, tiled, Prefect), which share one machine here. While a scan goes on, and
until its result is there, the benchmark asks for next to nothing: its own questions would make the chain slower.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from beamline_ml.acquisition.burst import Burst, read_burst, start_burst
from beamline_ml.errors import ServiceError
from beamline_ml.frames.movie import write_movie
from beamline_ml.service.catalogue import Catalogue
from beamline_ml.service.doorbell import Doorbell
from beamline_ml.service.stack import Stack
from beamline_ml.service.trigger import submit_fit
from beamline_ml.service.up import embedded_stack
from beamline_ml.settings import load_settings
from beamline_ml.simulation import MovieRecipe, simulate_movie
from tests.benchmarks.rows import Row, row

N_BURSTS = 3
N_LARGE_BURSTS = 3
N_FRAMES = 400
N_FRAMES_LONG = 1200
N_PIXELS, N_PIXELS_LARGE = 128, 256
PATIENCE_S = 300.0
SHARE_OF_SCAN = 0.9
"""Part of a scan after which the benchmark looks for its end."""
_STOP_POLL_S = 0.2
_RESULT_POLL_S = 1.0
"""When a result was complete is told by the task that made it so."""
FIT_TASK = "explain"
"""Task whose time is the fit itself, not the chain's."""
PUBLISH_TASK = "publish"
"""Task after which a result can be read."""


@dataclass(frozen=True)
class Timeline:
    """When what happened with one run, in s since the RunEngine returned."""

    burst: Burst
    stop_in_tiled_s: float
    flow_created_s: float
    flow_begun_s: float
    flow_ended_s: float
    readable_s: float
    tasks_s: dict[str, float]
    """How long each of the flow's tasks took."""

    @property
    def scan_time_ratio(self) -> float:
        """Time of the scan over its ideal time."""
        return self.burst.scan_time_s / self.burst.ideal_time_s

    @property
    def beyond_fit_s(self) -> float:
        """From the end of the scan to the readable result, without the time of the fit itself."""
        return self.readable_s - sum(took for name, took in self.tasks_s.items() if name.startswith(FIT_TASK))

    @property
    def stop_to_final_s(self) -> float:
        """The same from the moment at which tiled has the stop document."""
        return self.beyond_fit_s - self.stop_in_tiled_s


def make_movie(path: Path, n_frames: int = N_FRAMES, n_pixels: int = N_PIXELS) -> Path:
    """Simulated movie of ``n_frames`` frames of ``n_pixels`` squared."""
    recipe = MovieRecipe(n_observed=n_frames, n_future=1, detector_size=n_pixels)
    movie = simulate_movie(recipe, seed=0)
    write_movie(path, movie.counts[:n_frames], movie.geometry, movie.frame_period_s, movie.exposure_s, movie.sample)
    return path


def measure(stack: Stack, movie: Path) -> Timeline:
    """Take one burst and follow it to its readable result."""
    process = start_burst(stack.settings, movie=movie)
    with closing(Catalogue(stack.settings)) as catalogue, closing(Doorbell()) as doorbell:
        doorbell.listen(catalogue.raw)
        (uid,) = _wait(lambda: doorbell.wait(_STOP_POLL_S) or None)
        time.sleep(SHARE_OF_SCAN * _ideal_time_s(catalogue, uid))
        stop_at = _wait(lambda: time.time() if catalogue.is_finished_xpcs(uid) else None)
        _wait(lambda: _is_readable(catalogue, uid) or None, poll_s=_RESULT_POLL_S)
    burst = read_burst(process)
    run, tasks = _flow_run(stack, f"scan:{uid}")
    since = burst.ended_at
    readable_at = max(_seconds(task["end_time"]) for task in tasks if task["name"].startswith(PUBLISH_TASK))
    return Timeline(
        burst=burst,
        stop_in_tiled_s=stop_at - since,
        flow_created_s=_seconds(run["created"]) - since,
        flow_begun_s=_seconds(run["start_time"]) - since,
        flow_ended_s=_seconds(run["end_time"]) - since,
        readable_s=readable_at - since,
        tasks_s={task["name"]: task["total_run_time"] for task in tasks},
    )


def through_worker_s(stack: Stack, uid: str) -> float:
    """From ``prefect deployment run`` (with other settings: work to do) to the second result, beyond its fit."""
    with closing(Catalogue(stack.settings)) as catalogue:
        before = len(_complete(catalogue, uid))
        began = time.monotonic()
        submit_fit(stack.settings, uid, {"last_frame": N_FRAMES - 50})
        _wait(lambda: len(_complete(catalogue, uid)) > before or None)
        took_s = time.monotonic() - began
        newest = max(_complete(catalogue, uid), key=lambda node: float(node.metadata["published_at"]))
        return took_s - float(newest.metadata["timings_s"]["fit"])


def live_lags_s(stack: Stack, uid: str) -> tuple[float, float]:
    """Median and 95th percentile of all times from an announcement of frames to their C2."""
    with closing(Catalogue(stack.settings)) as catalogue:
        (node,) = (node for node in catalogue.live.values() if node.metadata["scan_uid"] == uid)
        health = node.metadata["health"]
        return float(health["lag_median_s"]), float(health["lag_p95_s"])


def _complete(catalogue: Catalogue, uid: str) -> list[Any]:
    return [node for node in catalogue.results_of(uid) if node.metadata["status"] == "complete"]


def _is_readable(catalogue: Catalogue, uid: str) -> bool:
    return any(len(list(node)) > 0 for node in _complete(catalogue, uid))


def _ideal_time_s(catalogue: Catalogue, uid: str) -> float:
    """How long the scan takes by its own plan."""
    planned = catalogue.raw[uid].metadata["start"]["xpcs"]
    return float(planned["n_frames"] * planned["frame_period_s"])


def _wait(check: Any, timeout_s: float = PATIENCE_S, poll_s: float = _STOP_POLL_S) -> Any:
    deadline = time.monotonic() + timeout_s
    while (value := check()) is None:
        if time.monotonic() > deadline:
            raise ServiceError(f"The benchmark waited {timeout_s:.0f} s in vain.", "Read the stack's logs.")
        time.sleep(poll_s)
    return value


def _flow_run(stack: Stack, tag: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The completed flow run with a tag, and its task runs."""

    def completed() -> dict[str, Any] | None:
        runs = httpx.post(f"{stack.prefect_api_url}/flow_runs/filter", json={"flow_runs": {"tags": {"all_": [tag]}}})
        return next((run for run in runs.json() if run["state_type"] == "COMPLETED"), None)

    run = _wait(completed, 30.0)
    query = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    return run, httpx.post(f"{stack.prefect_api_url}/task_runs/filter", json=query).json()


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def rows() -> list[Row]:
    """Benchmark rows of the service."""
    with tempfile.TemporaryDirectory() as folder, bench_stack(Path(folder)) as (stack, up_s):
        movie = make_movie(Path(folder) / "movie.h5")
        timelines = [measure(stack, movie) for _ in range(N_BURSTS)]
        large = make_movie(Path(folder) / "large.h5", n_pixels=N_PIXELS_LARGE)
        of_large = [measure(stack, large) for _ in range(N_LARGE_BURSTS)]
        long = make_movie(Path(folder) / "long.h5", N_FRAMES_LONG, N_PIXELS_LARGE)
        of_long = [measure(stack, long) for _ in range(N_LARGE_BURSTS)]
        worker_s = through_worker_s(stack, timelines[0].burst.run_uid)
        lags_s, lags_large_s, lags_long_s = (
            [live_lags_s(stack, timeline.burst.run_uid) for timeline in those]
            for those in (timelines, of_large, of_long)
        )
    return [
        row("scan_time_ratio", median(t.scan_time_ratio for t in timelines), "", 1.0),
        row("scan_end_to_result_s", median(t.beyond_fit_s for t in timelines), "s", 6.0),
        row("scan_end_to_first_result_s", timelines[0].beyond_fit_s, "s", 6.0),
        *(row(f"hop_{name}", median(hop(t) for t in timelines), "s") for name, hop in HOPS.items()),
        *_task_rows(timelines),
        row("submit_to_result_through_worker_s", worker_s, "s", 15.0),
        row("stop_to_final_s", median(t.stop_to_final_s for t in timelines), "s", 3.0),
        row("stop_to_final_of_256x256_s", median(t.stop_to_final_s for t in of_large), "s", 3.0),
        row("stop_to_final_of_12_s_s", median(t.stop_to_final_s for t in of_long), "s", 3.0),
        row("frame_to_c2_median_s", median(usual for usual, _ in lags_large_s), "s", 0.5),
        row("frame_to_c2_p95_s", median(p95 for _, p95 in lags_large_s), "s", 1.5),
        row("frame_to_c2_of_12_s_median_s", median(usual for usual, _ in lags_long_s), "s", 0.5),
        row("frame_to_c2_of_12_s_p95_s", median(p95 for _, p95 in lags_long_s), "s", 1.5),
        row("frame_to_c2_of_128x128_median_s", median(usual for usual, _ in lags_s), "s"),
        row("scan_time_ratio_of_256x256", median(t.scan_time_ratio for t in of_large), "", 1.0),
        row("stack_up_s", up_s, "s"),
    ]


HOPS = {
    "scan_end_to_stop_in_tiled_s": lambda t: t.stop_in_tiled_s,
    "stop_in_tiled_to_flow_created_s": lambda t: t.flow_created_s - t.stop_in_tiled_s,
    "flow_created_to_body_s": lambda t: t.flow_begun_s - t.flow_created_s,
    "flow_body_s": lambda t: t.flow_ended_s - t.flow_begun_s,
    "scan_end_to_readable_s": lambda t: t.readable_s,
}


def _task_rows(timelines: list[Timeline]) -> list[Row]:
    names = {name.rsplit("-", 1)[0] for t in timelines for name in t.tasks_s}
    return [
        row(
            f"task_{name}_s",
            median(sum(took for task, took in t.tasks_s.items() if task.startswith(name)) for t in timelines),
            "s",
        )
        for name in sorted(names)
    ]


def median(values: Any) -> float:
    """Median of any iterable."""
    return float(statistics.median(list(values)))


@contextmanager
def bench_stack(folder: Path) -> Iterator[tuple[Stack, float]]:
    """A stack of its own, and how long it took to come up in s."""
    import os

    os.environ["BEAMLINE_ML_STATE_DIR"] = str(folder / "state")
    began = time.monotonic()
    with embedded_stack(load_settings()) as stack:
        yield stack, time.monotonic() - began


if __name__ == "__main__":
    json.dump(rows(), sys.stdout, indent=1)
