"""A detector file and a q-map make an APS result file, without a run and without a server."""

import json

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from beamline_ml.cli import app
from beamline_ml.correlation import QMap, multi_tau, two_time
from beamline_ml.errors import BudgetExceeded, GeometryError, SettingsError
from beamline_ml.frames import load_aps_result
from beamline_ml.frames.movie import write_movie
from beamline_ml.records import Geometry
from beamline_ml.service.file_correlation import FileRequest, correlate_file
from tests.frames.eiger_files import write_eiger

ROWS, COLS, N, PERIOD_S = 32, 24, 60, 0.02
GEOMETRY = Geometry(8.0, 4.0, 75e-6, 15.5, 11.5)


@pytest.fixture(scope="module")
def counts():
    """Speckle that forgets itself within some ten frames."""
    random = np.random.default_rng(4)
    field = np.zeros((2, ROWS, COLS))
    frames = []
    for _ in range(N):
        field = 0.95 * field + np.sqrt(1 - 0.95**2) * random.normal(size=field.shape)
        frames.append(random.poisson(2 * (field**2).sum(axis=0) / 2))
    return np.array(frames).astype(np.uint16)


@pytest.fixture(scope="module")
def labels():
    row, column = np.mgrid[:ROWS, :COLS]
    radius = np.hypot(row - 15.5, column - 11.5)
    static = np.where((radius > 2) & (radius < 11), ((radius - 2) / 9 * 6).astype(int) + 1, 0)
    return (static + 2) // 3, static


@pytest.fixture
def qmap(tmp_path, labels):
    dynamic, static = labels
    fields = {"dynamic_roi_map": dynamic, "static_roi_map": static, "mask": np.ones((ROWS, COLS), bool)}
    for kind, n in (("dynamic", 2), ("static", 6)):
        fields |= {
            f"{kind}_v_list_dim0": np.linspace(1e-3, 3e-3, n),
            f"{kind}_v_list_dim1": np.zeros(1),
            f"{kind}_num_pts": np.array([n, 1]),
            f"{kind}_index_mapping": np.arange(n),
        }
    fields |= {"beam_center_x": 11.5, "beam_center_y": 15.5, "pixel_size": 75e-6, "detector_distance": 4.0}
    fields |= {"energy": 8.0, "map_names": ["q", "phi"], "map_units": ["1/A", "deg"]}
    with h5py.File(tmp_path / "map.hdf", "w") as file:
        for name, value in fields.items():
            file[f"qmap/{name}"] = value
    return tmp_path / "map.hdf"


def test_a_movie_gives_g2_and_two_time_functions(tmp_path, counts, labels, qmap):
    write_movie(tmp_path / "A001.h5", counts, GEOMETRY, PERIOD_S, 0.019, {"name": "silica"})
    out = tmp_path / "out.hdf"
    done = CliRunner().invoke(
        app, ["correlate", str(tmp_path / "A001.h5"), "--qmap", str(qmap), "--out", str(out), "--json"]
    )
    report = json.loads(done.stdout)
    assert (report["result"], report["n_frames"], report["q_bins"], report["notes"]) == (str(out), N, 2, [])
    result = load_aps_result(out)
    used = QMap(*labels)
    expected = multi_tau(counts, used, PERIOD_S)
    np.testing.assert_allclose(result.g2.g2, expected.g2, rtol=1e-6)
    np.testing.assert_allclose(result.g2.g2_err, expected.g2_err, rtol=1e-6)
    np.testing.assert_array_equal(result.c2, two_time(counts, used, frame_period_s=PERIOD_S).c2)
    np.testing.assert_array_equal(result.g2.q_inv_angstrom, [1e-3, 3e-3])
    assert result.recorded.geometry == GEOMETRY
    with h5py.File(out) as file:
        assert file["xpcs/rawdata_path"].asstr()[()] == str(tmp_path / "A001.h5")
        ring = counts[:, labels[1] == 3].mean()
        assert file["xpcs/temporal_mean/scattering_1d"][0, 2] == pytest.approx(ring, rel=1e-6)
        np.testing.assert_array_equal(file["xpcs/qmap/static_roi_map"][()], labels[1])


def test_an_eiger_series_without_the_pixels_of_its_mask(tmp_path, counts, labels, qmap):
    mask = np.zeros((ROWS, COLS), np.uint32)
    mask[10:12] = 1
    master = write_eiger(tmp_path, counts, (50, 10), mask=mask)
    report = correlate_file(FileRequest(master, qmap, tmp_path / "out.hdf"))
    assert report["bad_pixels"] == int((labels[0][10:12] > 0).sum())
    expected = multi_tau(counts, QMap(*labels).without(mask != 0), PERIOD_S)
    np.testing.assert_allclose(load_aps_result(tmp_path / "out.hdf").g2.g2, expected.g2, rtol=1e-6)


