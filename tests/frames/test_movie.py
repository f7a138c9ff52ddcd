"""A movie file keeps frames, geometry, timing and sample; other areaDetector files open with stated assumptions."""

import h5py
import numpy as np
import pytest

from beamline_ml.errors import FileMissing, FramesError
from beamline_ml.frames.movie import DATA, TIMESTAMPS, open_movie, write_movie
from beamline_ml.records import Geometry

GEOMETRY = Geometry(8.0, 10.0, 2e-5, 30.5, 31.25)


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(0).poisson(2.0, (20, 64, 48)).astype(np.uint16)


def test_round_trip(tmp_path, counts):
    path = tmp_path / "movie.h5"
    write_movie(path, counts, GEOMETRY, 0.02, 0.018, {"name": "swarm", "composition": "SiO2"})
    with open_movie(path) as movie:
        assert (movie.n_frames, movie.frame_shape, movie.dtype) == (20, (64, 48), np.uint16)
        assert movie.geometry == GEOMETRY
        assert (movie.frame_period_s, movie.exposure_s) == (0.02, 0.018)
        assert movie.sample["composition"] == "SiO2"
        assert movie.assumed == ()
        np.testing.assert_array_equal(movie.read(3, 9), counts[3:9])
        with pytest.raises(FramesError, match="which has 20"):
            movie.read(10, 21)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["movie.h5"]


def test_plain_area_detector_file_opens_and_says_what_was_assumed(tmp_path, counts):
    path = tmp_path / "scan7.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(DATA, data=counts)
        file.create_dataset(TIMESTAMPS, data=1e9 + 0.005 * np.arange(20))
    with open_movie(path) as movie:
        assert movie.frame_period_s == pytest.approx(0.005, rel=1e-3)
        assert movie.geometry.beam_center_row_px == 31.5
        assert movie.sample["name"] == "scan7"
        assert any(line.startswith("incident_energy") for line in movie.assumed)


@pytest.mark.parametrize("bad", ["floats", "flat", "nothing"])
def test_files_without_frames_are_refused(tmp_path, bad):
    path = tmp_path / "bad.h5"
    with h5py.File(path, "w") as file:
        if bad == "floats":
            file.create_dataset(DATA, data=np.zeros((2, 3, 4)))
        if bad == "flat":
            file.create_dataset(DATA, data=np.zeros((3, 4), np.uint16))
    with pytest.raises(FramesError, match="no integer frames"):
        open_movie(path)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(FileMissing):
        open_movie(tmp_path / "nowhere.h5")
    (tmp_path / "text.h5").write_text("no HDF5 here")
    with pytest.raises(FramesError, match="no HDF5 file"):
        open_movie(tmp_path / "text.h5")


def test_float_frames_are_not_written(tmp_path):
    with pytest.raises(FramesError, match="unsigned integer"):
        write_movie(tmp_path / "m.h5", np.zeros((2, 3, 4)), GEOMETRY, 0.01, 0.01, {"name": "x"})
