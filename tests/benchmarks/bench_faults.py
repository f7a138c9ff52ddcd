"""Bursts while services die: ``python -m tests.benchmarks.bench_faults``. How long scans take, and what is lost.

Each burst has one fault, drawn with a seed: a service is killed, or stops answering, at some moment of the scan. One
outage of tiled lasts longer than any client waits. Afterwards every frame must be in tiled once, with one result.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamline_ml.acquisition.burst import Burst, read_burst, start_burst
from beamline_ml.acquisition.journal import waiting_journals
from beamline_ml.service.catalogue import Catalogue
from beamline_ml.service.stack import Stack
from tests.benchmarks.bench_service import bench_stack, median
from tests.benchmarks.rows import Row, row
from tests.faults.conftest import Beamline, make_movie
from tests.service.processes import eventually

N_FAULTS = 50
N_FRAMES = 400
"""To begin and to end takes a burst a tenth of a second, whatever its length."""
LONG_OUTAGE_S = 75.0
SHORT_OUTAGE_S = 8.0
_RECOVERY_S = 600.0
_ASK_EVERY_S = 5.0
_LIVE_ENDS_S = 60.0
_KILLED = ("tiled", "prefect", "watcher", "worker", "page", "follower")
_HANGING = {"tiled hangs": "tiled", "prefect hangs": "prefect"}


def strike(beamline: Beamline, fault: str, outage_s: float) -> None:
    """Kill a service, or have it answer nothing for ``outage_s`` seconds."""

    def hang(service: str) -> None:
        with beamline.frozen(service):
            time.sleep(outage_s)

    if fault in _HANGING:
        threading.Thread(target=hang, args=(_HANGING[fault],)).start()
    elif fault == "follower":
        beamline.kill_followers()
    else:
        beamline.kill(fault)


def burst_with_fault(beamline: Beamline, movie: Path, fault: str, after_s: float, outage_s: float) -> Burst:
    """Take a burst with every service there, and strike ``after_s`` seconds after its start was written down."""
    for service in _KILLED[:-1]:
        beamline.pid(service)  # waits for it
    before = _runs_on_disk(beamline.stack)
    process = start_burst(beamline.stack.settings, movie=movie)
    assert eventually(lambda: bool(_runs_on_disk(beamline.stack) - before) or process.poll() is not None, 60.0)
    time.sleep(after_s)
    strike(beamline, fault, outage_s)
    return read_burst(process)


def _runs_on_disk(stack: Stack) -> set[str]:
    return {path.stem for path in stack.settings.backup_dir.glob("*.jsonl")}


def drawn_faults(n: int = N_FAULTS, seed: int = 50) -> list[tuple[str, float, float]]:
    """(fault, s after the start of the scan, outage in s) of each burst; the middle one has the long outage."""
    rng = np.random.default_rng(seed)
    names = (*_KILLED, *_HANGING)
    drawn = [(str(rng.choice(names)), float(rng.uniform(0.0, 4.5)), SHORT_OUTAGE_S) for _ in range(n)]
    drawn[n // 2] = ("tiled hangs", 0.5, LONG_OUTAGE_S)
    return drawn


def frames_lost(catalogue: Catalogue, uid: str, counts: np.ndarray) -> tuple[int, int]:
    """Frames of a run that are missing or differ, and frames that are too many."""
    frames = np.asarray(catalogue.raw[uid]["primary"]["det"].read())
    n = min(len(frames), len(counts))
    same = (frames[:n] == counts[:n]).reshape(n, -1).all(axis=1)
    return len(counts) - int(same.sum()), max(0, len(frames) - len(counts))


def wait_until_settled(stack: Stack, uids: list[str]) -> bool:
    """Wait for all results, asking seldom, so that asking does not hold up what is waited for."""
    deadline = time.monotonic() + _RECOVERY_S
    while not _answered(lambda: is_settled(stack, uids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(_ASK_EVERY_S)
    return True


def is_settled(stack: Stack, uids: list[str]) -> bool:
    """Whether no document waits, and each run has a result."""
    if waiting_journals(stack.settings.backup_dir):
        return False
    with closing(Catalogue(stack.settings)) as catalogue:
        return all(catalogue.outcome(uid) == "complete" for uid in uids)


def live_differences(catalogue: Catalogue, uids: list[str]) -> tuple[int, int]:
    """How many of the runs were followed to their end, and how many of these records differ from the final result."""
    eventually(lambda: all(node.metadata["status"] != "live" for node in catalogue.live.values()), _LIVE_ENDS_S)
    records = {node.metadata["scan_uid"]: node for node in catalogue.live.values()}
    followed = [uid for uid in uids if uid in records and records[uid].metadata["status"] == "superseded"]
    differ = 0
    for uid in followed:
        (final,) = catalogue.results_of(uid)
        differ += not np.array_equal(records[uid]["c2"].read(), final["c2"].read())
    return len(followed), differ


def rows() -> list[Row]:
    """Benchmark rows under faults."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEAMLINE_ML_ANALYSIS__MODEL", "none")
        with bench_stack(Path(folder)) as (stack, _):
            return _rows(stack, Path(folder) / "movie.h5")


def _rows(stack: Stack, movie: Path) -> list[Row]:
    counts = make_movie(movie, N_FRAMES)
    beamline = Beamline({}, stack, counts)
    bursts = []
    for number, (fault, after_s, outage_s) in enumerate(drawn_faults(), 1):
        bursts.append(burst_with_fault(beamline, movie, fault, after_s, outage_s))
        ratio = bursts[-1].scan_time_s / bursts[-1].ideal_time_s
        print(f"{number:3d} {fault:14s} at {after_s:.2f} s: scan time ratio {ratio:.3f}", file=sys.stderr, flush=True)
    uids = [burst.run_uid for burst in bursts]
    settled = wait_until_settled(stack, uids)
    ratios = [burst.scan_time_s / burst.ideal_time_s for burst in bursts]
    with closing(Catalogue(stack.settings)) as catalogue:
        frames = [frames_lost(catalogue, uid, counts) for uid in uids]
        n_results = [sum(node.metadata["status"] == "complete" for node in catalogue.results_of(uid)) for uid in uids]
        n_followed, n_differ = live_differences(catalogue, uids) if settled else (0, 0)
    return [
        row("scan_time_ratio_under_faults", median(ratios), "", 1.03),
        row("scan_time_ratio_under_faults_max", max(ratios), "", 1.03),
        row("frames_lost", sum(lost for lost, _ in frames), "frames", 0.0),
        row("frames_doubled", sum(doubled for _, doubled in frames), "frames", 0.0),
        row("runs_without_one_result", sum(n != 1 for n in n_results), "runs", 0.0),
        row("runs_followed_live", n_followed, "runs"),
        row("live_records_unlike_the_result", n_differ, "runs", 0.0),
        row("faults", len(uids), "faults"),
    ]


def _answered(check: Any) -> bool:
    """A check that services which are still down answer with no."""
    import httpx

    from beamline_ml.errors import ServiceError

    try:
        return bool(check())
    except (httpx.HTTPError, ServiceError, KeyError):
        return False


if __name__ == "__main__":
    json.dump(rows(), sys.stdout, indent=1)
