"""Result files of APS 8-ID are read as they were meant, whichever generation wrote them."""

import h5py
import numpy as np
import pytest

from beamline_ml.errors import BudgetExceeded, FileMissing, FileRefused, FramesError, ResultError
from beamline_ml.frames import load_aps_result
from beamline_ml.results.aps import aps_bytes

N, N_Q, PERIOD_S = 20, 2, 0.01
Q = np.array([0.002, 0.004])
DELAYS = np.array([1, 2, 3, 4, 6, 8])


@pytest.fixture
def arrays():
    lag = np.abs(np.subtract.outer(np.arange(N), np.arange(N)))
    c2 = (1 + np.array([0.2, 0.1])[:, None, None] * np.exp(-lag / 5)).astype(np.float32)
    g2 = 1 + np.array([[0.2], [0.1]]) * np.exp(-DELAYS / 5)
    roi = np.zeros((12, 10), int)
    roi[:5], roi[7:] = 1, 2
    return {
        "c2": c2,
        "g2": g2,
        "g2_err": np.full_like(g2, 0.01),
        "delay_s": DELAYS * PERIOD_S,
        "q_inv_angstrom": Q,
        "intensity": np.ones((N_Q, N)),
        "roi_map": roi,
    }


METADATA = {
    "status": "complete",
    "scan_uid": "0a1b2c3d-0000-4000-8000-000000000000",
    "quality": {"time_binning": 3},
    "experiment": {
        "photon_energy_kev": 8.0,
        "detector_distance_m": 5.0,
        "pixel_size_m": 75e-6,
        "beam_center_row_px": 5.5,
        "beam_center_column_px": 4.5,
        "frame_period_s": PERIOD_S,
        "exposure_s": 0.009,
        "n_frames": 3 * N,
    },
}


@pytest.fixture
def path(tmp_path, arrays):
    file = tmp_path / "A001_results.hdf"
    file.write_bytes(aps_bytes(METADATA, arrays))
    return file


def edit(path, name, value=None):
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value


def test_what_was_written_is_read_back(path, arrays):
    result = load_aps_result(path)
    np.testing.assert_allclose(result.g2.g2, arrays["g2"], rtol=1e-6)
    np.testing.assert_allclose(result.g2.g2_err, arrays["g2_err"], rtol=1e-6)
    np.testing.assert_array_equal(result.g2.delay_frames, DELAYS)
    np.testing.assert_allclose(result.g2.delay_s, arrays["delay_s"])
    np.testing.assert_array_equal(result.g2.q_inv_angstrom, Q)
    np.testing.assert_array_equal(result.c2, arrays["c2"])
    assert result.c2_bins.tolist() == [1, 2]
    assert result.row_period_s == pytest.approx(3 * PERIOD_S)
    np.testing.assert_array_equal(result.qmap.labels, arrays["roi_map"])
    assert result.recorded.geometry.detector_distance_m == 5.0
    assert result.recorded.exposure_s == 0.009


def test_a_file_without_the_fields_of_the_newest(path):
    for name in ("xpcs/multitau/config", "xpcs/twotime", "xpcs/multitau/normalized_g2_err", "xpcs/qmap"):
        edit(path, name)
    edit(path, "entry/instrument/detector_1/frame_time", np.array([[PERIOD_S]]))
    edit(path, "xpcs/multitau/delay_list", DELAYS[None])
    result = load_aps_result(path)
    assert (result.c2, result.qmap) == (None, None)
    assert np.isnan(result.g2.g2_err).all()
    assert np.isnan(result.g2.q_inv_angstrom).all()
    np.testing.assert_allclose(result.g2.delay_s, DELAYS * PERIOD_S)


def test_a_file_with_two_time_functions_of_some_bins_only(path, arrays):
    for name in ("xpcs/multitau", "xpcs/twotime/correlation_map/c2_00002"):
        edit(path, name)
    edit(path, "xpcs/twotime/processed_bins", np.array([2]))
    result = load_aps_result(path)
    assert result.g2 is None
    assert result.c2_bins.tolist() == [2]
    np.testing.assert_array_equal(result.c2, arrays["c2"][:1])


def test_the_layout_before_2021(tmp_path, arrays):
    path = tmp_path / "old.hdf"
    with h5py.File(path, "w") as file:
        file["exchange/norm-0-g2"] = arrays["g2"].T
        file["exchange/norm-0-stderr"] = arrays["g2_err"].T
        file["exchange/tau"] = DELAYS[None].astype(float)
        file["exchange/C2T_all/g2_00001"] = np.triu(arrays["c2"][0])
        file["xpcs/dqlist"] = Q[None]
        file["xpcs/Version"] = "1.0"
        file["measurement/instrument/detector/exposure_period"] = np.array([[PERIOD_S]])
    result = load_aps_result(path)
    np.testing.assert_array_equal(result.g2.g2, arrays["g2"])
    np.testing.assert_array_equal(result.g2.q_inv_angstrom, Q)
    np.testing.assert_allclose(result.g2.delay_s, arrays["delay_s"])
    np.testing.assert_array_equal(result.c2, arrays["c2"][:1])
    assert result.row_period_s == PERIOD_S


def test_two_distances_that_disagree_are_told(path):
    edit(path, "entry/instrument/detector_1/detector_distance", 5.2)
    (note,) = load_aps_result(path).recorded.notes
    assert "5.2" in note
    assert "the first was used" in note


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("entry/instrument/detector_1/frame_time", 0.0, FramesError, "is 0 s"),
        ("entry/instrument/detector_1/frame_time", None, ResultError, "does not say its frame time"),
        ("xpcs/multitau/delay_list", DELAYS[1:], ResultError, "5 delays"),
        ("xpcs/multitau/normalized_g2_err", np.ones((6, 3)), ResultError, r"its error \(6, 3\)"),
        ("xpcs/multitau/normalized_g2", np.ones((6, 2), "S4"), FileRefused, "not plain numbers"),
        ("xpcs/twotime/processed_bins", np.arange(3), ResultError, "names 3 bins"),
        ("xpcs/twotime/correlation_map/c2_00002", np.ones((9, 9)), ResultError, "shapes"),
        ("xpcs/twotime/correlation_map/c2_00002", h5py.ExternalLink("other.h5", "/data"), FileRefused, "link out"),
    ],
)
def test_a_file_that_contradicts_itself(path, name, value, error, message):
    edit(path, name, value)
    with pytest.raises(error, match=message):
        load_aps_result(path)


def test_what_is_no_result(tmp_path, path):
    with pytest.raises(FileMissing, match="no result file"):
        load_aps_result(tmp_path / "absent.hdf")
    with h5py.File(tmp_path / "other.hdf", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(ResultError, match="holds neither"):
        load_aps_result(tmp_path / "other.hdf")
    with pytest.raises(BudgetExceeded, match="2 two-time functions of 20 rows"):
        load_aps_result(path, max_gib=1e-6)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(FramesError, match=r"cut off|no readable"):
        load_aps_result(path)
