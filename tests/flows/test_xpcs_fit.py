"""The flow brings a run to its result, once; and what it refuses, it says, without harm to the next run."""

import h5py
import numpy as np
import pytest

from beamline_ml.correlation import QMap
from beamline_ml.errors import (
    BudgetExceeded,
    FileMissing,
    GeometryError,
    MetadataMissing,
    RunAborted,
    RunNotFound,
    SettingsError,
    StreamMissing,
)
from flows.xpcs_fit import xpcs_fit
from tests.conftest import XPCS
from tests.flows.conftest import GEOMETRY, N_Q, RELAXATION_FRAMES, SHAPE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


def test_a_run_becomes_a_result(take_burst, beamline):
    run = take_burst(scan_id=501, sample={"name": "latex", "composition": "C8H8"})
    key = xpcs_fit(run.metadata["start"]["uid"])
    result = beamline[key]
    assert key == f"501_latex_{run.metadata['start']['uid'][:8]}"
    assert result.status == "complete"
    table = result.relaxation
    expected = RELAXATION_FRAMES * XPCS["frame_period_s"] / np.arange(1, N_Q + 1)
    off = (table["relaxation_time_s"] - expected) / table["relaxation_time_s_err"]
    assert np.abs(off).max() < 4
    assert result.c2.shape == (N_Q, 160, 160)
    assert result.metadata["flow_run_id"]
    assert result.metadata["provenance"]["frames_read_by"] == "file"
    assert set(result.metadata["timings_s"]) >= {"look_up", "correlate", "fit", "publish"}
    assert result.metadata["versions"]["torch"]
    assert result.headline["forecast_refused"] == "No dynamics fit was asked for (model = none)."


def test_the_same_question_again_gives_the_same_result(take_burst, beamline):
    uid = take_burst(scan_id=502).metadata["start"]["uid"]
    first = beamline[xpcs_fit(uid)]
    again = beamline[xpcs_fit(uid[:8])]
    assert again.key == first.key
    assert again.metadata["published_at"] == first.metadata["published_at"]
    assert len(beamline.of_run(uid)) == 1


def test_another_question_gives_another_result_beside_the_first(take_burst, beamline, tmp_path):
    uid = take_burst(scan_id=503).metadata["start"]["uid"]
    mask = np.ones((32, 24), bool)
    mask[:, :12] = False
    np.save(tmp_path / "mask.npy", mask)
    first = beamline[xpcs_fit("503")]
    half = beamline[xpcs_fit("503", mask=str(tmp_path / "mask.npy"))]
    late = beamline[xpcs_fit("503", first_frame=80, n_q=2)]
    assert len({first.key, half.key, late.key}) == 3
    assert {result.scan_uid for result in (first, half, late)} == {uid}
    assert late.c2.shape == (2, 80, 80)
    assert late.age_s[0] == pytest.approx(0.8)
    assert np.count_nonzero(half["roi_map"].read()[:, :12]) == 0
    np.save(tmp_path / "mask.npy", ~mask)
    assert xpcs_fit("503", mask=str(tmp_path / "mask.npy")) not in {first.key, half.key}


@pytest.mark.parametrize(
    ("told", "error", "said"),
    [
        ({"xpcs": {k: v for k, v in XPCS.items() if k != "beam_center_row_px"}}, MetadataMissing, "beam_center_row_px"),
        ({"n_frames": 12, "exit_status": "abort"}, RunAborted, "'abort' after 12 frames"),
    ],
    ids=["no beam centre", "aborted"],
)
def test_what_is_refused_is_said_where_the_result_would_be(take_burst, beamline, told, error, said):
    uid = take_burst(scan_id=504, **told).metadata["start"]["uid"]
    with pytest.raises(error, match=said):
        xpcs_fit(uid)
    (failed,) = beamline.of_run(uid)
    assert failed.status == "failed"
    assert said in failed.error["culprit"]
    assert failed.error["remedy"]
    assert list(failed) == []


def test_a_run_without_detector_stream(record_run, beamline):
    uid = record_run(None, scan_id=505).metadata["start"]["uid"]
    with pytest.raises(StreamMissing, match="no stream with area-detector frames"):
        xpcs_fit(uid)
    assert [result.status for result in beamline.of_run(uid)] == ["failed"]


