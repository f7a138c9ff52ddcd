"""Runs of a real detector are followed while they go on, whatever dies, and the scan does not notice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from beamline_ml.service.reaper import marked
from tests.faults.conftest import N_FRAMES, Beamline
from tests.faults.test_scan import NOT_WAITING_S
from tests.service.processes import eventually

When = Callable[[float, Callable[[], Any]], None]


def followers(beamline: Beamline) -> list[int]:
    """Process ids of the process that follows runs."""
    pids = marked(beamline.stack._token)

    def says(pid: int) -> bytes:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return file.read()
        except OSError:
            return b""

    return [pid for pid in pids if b"beamline_ml.live.resident" in says(pid)]


def require_equal_to_final(beamline: Beamline, uid: str) -> None:
    beamline.wait_for_result(uid)
    assert eventually(lambda: beamline.live_status(uid) == "superseded", 60.0)
    with beamline.catalogue() as catalogue:
        (live,) = (node for node in catalogue.live.values() if node.metadata["scan_uid"] == uid)
        (final,) = catalogue.results_of(uid)
        assert live.metadata["result_key"] == final.item["id"]
        assert live.metadata["health"]["frames_correlated"] == N_FRAMES
        np.testing.assert_array_equal(live["c2"].read(), final["c2"].read())


def test_the_live_record_ends_equal_to_the_final_result(beamline: Beamline) -> None:
    assert eventually(lambda: followers(beamline) != [], 30.0)
    time.sleep(5.0)  # until it has imported what it needs
    uid, beyond_s = beamline.scan()
    assert beyond_s < NOT_WAITING_S
    require_equal_to_final(beamline, uid)


def test_the_follower_is_killed_during_the_scan(beamline: Beamline, when: When) -> None:
    def kill() -> None:
        for pid in followers(beamline):
            os.kill(pid, signal.SIGKILL)

    when(1.0, kill)
    uid, beyond_s = beamline.scan(N_FRAMES)
    assert beyond_s < NOT_WAITING_S
    beamline.wait_for_result(uid)
    assert eventually(lambda: followers(beamline) != [], 60.0)
    assert beamline.statuses(uid) == ["complete"]
