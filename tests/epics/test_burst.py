"""The unmodified areaDetector class of ophyd-async takes bursts from a soft IOC over Channel Access."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h5py
import numpy as np
import pytest

from beamline_ml.acquisition.raw_container import Connection
from beamline_ml.errors import AcquisitionError
from beamline_ml.results import Results
from flows.xpcs_fit import xpcs_fit
from tests.epics.conftest import (
    EXPOSURE_S,
    N_FRAMES,
    N_Q,
    PERIOD_S,
    RELAXATION_FRAMES,
    SAMPLE,
    SHAPE,
    Beamline,
    Documents,
)
from tests.service.processes import eventually

pytestmark = pytest.mark.slow

FRAMES = "/entry/data/data"


def frames_file(resource: dict[str, Any]) -> Path:
    return Path(urlsplit(resource["uri"]).path)


@pytest.fixture(scope="module")
def taken(beamline: Beamline) -> tuple[Documents, list[tuple[int, int]]]:
    """Documents of one burst; and, for each announcement of frames, how many it says and how many a reader finds."""
    seen: list[tuple[int, int]] = []
    paths: list[Path] = []

    def look(name: str, document: dict[str, Any]) -> None:
        if name == "stream_resource":
            paths.append(frames_file(document))
        if name == "stream_datum":
            with h5py.File(paths[0], swmr=True, libver="latest") as file:
                seen.append((document["indices"]["stop"], len(file[FRAMES])))

    return beamline.take(beamline.burst(), look), seen


@pytest.fixture
def raw(beamline: Beamline) -> Iterator[Any]:
    with closing(Connection(beamline.settings)) as connection:
        yield connection.container()


def run_of(raw: Any, uid: str) -> Any:
    """The run, once tiled has all of it: it is written beside the scan."""
    assert eventually(lambda: uid in raw and bool(raw[uid].metadata.get("stop")))
    return raw[uid]


def test_the_detector_is_the_class_of_ophyd_async_as_it_is(beamline: Beamline) -> None:
    # Slow to import, and every process of a test run imports this module.
    from ophyd_async.epics.adsimdetector import SimDetector

    assert type(beamline.profile["det"]) is SimDetector


def test_all_frames_are_in_the_catalogue_one_event_each(
    beamline: Beamline, taken: tuple[Documents, list[tuple[int, int]]], raw: Any
) -> None:
    start, stop = taken[0]["start"][0], taken[0]["stop"][0]
    run = run_of(raw, start["uid"])
    np.testing.assert_array_equal(run["primary"]["det"].read(), beamline.counts)
    assert (stop["exit_status"], stop["num_events"]) == ("success", {"primary": N_FRAMES})
    assert 0 < stop["time"] - start["time"] - N_FRAMES * PERIOD_S < 5.0


def test_frames_are_announced_while_they_come_and_are_there_for_readers(
    taken: tuple[Documents, list[tuple[int, int]]],
) -> None:
    documents, seen = taken
    assert len(seen) >= 3
    assert all(announced <= readable for announced, readable in seen)
    edges = [0, *(announced for announced, _ in seen)]
    assert [document["indices"]["start"] for document in documents["stream_datum"]] == edges[:-1]
    assert edges[-1] == N_FRAMES


def test_the_documents_say_what_the_analysis_needs(taken: tuple[Documents, list[tuple[int, int]]]) -> None:
    start, descriptor = taken[0]["start"][0], taken[0]["descriptor"][0]
    assert start["sample"] == SAMPLE
    assert start["xpcs"] == {
        "photon_energy_kev": 8.0,
        "detector_distance_m": 5.0,
        "pixel_size_m": 75e-6,
        "beam_center_row_px": 15.5,
        "beam_center_column_px": 11.5,
        "exposure_s": EXPOSURE_S,
        "frame_period_s": PERIOD_S,
        "n_frames": N_FRAMES,
        "detector": "det",
    }
    assert descriptor["configuration"]["det"]["data"] == {
        "det-driver-acquire_time": pytest.approx(EXPOSURE_S),
        "det-driver-acquire_period": pytest.approx(PERIOD_S),
    }
    assert descriptor["data_keys"]["det"]["shape"] == [1, *SHAPE]


@pytest.mark.usefixtures("prefect_server", "at_the_beamline")
def test_the_flow_finds_the_relaxation_times(
    taken: tuple[Documents, list[tuple[int, int]]], raw: Any, tiled_root: Any
) -> None:
    uid = taken[0]["start"][0]["uid"]
    run_of(raw, uid)
    result = Results(tiled_root["epics_fits"])[xpcs_fit(uid)]
    assert result.status == "complete"
    table = result.relaxation
    expected_s = RELAXATION_FRAMES * PERIOD_S / np.arange(1, N_Q + 1)
    assert np.abs((table["relaxation_time_s"] - expected_s) / table["relaxation_time_s_err"]).max() < 4
    assert result.c2.shape == (N_Q, N_FRAMES, N_FRAMES)
    assert result.metadata["provenance"]["frames_read_by"] == "file"
    assert result.metadata["warnings"] == []


def test_an_exposure_as_long_as_the_period_does_not_leave_the_old_period(beamline: Beamline) -> None:
    beamline.take(beamline.burst(2, 0.01, 0.5))
    documents = beamline.take(beamline.burst(20, 0.02, 0.02))
    told = documents["descriptor"][0]["configuration"]["det"]["data"]
    assert told["det-driver-acquire_period"] == pytest.approx(0.02)


def test_a_period_that_the_detector_cannot_keep_is_refused(beamline: Beamline) -> None:
    with pytest.raises(AcquisitionError, match=r"acquire_period of 0\.0005 s and keeps 0\.001 s") as failure:
        beamline.take(beamline.burst(10, 0.0004, 0.0005))
    assert "times that it can keep" in failure.value.remedy
    assert failure.value.documents["stop"][0]["exit_status"] == "fail"


def test_the_simulated_beamline_is_the_same_with_its_detector_behind_epics(
    own_process: dict[str, str], ioc: Any, speckle: np.ndarray, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "beamline_ml.acquisition.burst", "--json", "--n-frames", "40"]
    done = subprocess.run(command, env=own_process, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    burst = json.loads(done.stdout)
    assert (burst["n_frames"], burst["delivered"]) == (40, True)
    (path,) = (tmp_path / "raw").glob("*.h5")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file[FRAMES][:], speckle[:40])
