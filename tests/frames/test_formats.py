"""A detector file is recognised by what it holds, and refused by name where it is none."""

import os
import zipfile

import h5py
import numpy as np
import pytest

from beamline_ml.errors import BudgetExceeded, FileMissing, FileRefused, FramesError
from beamline_ml.frames import open_file
from beamline_ml.frames.movie import write_movie
from beamline_ml.records import Geometry
from tests.frames.eiger_files import write_eiger

GEOMETRY = Geometry(8.0, 10.0, 75e-6, 15.5, 11.5)


@pytest.fixture(scope="module")
def counts():
    return np.random.default_rng(2).poisson(2.0, (25, 32, 24)).astype(np.uint16)


@pytest.fixture
def files(tmp_path, counts):
    write_movie(tmp_path / "movie.h5", counts, GEOMETRY, 0.01, 0.009, {"name": "silica"})
    np.save(tmp_path / "plain.npy", counts)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(counts))
    np.savez(tmp_path / "packed.npz", frames=counts, frame_period_s=0.01, um_per_px=0.1)
    with h5py.File(tmp_path / "exchange.h5", "w") as file:
        file.create_dataset("exchange/data", data=counts)
    write_eiger(tmp_path, counts, (20, 5))
    return tmp_path


@pytest.mark.parametrize(
    "name", ["movie.h5", "plain.npy", "fortran.npy", "packed.npz", "exchange.h5", "series_master.h5"]
)
def test_every_format_gives_the_same_frames(files, counts, name):
    with open_file(files / name) as reader:
        assert (reader.shape, reader.dtype, reader.source) == (counts.shape, np.uint16, "file")
        np.testing.assert_array_equal(reader.read(3, 22).frames, counts[3:22])


@pytest.mark.parametrize(("name", "period_s"), [("movie.h5", 0.01), ("packed.npz", 0.01), ("plain.npy", None)])
def test_what_the_file_says_can_be_overridden(files, name, period_s):
    with open_file(files / name) as reader:
        assert reader.recorded.frame_period_s == period_s
    with open_file(files / name, frame_period_s=0.5) as reader:
        assert reader.recorded.frame_period_s == 0.5


def test_a_movie_says_its_geometry(files):
    with open_file(files / "movie.h5") as reader:
        assert reader.recorded.geometry == GEOMETRY
        assert reader.unusable is None


def test_a_dataset_may_be_named(files, counts):
    with h5py.File(files / "movie.h5", "r+") as file:
        file.create_dataset("mine/frames", data=counts[:4])
    with open_file(files / "movie.h5", dataset="mine/frames") as reader:
        assert reader.shape[0] == 4
    with pytest.raises(FramesError, match="There is no other/frames"):
        open_file(files / "movie.h5", dataset="other/frames")


def test_what_is_no_detector_file(tmp_path):
    with pytest.raises(FileMissing, match="no file"):
        open_file(tmp_path / "absent.h5")
    with pytest.raises(FileRefused, match="no regular file"):
        open_file(tmp_path)
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(FileRefused, match="no regular file"):
        open_file(tmp_path / "pipe.npy")
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(FramesError, match=r"no format.*Eiger.*Rigaku"):
        open_file(tmp_path / "notes.txt")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(FramesError, match="none of the datasets"):
        open_file(tmp_path / "empty.h5")
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file.create_dataset("entry/data/data", data=np.zeros((4, 4)))
    with pytest.raises(FramesError, match=r"shape \(4, 4\)"):
        open_file(tmp_path / "flat.h5")


@pytest.mark.parametrize("name", ["plain.npy", "packed.npz", "movie.h5"])
def test_a_file_that_is_cut_off(files, name):
    path = files / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FramesError, match=r"no readable|cut off"):
        open_file(path)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4)), np.zeros((0, 4, 4)), np.array([["a"]]), np.zeros((2, 2, 2), complex)], ids=str
)
def test_an_array_of_something_else(tmp_path, array):
    np.save(tmp_path / "array.npy", array)
    with pytest.raises(FramesError):
        open_file(tmp_path / "array.npy")


def test_python_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([[[{}]]], object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", frames=np.array([[[{}]]], object))
    for name in ("objects.npy", "objects.npz"):
        with pytest.raises(FramesError, match="no readable numpy file"):
            open_file(tmp_path / name)


def test_an_archive_without_frames(tmp_path, counts):
    np.savez(tmp_path / "other.npz", images=counts)
    with pytest.raises(FramesError, match="no array 'frames' but images"):
        open_file(tmp_path / "other.npz")


@pytest.mark.parametrize("period_s", [0.0, -1.0, np.nan])
def test_a_frame_time_that_makes_no_sense(tmp_path, counts, period_s):
    np.savez(tmp_path / "packed.npz", frames=counts, frame_period_s=period_s)
    with pytest.raises(FramesError, match="frame_period_s"):
        open_file(tmp_path / "packed.npz")


def test_an_archive_is_weighed_before_it_is_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", frames=np.zeros((200, 512, 512), np.uint16))
    assert (tmp_path / "bomb.npz").stat().st_size < 2**20
    with pytest.raises(BudgetExceeded, match=r"frames\.npy .* unpacks to"):
        open_file(tmp_path / "bomb.npz", max_gib=0.01)
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
        archive.writestr("frames.npy", b"not numpy")
    with pytest.raises(FramesError, match="no readable numpy file"):
        open_file(tmp_path / "odd.npz")


@pytest.mark.parametrize("name", ["plain.npy", "movie.h5"])
def test_the_budget_holds_for_every_block(files, counts, name):
    with open_file(files / name, max_gib=5 * counts[0].nbytes / 2**30) as reader:
        assert max(len(block.frames) for block in reader.blocks()) == 5
        with pytest.raises(BudgetExceeded, match="6 frames"):
            reader.read(0, 6)
