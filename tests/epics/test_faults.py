"""What goes wrong between a profile and its IOC is said plainly, and the next burst works."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ophyd_async.plan_stubs import ensure_connected

from beamline_ml.acquisition import connect_area_detector, plans
from beamline_ml.acquisition.raw_container import Connection
from beamline_ml.errors import AcquisitionError
from beamline_ml.service.doctor import check_detector
from beamline_ml.settings import AcquisitionSettings, Settings
from tests.epics.conftest import EXPOSURE_S, GEOMETRY, N_FRAMES, PERIOD_S, PREFIX, SAMPLE, Beamline
from tests.service.processes import eventually

pytestmark = pytest.mark.slow


def with_prefix(prefix: str | None) -> Settings:
    return Settings(acquisition=AcquisitionSettings(detector_prefix=prefix))


def frames_in_the_catalogue(
    beamline: Beamline, uid: str, n_frames: int | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """First frames and stop document of a run, once tiled has it all."""
    with closing(Connection(beamline.settings)) as connection:
        raw = connection.container()
        assert eventually(lambda: uid in raw and bool(raw[uid].metadata.get("stop")))
        return raw[uid]["primary"]["det"][:n_frames], dict(raw[uid].metadata["stop"])


def test_the_ioc_dies_in_the_middle_and_the_next_burst_works_with_a_new_one(beamline: Beamline) -> None:
    announced: list[int] = []
    restart = threading.Thread(target=beamline.ioc.restart)

    def look(name: str, document: dict[str, Any]) -> None:
        if name == "stream_datum":
            announced.append(document["indices"]["stop"])
            if len(announced) == 2:
                beamline.ioc.kill()
        if name == "stop":
            restart.start()

    with pytest.raises(AcquisitionError, match="det stopped answering") as failure:
        beamline.take(beamline.burst(), look)
    restart.join()
    documents = failure.value.documents
    assert "Look whether its IOC runs" in failure.value.remedy
    frames, stop = frames_in_the_catalogue(beamline, documents["start"][0]["uid"], announced[1])
    assert (stop["exit_status"], stop["num_events"]) == ("fail", {"primary": announced[-1]})
    assert "det stopped answering" in stop["reason"]
    assert 0 < len(frames) == announced[1] < N_FRAMES
    np.testing.assert_array_equal(frames, beamline.counts[: len(frames)])

    # The client looks for lost records at growing intervals; a scan would wait ten seconds for each.
    beamline.profile["RE"](ensure_connected(beamline.profile["det"], timeout=60.0, force_reconnect=True))
    documents = beamline.take(beamline.burst(40))
    frames, stop = frames_in_the_catalogue(beamline, documents["start"][0]["uid"])
    assert stop["exit_status"] == "success"
    np.testing.assert_array_equal(frames, beamline.counts[:40])


def test_a_folder_that_is_not_there_is_named(beamline: Beamline, frames_folder: Path) -> None:
    nowhere = frames_folder / "nowhere"
    det = connect_area_detector(with_prefix(PREFIX), nowhere)
    plan = plans.xpcs_burst(20, EXPOSURE_S, PERIOD_S, sample=SAMPLE, detector=det, geometry=GEOMETRY)
    with pytest.raises(AcquisitionError, match=f"cannot write there: .*{nowhere}") as failure:
        beamline.take(plan)
    assert "Make that folder" in failure.value.remedy
    (stop,) = failure.value.documents["stop"]
    assert stop["exit_status"] == "fail"
    assert str(nowhere) in stop["reason"]
    assert beamline.take(beamline.burst(10))["stop"][0]["exit_status"] == "success"


def test_an_ioc_that_is_not_there_is_named_when_the_profile_starts(beamline: Beamline, tmp_path: Path) -> None:
    with pytest.raises(AcquisitionError, match="areaDetector IOC NOBODY: do not answer") as failure:
        connect_area_detector(with_prefix("NOBODY:"), tmp_path, timeout_s=1.0)
    assert "EPICS_CA_ADDR_LIST" in failure.value.remedy


def test_doctor_asks_the_ioc(ioc: Any) -> None:
    (answers,) = check_detector(with_prefix(PREFIX))
    assert (answers.status, answers.finding) == ("ok", f"the areaDetector IOC {PREFIX} answers")
    (movie,) = check_detector(with_prefix(None))
    assert "movie" in movie.finding


def test_doctor_names_the_extra_where_there_is_no_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for client in ("aioca", "p4p"):
        (tmp_path / f"{client}.py").write_text("raise ImportError('not installed')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    (missing,) = check_detector(with_prefix(PREFIX))
    assert (missing.status, missing.finding) == ("fail", f"No EPICS client is installed to reach {PREFIX} with.")
    assert "beamline-ml[epics]" in missing.remedy
