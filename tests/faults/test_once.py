"""One finished run gives one result, however often and by whomever it is asked for."""

from __future__ import annotations

import time

import pytest

from beamline_ml.service.catch_up import submit_missing_fits
from beamline_ml.service.fitting import FitRequest, fit_and_report
from beamline_ml.service.trigger import fit_here
from tests.faults.conftest import Beamline, Fitted
from tests.service.processes import eventually


def test_asking_again_through_a_worker_changes_nothing(beamline: Beamline, fitted: Fitted) -> None:
    before = beamline.results(fitted.uid)
    told = fit_and_report(beamline.stack.settings, FitRequest(fitted.uid, {}, wait_s=120.0))
    assert [result["scan_uid"] for result in told["results"]] == [fitted.uid]
    assert told["results"][0]["status"] == "complete"
    assert beamline.results(fitted.uid) == before


def test_asking_again_from_python_changes_nothing(
    beamline: Beamline, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEAMLINE_ML_STATE_DIR", str(beamline.stack.state.root))
    monkeypatch.setenv("BEAMLINE_ML_ANALYSIS__MODEL", "none")
    before = beamline.results(fitted.uid)
    fit_here(beamline.stack.settings, fitted.uid)
    assert beamline.results(fitted.uid) == before


def test_other_settings_give_a_second_result_beside_the_first(beamline: Beamline, fitted: Fitted) -> None:
    request = FitRequest(fitted.uid, {"last_frame": 150}, wait_s=120.0)
    (told,) = fit_and_report(beamline.stack.settings, request)["results"]
    assert told["settings"]["last_frame"] == 150
    assert beamline.statuses(fitted.uid) == ["complete", "complete"]


def test_catching_up_finds_nothing_when_all_is_done(beamline: Beamline, fitted: Fitted) -> None:
    assert submit_missing_fits(beamline.stack.settings, days=1.0) == []
    states = beamline.flow_runs(fitted.uid)
    time.sleep(2.0)
    assert beamline.flow_runs(fitted.uid) == states


def test_a_fit_that_nobody_does_is_caught_up_by_a_worker_and_left_alone_by_the_watcher(beamline: Beamline) -> None:
    with beamline.frozen("watcher"):
        uid, _ = beamline.scan()

        def submitted() -> bool:
            return uid in submit_missing_fits(beamline.stack.settings, days=1.0)

        assert eventually(submitted, 60.0)
        beamline.wait_for_result(uid)
    time.sleep(3.0)
    assert beamline.flow_runs(uid) == ["COMPLETED"]
    assert len(beamline.results(uid)) == 1