@pytest.mark.parametrize("n_frames", [500, 4000])
def test_photon_events_give_the_g2_of_the_frames_that_they_make(tmp_path, n_frames):
    """A short run also gets two-time functions; a long one is correlated photon by photon."""
    random = np.random.default_rng(6)
    frame, pixel = np.sort(random.integers(0, 500, 20000)), random.integers(0, 2000, 20000)
    words = (frame.astype(np.uint64) << np.uint64(40)) | (pixel.astype(np.uint64) << np.uint64(16)) | np.uint64(1)
    words.tofile(tmp_path / "B002.bin")
    labels = np.zeros((512, 1024), int)
    labels[0, :1000], labels[1, :900] = 1, 2
    geometry = {"energy": 8.0, "detector_distance": 4.0, "pixel_size": 75e-6}
    with h5py.File(tmp_path / "map.h5", "w") as file:
        fields = {"dynamic_roi_map": labels, **geometry, "beam_center_x": 500.0, "beam_center_y": 200.0}
        for name, value in fields.items():
            file[f"qmap/{name}"] = value
    out = tmp_path / "out.hdf"
    request = FileRequest(tmp_path / "B002.bin", tmp_path / "map.h5", out, frame_period_s=2e-5, n_frames=n_frames)
    report = correlate_file(request)
    assert (report["two_time"], report["n_frames"]) == (n_frames == 500, n_frames)
    # Only the rows with bins matter, and fewer pixels make a quicker reference.
    frames = np.zeros((n_frames, 2 * 1024), np.uint16)
    np.add.at(frames, (frame, pixel), 1)
    expected = multi_tau(frames.reshape(n_frames, 2, 1024), QMap(labels[:2]), 2e-5)
    np.testing.assert_allclose(load_aps_result(out).g2.g2, expected.g2, rtol=1e-6)
    with h5py.File(out) as file:
        over_time = file["xpcs/spatial_mean/intensity_vs_time"][1]
        np.testing.assert_allclose(over_time, frames[:, labels[:2].ravel() > 0].mean(1), rtol=1e-6)


def test_a_damaged_frame_number_does_not_fill_the_memory(tmp_path):
    np.array([1 << 16 | 1, (2**24 - 1) << 40 | 1 << 16 | 1], "<u8").tofile(tmp_path / "B003.bin")
    with h5py.File(tmp_path / "map.h5", "w") as file:
        geometry = {
            "energy": 8.0,
            "detector_distance": 4.0,
            "pixel_size": 75e-6,
            "beam_center_x": 1,
            "beam_center_y": 1,
        }
        for name, value in {"dynamic_roi_map": np.arange(2**19).reshape(512, 1024) % 9, **geometry}.items():
            file[f"qmap/{name}"] = value
    with pytest.raises(BudgetExceeded, match="16777216 frames in 8 static bins"):
        correlate_file(FileRequest(tmp_path / "B003.bin", tmp_path / "map.h5", frame_period_s=2e-5))


def test_pyxpcsviewer_opens_it(tmp_path, counts, qmap, seen_by_viewer):
    write_movie(tmp_path / "A001.h5", counts, GEOMETRY, PERIOD_S, 0.019, {"name": "silica"})
    correlate_file(FileRequest(tmp_path / "A001.h5", qmap, tmp_path / "out.hdf"))
    seen, result = seen_by_viewer(tmp_path / "out.hdf"), load_aps_result(tmp_path / "out.hdf")
    np.testing.assert_allclose(seen["g2"], result.g2.g2.T)
    np.testing.assert_allclose(seen["saxs_q"], np.linspace(1e-3, 3e-3, 6))
    assert [label.split()[0] for label in seen["labels"]] == ["qbin=1,", "qbin=2,"]


def test_a_run_too_long_for_two_time_functions_says_so(tmp_path, counts, qmap):
    write_movie(tmp_path / "A001.h5", counts, GEOMETRY, PERIOD_S, 0.019, {"name": "silica"})
    report = correlate_file(FileRequest(tmp_path / "A001.h5", qmap, tmp_path / "out.hdf", max_gib=60e3 / 2**30))
    assert not report["two_time"]
    assert "60 frames" in report["notes"][0]


def test_two_distances_that_disagree_are_told(tmp_path, counts, qmap):
    off = Geometry(8.0, 5.0, 75e-6, 15.5, 11.5)
    write_movie(tmp_path / "A001.h5", counts, off, PERIOD_S, 0.019, {"name": "silica"})
    report = correlate_file(FileRequest(tmp_path / "A001.h5", qmap, tmp_path / "out.hdf"))
    (note,) = report["notes"]
    assert "detector_distance_m = 4, the detector file 5; that of the q-map was used" in note
    assert load_aps_result(tmp_path / "out.hdf").recorded.detector_distance_m == 4.0


def test_what_cannot_be_correlated_says_why(tmp_path, counts, qmap):
    np.save(tmp_path / "frames.npy", counts)
    with pytest.raises(SettingsError, match="--frame-period-s"):
        correlate_file(FileRequest(tmp_path / "frames.npy", qmap))
    with pytest.raises(SettingsError, match="would replace"):
        correlate_file(FileRequest(tmp_path / "frames.npy", qmap, tmp_path / "frames.npy"))
    np.save(tmp_path / "turned.npy", np.swapaxes(counts, 1, 2))
    with pytest.raises(GeometryError, match="transposed"):
        correlate_file(FileRequest(tmp_path / "turned.npy", qmap, frame_period_s=PERIOD_S))
    with h5py.File(qmap, "r+") as file:
        del file["qmap/detector_distance"]
    with pytest.raises(GeometryError, match=r"Neither frames\.npy nor map\.hdf says detector_distance_m"):
        correlate_file(FileRequest(tmp_path / "frames.npy", qmap, frame_period_s=PERIOD_S))
    with h5py.File(qmap, "r+") as file:
        del file["qmap/map_names"]
        file["qmap/map_names"] = [1.0, 2.0]
    with pytest.raises(GeometryError, match="names of two axes"):
        correlate_file(FileRequest(tmp_path / "frames.npy", qmap, frame_period_s=PERIOD_S))
