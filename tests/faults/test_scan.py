"""A scan goes on undisturbed whatever dies, and all of it is in tiled afterwards, with one result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.faults.conftest import Beamline, Fitted
from tests.service.processes import eventually

NOT_WAITING_S = 5.0
"""Far above what a burst takes to begin and end on a busy machine, far below any time-out of a client: whoever waits
for a server that is down waits ten seconds at least. (The ratio itself is measured by the benchmark.)"""

When = Callable[[float, Callable[[], Any]], None]


def test_all_is_well(beamline: Beamline, fitted: Fitted) -> None:
    assert fitted.beyond_s < NOT_WAITING_S
    assert beamline.flow_runs(fitted.uid)[0] == "COMPLETED"
    assert beamline.statuses(fitted.uid)[0] == "complete"


def test_tiled_is_killed_in_the_middle(beamline: Beamline, when: When) -> None:
    when(1.0, lambda: beamline.kill("tiled"))
    uid, beyond_s = beamline.scan()
    assert beyond_s < NOT_WAITING_S
    beamline.wait_for_result(uid)
    assert len(beamline.results(uid)) == 1
    assert eventually(lambda: beamline.live_status(uid) in (None, "superseded"), 90.0)


def test_tiled_is_down_before_the_scan(beamline: Beamline) -> None:
    beamline.kill("tiled")
    uid, beyond_s = beamline.scan()
    assert beyond_s < NOT_WAITING_S
    beamline.wait_for_result(uid)
    assert len(beamline.results(uid)) == 1


def test_tiled_hangs_during_the_scan(beamline: Beamline) -> None:
    with beamline.frozen("tiled"):
        uid, beyond_s = beamline.scan()
    assert beyond_s < NOT_WAITING_S
    beamline.wait_for_result(uid)
    assert len(beamline.results(uid)) == 1


def test_prefect_is_killed_and_comes_back(beamline: Beamline) -> None:
    beamline.kill("prefect")
    uid, beyond_s = beamline.scan()
    assert beyond_s < NOT_WAITING_S
    beamline.wait_for_result(uid)
    assert len(beamline.results(uid)) == 1
    assert beamline.flow_runs(uid)[-1] == "COMPLETED"


def test_the_watcher_is_killed_during_the_scan_and_again_while_it_fits(beamline: Beamline, when: When) -> None:
    when(1.0, lambda: beamline.kill("watcher"))
    uid, beyond_s = beamline.scan()
    assert beyond_s < NOT_WAITING_S
    assert eventually(lambda: beamline.flow_runs(uid) != [], 120.0)
    beamline.kill("watcher")
    beamline.wait_for_result(uid)
    assert beamline.statuses(uid) == ["complete"]
    states = beamline.flow_runs(uid)
    assert states in (["COMPLETED"], ["CRASHED", "COMPLETED"])
