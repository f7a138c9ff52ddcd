"""Runs of a real detector are followed while they go on, whatever dies, and the scan does not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.faults.conftest import N_FRAMES, Beamline, Fitted
from tests.faults.test_scan import NOT_WAITING_S
from tests.service.processes import eventually

When = Callable[[float, Callable[[], Any]], None]


def test_the_live_record_ends_equal_to_the_final_result(beamline: Beamline, fitted: Fitted) -> None:
    assert eventually(lambda: beamline.live_status(fitted.uid) == "superseded", 60.0)
    with beamline.catalogue() as catalogue:
        (live,) = (node for node in catalogue.live.values() if node.metadata["scan_uid"] == fitted.uid)
        final = catalogue.results[live.metadata["result_key"]]
        assert live.metadata["health"]["frames_correlated"] == N_FRAMES
        np.testing.assert_array_equal(live["c2"].read(), final["c2"].read())


def test_the_follower_is_killed_during_the_scan(beamline: Beamline, when: When) -> None:
    when(1.0, beamline.kill_followers)
    uid, beyond_s = beamline.scan(N_FRAMES)
    assert beyond_s < NOT_WAITING_S
    beamline.wait_for_result(uid)
    assert eventually(lambda: beamline.followers() != [], 60.0)
    assert beamline.statuses(uid) == ["complete"]
