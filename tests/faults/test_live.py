"""Runs of a real detector are followed while they go on, whatever dies, and the scan does not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.faults.conftest import N_FRAMES, PERIOD_S, Beamline, Fitted
from tests.faults.test_scan import NOT_WAITING_S
from tests.service.processes import eventually

When = Callable[[float, Callable[[], Any]], None]


def require_record_like_the_result(beamline: Beamline, uid: str) -> None:
    """The live record of a run, which must exist, has ended equal to the final result."""
    assert eventually(lambda: beamline.live_status(uid) == "superseded", 120.0)
    with beamline.catalogue() as catalogue:
        (live,) = (node for node in catalogue.live.values() if node.metadata["scan_uid"] == uid)
        final = catalogue.results[live.metadata["result_key"]]
        assert live.metadata["health"]["frames_correlated"] == N_FRAMES
        np.testing.assert_array_equal(live["c2"].read(), final["c2"].read())


def test_the_live_record_ends_equal_to_the_final_result(beamline: Beamline, fitted: Fitted) -> None:
    require_record_like_the_result(beamline, fitted.uid)


def test_the_follower_is_killed_during_the_scan(beamline: Beamline, when: When) -> None:
    beamline.wait_for_follower()
    when(1.7, beamline.kill_followers)
    uid, beyond_s = beamline.scan(N_FRAMES)
    assert beyond_s < NOT_WAITING_S
    beamline.wait_for_result(uid)
    assert eventually(lambda: beamline.followers() != [], 60.0)
    assert beamline.statuses(uid) == ["complete"]
    if beamline.live_status(uid) is not None:  # else it was killed before it knew the run
        require_record_like_the_result(beamline, uid)


def test_a_run_whose_end_was_missed_is_followed_to_it_afterwards(beamline: Beamline, when: When) -> None:
    beamline.wait_for_follower()
    when(N_FRAMES * PERIOD_S - 0.1, lambda: beamline.kill("tiled"))
    uid, beyond_s = beamline.scan(N_FRAMES)
    assert beyond_s < NOT_WAITING_S
    beamline.wait_for_result(uid)
    require_record_like_the_result(beamline, uid)
