"""The play-back detector under a real RunEngine: its frames, its documents, its refusals."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky.utils import FailedStatus, RunEngineInterrupted

from beamline_ml.acquisition import MovieDetector, xpcs_burst
from beamline_ml.acquisition.frame_file import FRAMES, TIMESTAMPS
from beamline_ml.errors import AcquisitionError, FileMissing
from tests.acquisition.conftest import EXPOSURE_S, GEOMETRY, PERIOD_S, SAMPLE

Documents = dict[str, list[dict[str, Any]]]


def take(engine: RunEngine, detector: MovieDetector, n_frames: int, **changes: Any) -> Documents:
    documents: Documents = defaultdict(list)
    plan = {"exposure_s": EXPOSURE_S, "period_s": PERIOD_S, "sample": SAMPLE, "geometry": GEOMETRY, **changes}
    token = engine.subscribe(lambda name, doc: documents[name].append(doc))
    try:
        engine(xpcs_burst(n_frames, detector=detector, **plan))
    finally:
        engine.unsubscribe(token)
    return documents


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("*.h5")
    return path


def test_the_file_holds_the_movie_frame_for_frame_at_its_rate(
    run_engine: RunEngine, detector: MovieDetector, frames_folder: Path, counts: np.ndarray
) -> None:
    take(run_engine, detector, 100)
    with h5py.File(only_file(frames_folder)) as file:
        np.testing.assert_array_equal(file[FRAMES][:], counts[:100])
        np.testing.assert_allclose(np.diff(file[TIMESTAMPS][:]), PERIOD_S, rtol=1e-3)


def test_documents_announce_every_frame_once_and_in_order(run_engine: RunEngine, detector: MovieDetector) -> None:
    documents = take(run_engine, detector, 100)
    (resource,) = [doc for doc in documents["stream_resource"] if doc["data_key"] == "det"]
    ranges = [doc["indices"] for doc in documents["stream_datum"] if doc["stream_resource"] == resource["uid"]]
    assert len(ranges) >= 2, "frames are announced while the burst goes on"
    edges = [0, *(r["stop"] for r in ranges)]
    assert [r["start"] for r in ranges] == edges[:-1]
    assert edges[-1] == 100
    assert documents["stop"][0]["num_events"] == {"primary": 100}


def test_the_start_document_says_what_the_analysis_needs(run_engine: RunEngine, detector: MovieDetector) -> None:
    documents = take(run_engine, detector, 40, md={"proposal": 7, "technique": "overruled"})
    start = documents["start"][0]
    assert (start["plan_name"], start["technique"], start["proposal"]) == ("xpcs_burst", "xpcs", 7)
    assert start["sample"] == SAMPLE
    assert start["xpcs"] == {
        "photon_energy_kev": 8.0,
        "detector_distance_m": 5.0,
        "pixel_size_m": 75e-6,
        "beam_center_row_px": 7.5,
        "beam_center_column_px": 8.5,
        "exposure_s": EXPOSURE_S,
        "frame_period_s": PERIOD_S,
        "n_frames": 40,
        "detector": "det",
    }
    configuration = documents["descriptor"][0]["configuration"]["det"]["data"]
    assert configuration["det-beam_center_column_px"] == 8.5
    assert configuration["det-frame_period_s"] == PERIOD_S


def test_more_frames_than_the_movie_has_are_refused(run_engine: RunEngine, detector: MovieDetector) -> None:
    with pytest.raises(AcquisitionError, match=r"121 frames were asked for, and the movie movie\.h5 has 120"):
        take(run_engine, detector, 121)


def test_another_rate_than_the_movies_is_refused(run_engine: RunEngine, detector: MovieDetector) -> None:
    with pytest.raises(AcquisitionError, match=r"one frame every 0\.005 s"):
        take(run_engine, detector, 10, period_s=0.01)


def test_a_detector_without_movie_says_how_to_give_it_one(detector: MovieDetector, tmp_path: Path) -> None:
    detector.movie_path = None
    with pytest.raises(AcquisitionError, match="BEAMLINE_ML_ACQUISITION__MOVIE"):
        detector.header()
    detector.movie_path = tmp_path / "nowhere.h5"
    with pytest.raises(FileMissing, match=r"nowhere\.h5"):
        detector.header()


@pytest.mark.parametrize(("n_frames", "exposure_s"), [(0, 0.004), (10, 0.0), (10, 0.006)])
def test_a_burst_that_makes_no_sense_is_refused_before_it_begins(
    run_engine: RunEngine, detector: MovieDetector, n_frames: int, exposure_s: float
) -> None:
    with pytest.raises(AcquisitionError, match="make no burst"):
        take(run_engine, detector, n_frames, exposure_s=exposure_s)


def test_an_aborted_burst_leaves_a_readable_file_and_a_detector_that_works(
    run_engine: RunEngine, detector: MovieDetector, frames_folder: Path, counts: np.ndarray
) -> None:
    plan = xpcs_burst(120, EXPOSURE_S, PERIOD_S, sample="silica", detector=detector, geometry=GEOMETRY)
    threading.Timer(0.35, run_engine.request_pause).start()
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan)
    run_engine.abort()
    with h5py.File(only_file(frames_folder)) as file:
        n_written = file[FRAMES].shape[0]
        assert 0 < n_written < 120
        np.testing.assert_array_equal(file[FRAMES][:], counts[:n_written])
    assert take(run_engine, detector, 20)["stop"][0]["exit_status"] == "success"


def test_a_second_burst_without_staging_is_refused(run_engine: RunEngine, detector: MovieDetector) -> None:
    def twice() -> Any:
        yield from bps.stage(detector)
        yield from bps.trigger(detector, wait=True)
        yield from bps.trigger(detector, wait=True)

    with pytest.raises(FailedStatus) as failure:
        run_engine(twice())
    assert "one burst each time it is staged" in str(failure.value.__cause__)
    run_engine(bps.unstage(detector))