def test_a_missing_file_fails_plainly_and_a_later_attempt_succeeds(take_burst, write_frames, burst_counts, beamline):
    run = take_burst(scan_id=506)
    uid = run.metadata["start"]["uid"]
    path = write_frames(burst_counts)
    hidden = path.with_suffix(".away")
    path.rename(hidden)
    with pytest.raises(FileMissing, match="is not there"):
        xpcs_fit(uid)
    with pytest.raises(FileMissing, match="is not there"):
        xpcs_fit(uid)
    (failed,) = beamline.of_run(uid)
    assert failed.metadata["attempts"] == 2
    hidden.rename(path)
    xpcs_fit(uid)
    assert [result.status for result in beamline.of_run(uid)] == ["complete"]


def test_a_failure_does_not_touch_the_next_run(take_burst, record_run, beamline):
    with pytest.raises(StreamMissing):
        xpcs_fit(record_run(None).metadata["start"]["uid"])
    assert beamline[xpcs_fit(take_burst(scan_id=507).metadata["start"]["uid"])].status == "complete"


def test_dynamics_that_cannot_be_fitted_still_leave_correlation_and_the_reason(record_run, write_frames, beamline):
    noise = np.random.default_rng(3).poisson(4.0, (64, *SHAPE)).astype(np.uint16)
    run = record_run(write_frames(noise), shape=noise.shape, scan_id=513)
    result = beamline[xpcs_fit(run.metadata["start"]["uid"], model="neural_ode")]
    assert result.status == "complete"
    assert result.c2.shape == (N_Q, 64, 64)
    assert result.forecast is None
    assert result.kernel is None
    assert "No q ring shows a correlation above its noise" in result.headline["forecast_refused"]
    assert "No forecast to rely on" in result.summary()
    assert all(result.relaxation["refused"])


def test_a_run_that_is_not_there_leaves_nothing(beamline):
    before = len(beamline.container)
    with pytest.raises(RunNotFound, match="No run in the catalogue answers to 'ffffffff'"):
        xpcs_fit("ffffffff")
    assert len(beamline.container) == before


def test_parameters_that_make_no_sense(take_burst, beamline):
    uid = take_burst(scan_id=508).metadata["start"]["uid"]
    with pytest.raises(SettingsError, match="n_q"):
        xpcs_fit(uid, n_q=0)
    with pytest.raises(SettingsError, match="normalization"):
        xpcs_fit(uid, normalization="fancy")
    with pytest.raises(FileMissing, match="q-map"):
        xpcs_fit(uid, qmap="/nowhere/map.h5")


def test_a_transposed_mask_is_refused_naming_both_shapes(take_burst, beamline, tmp_path):
    uid = take_burst(scan_id=509).metadata["start"]["uid"]
    np.save(tmp_path / "mask.npy", np.ones((24, 32)))
    with pytest.raises(GeometryError, match=r"\(32, 24\).*\(24, 32\).*transposed"):
        xpcs_fit(uid, mask=str(tmp_path / "mask.npy"))


def test_frames_that_only_tiled_can_read(take_burst, beamline, monkeypatch, tmp_path):
    run = take_burst(scan_id=510)
    monkeypatch.setenv("BEAMLINE_ML_DATA__ALLOWED_ROOTS", f'["{tmp_path}"]')
    result = beamline[xpcs_fit(run.metadata["start"]["uid"])]
    assert result.metadata["provenance"]["frames_read_by"] == "tiled"


def test_a_qmap_file_without_q_takes_it_from_the_runs_geometry(take_burst, beamline, tmp_path):
    rings = QMap.from_geometry(GEOMETRY, SHAPE, n_q=2)
    with h5py.File(tmp_path / "map.h5", "w") as file:
        file.create_dataset("qmap/dynamic_roi_map", data=rings.labels)
    uid = take_burst(scan_id=511).metadata["start"]["uid"]
    result = beamline[xpcs_fit(uid, qmap=str(tmp_path / "map.h5"))]
    np.testing.assert_allclose(result.q_inv_angstrom, rings.q_inv_angstrom)
    with h5py.File(tmp_path / "map.h5", "r+") as file:
        file.create_dataset("qmap/dynamic_v_list_dim0", data=rings.q_inv_angstrom * 1.5)
    other = beamline[xpcs_fit(uid, qmap=str(tmp_path / "map.h5"))]
    assert "differ by up to 50%" in other.warnings[0]


def test_two_time_functions_beyond_the_memory_are_refused_before_reading(take_burst, beamline, monkeypatch):
    monkeypatch.setenv("BEAMLINE_ML_DATA__MAX_GIB", str(3 * 100**2 * 12 / 2**30))
    uid = take_burst(scan_id=512).metadata["start"]["uid"]
    with pytest.raises(BudgetExceeded, match="at most 100 frames"):
        xpcs_fit(uid)
