"""An Eiger series is read through its master, and only from the master's own folder."""

import os

import h5py
import numpy as np
import pytest

from beamline_ml.correlation import bad_pixels
from beamline_ml.errors import BudgetExceeded, FileMissing, FileRefused, FramesError
from beamline_ml.frames.eiger import EigerFrames, is_eiger_master
from tests.frames.eiger_files import COLS, DETECTOR, ROWS, write_data, write_eiger

MAX_BYTES = 2**24


@pytest.fixture(scope="module")
def counts():
    frames = np.random.default_rng(3).poisson(1.5, (25, ROWS, COLS)).astype(np.uint32)
    frames[:, 4, :] = 2**32 - 1
    return frames


@pytest.fixture(scope="module")
def mask():
    marked = np.zeros((ROWS, COLS), np.uint32)
    marked[4] = 1
    marked[7, 9] = 8
    return marked


def test_frames_come_in_the_order_of_the_data_files(tmp_path, counts, mask):
    master = write_eiger(tmp_path, counts, (10, 10, 5), mask=mask)
    expected = np.where(mask != 0, np.uint32(2**32 - 1), counts)
    with EigerFrames(master, MAX_BYTES) as reader:
        assert (reader.shape, reader.dtype) == ((25, ROWS, COLS), np.uint32)
        np.testing.assert_array_equal(reader.read(7, 23).frames, expected[7:23])
        np.testing.assert_array_equal(np.concatenate([b.frames for b in reader.blocks(4)]), expected)
        np.testing.assert_array_equal(reader.unusable, mask != 0)
        np.testing.assert_array_equal(bad_pixels(reader.read(0, 25).frames), mask != 0)


def test_the_master_says_how_the_frames_were_taken(tmp_path, counts):
    with EigerFrames(write_eiger(tmp_path, counts, (25,)), MAX_BYTES) as reader:
        recorded = reader.recorded
    assert (recorded.frame_period_s, recorded.exposure_s, recorded.notes) == (0.02, 0.0199, ())
    geometry = recorded.geometry
    assert geometry.photon_energy_kev == pytest.approx(8.0, rel=1e-6)
    assert (geometry.detector_distance_m, geometry.pixel_size_m) == (4.0, 75e-6)
    assert (geometry.beam_center_row_px, geometry.beam_center_column_px) == (15.5, 11.5)


def test_links_of_the_first_firmware_and_a_dataset_in_the_master(tmp_path, counts):
    old = write_eiger(tmp_path, counts, (10, 15), group="entry")
    with h5py.File(old, "r+") as file:
        del file["entry/data_000002"]
        file.create_dataset("entry/data_000002", data=counts[10:], chunks=(1, ROWS, COLS))
    with EigerFrames(old, MAX_BYTES) as reader:
        np.testing.assert_array_equal(reader.read(0, 25).frames, counts)


def test_a_plain_file_is_no_master(tmp_path, counts):
    write_data(tmp_path / "plain.h5", counts)
    with h5py.File(tmp_path / "plain.h5") as file:
        assert not is_eiger_master(file)
    with pytest.raises(FramesError, match="no links data_000001"):
        EigerFrames(tmp_path / "plain.h5", MAX_BYTES)


@pytest.mark.parametrize("name", ["../secret.h5", "/etc/hostname", "sub/../../secret.h5", "."])
def test_a_link_out_of_the_folder_is_refused(tmp_path, counts, name):
    folder = tmp_path / "run"
    folder.mkdir()
    write_data(tmp_path / "secret.h5", counts)
    master = write_eiger(folder, counts, (10, 15), data_000002=name)
    with pytest.raises(FileRefused):
        EigerFrames(master, MAX_BYTES)


def test_a_data_file_that_is_itself_a_link_out_is_refused(tmp_path, counts):
    folder = tmp_path / "run"
    folder.mkdir()
    master = write_eiger(folder, counts, (10, 15))
    write_data(tmp_path / "secret.h5", counts)
    (folder / "series_data_000002.h5").unlink()
    (folder / "series_data_000002.h5").symlink_to(tmp_path / "secret.h5")
    with pytest.raises(FileRefused, match="outside the allowed folders"):
        EigerFrames(master, MAX_BYTES)
    # A wider root allows what lies under it, and no more.
    assert EigerFrames(write_eiger(folder, counts, (25,), "other"), MAX_BYTES, (tmp_path,)).shape[0] == 25


def test_a_pipe_is_refused_without_opening_it(tmp_path, counts):
    master = write_eiger(tmp_path, counts, (10, 15))
    (tmp_path / "series_data_000002.h5").unlink()
    os.mkfifo(tmp_path / "series_data_000002.h5")
    with pytest.raises(FileRefused, match="no regular file"):
        EigerFrames(master, MAX_BYTES)


def test_a_data_file_that_links_on_is_refused(tmp_path, counts):
    master = write_eiger(tmp_path, counts, (10, 15))
    write_data(tmp_path / "other.h5", counts[10:])
    with h5py.File(tmp_path / "series_data_000002.h5", "w") as file:
        file["entry/data/data"] = h5py.ExternalLink("other.h5", "/entry/data/data")
    with pytest.raises(FileRefused, match="link out of the file"):
        EigerFrames(master, MAX_BYTES)


@pytest.mark.parametrize("where", [DETECTOR, f"{DETECTOR}/frame_time", "entry/data"])
def test_metadata_behind_a_link_is_refused(tmp_path, counts, where):
    master = write_eiger(tmp_path, counts, (25,))
    os.mkfifo(tmp_path / "pipe.h5")
    with h5py.File(master, "r+") as file:
        del file[where]
        file[where] = h5py.ExternalLink("pipe.h5", where)
    with pytest.raises(FileRefused, match="link out of the file"):
        EigerFrames(master, MAX_BYTES)


def test_a_missing_data_file_is_named(tmp_path, counts):
    master = write_eiger(tmp_path, counts, (10, 10, 5))
    (tmp_path / "series_data_000002.h5").unlink()
    with pytest.raises(FileMissing, match=r"series_data_000002\.h5.*same folder"):
        EigerFrames(master, MAX_BYTES)


def test_a_missing_link_is_named(tmp_path, counts):
    master = write_eiger(tmp_path, counts, (10, 10, 5))
    with h5py.File(master, "r+") as file:
        del file["entry/data/data_000002"]
    with pytest.raises(FramesError, match=r"no link data_000002 but goes on to data_000003"):
        EigerFrames(master, MAX_BYTES)


def test_fewer_frames_than_announced(tmp_path, counts):
    master = write_eiger(tmp_path, counts, (10, 10))
    with pytest.raises(FramesError, match="announces 25 frames; its data files hold 20"):
        EigerFrames(master, MAX_BYTES)


def test_a_truncated_data_file(tmp_path, counts):
    master = write_eiger(tmp_path, counts, (10, 15))
    with (tmp_path / "series_data_000001.h5").open("r+b") as file:
        file.truncate(3000)
    with pytest.raises(FramesError, match=r"cut off|no readable HDF5"):
        EigerFrames(master, MAX_BYTES)


@pytest.mark.parametrize("other", [np.zeros((15, COLS, ROWS), np.uint32), np.zeros((15, ROWS, COLS), np.uint16)])
def test_data_files_of_different_series(tmp_path, counts, other):
    master = write_eiger(tmp_path, counts, (10, 15))
    write_data(tmp_path / "series_data_000002.h5", other)
    with pytest.raises(FramesError, match="different frames"):
        EigerFrames(master, MAX_BYTES)


def test_a_mask_of_another_detector(tmp_path, counts):
    master = write_eiger(tmp_path, counts, (25,), mask=np.zeros((COLS, ROWS), np.uint32))
    with pytest.raises(FramesError, match=r"pixel mask .*\(24, 32\); the frames are \(32, 24\)"):
        EigerFrames(master, MAX_BYTES)


def replace(master, name, value, **attributes):
    with h5py.File(master, "r+") as file:
        if name in file:
            del file[name]
        file.create_dataset(name, data=value).attrs.update(attributes)


def test_a_zero_frame_time_is_refused_unless_given(tmp_path, counts):
    master = write_eiger(tmp_path, counts, (25,))
    replace(master, f"{DETECTOR}/frame_time", np.zeros((1, 1)))
    with pytest.raises(FramesError, match=r"frame time .* is 0 s.*frame_period_s"):
        EigerFrames(master, MAX_BYTES)
    with EigerFrames(master, MAX_BYTES, frame_period_s=0.5) as reader:
        assert reader.recorded.frame_period_s == 0.5


def test_a_frame_time_in_a_1_by_1_array_and_in_milliseconds(tmp_path, counts):
    master = write_eiger(tmp_path, counts, (25,))
    replace(master, f"{DETECTOR}/frame_time", np.array([[20.0]]), units="ms")
    with EigerFrames(master, MAX_BYTES) as reader:
        assert reader.recorded.frame_period_s == pytest.approx(0.02)


def test_two_distances_that_disagree_are_told(tmp_path, counts):
    master = write_eiger(tmp_path, counts, (25,))
    replace(master, f"{DETECTOR}/distance", 4100.0, units="mm")
    with EigerFrames(master, MAX_BYTES) as reader:
        assert reader.recorded.detector_distance_m == 4.0
        (note,) = reader.recorded.notes
    assert "detector_distance_m = 4 in" in note
    assert "4.1 in" in note
    assert "the first was used" in note


def test_a_distance_that_was_never_set_is_unknown(tmp_path, counts):
    master = write_eiger(tmp_path, counts, (25,))
    replace(master, f"{DETECTOR}/detector_distance", 0.0)
    with EigerFrames(master, MAX_BYTES) as reader:
        assert reader.recorded.detector_distance_m is None
        assert reader.recorded.geometry is None


@pytest.mark.parametrize(("value", "units"), [([1.0, 2.0], "s"), (np.nan, "s"), (1.0, "parsec")])
def test_a_frame_time_that_makes_no_sense(tmp_path, counts, value, units):
    master = write_eiger(tmp_path, counts, (25,))
    replace(master, f"{DETECTOR}/frame_time", value, units=units)
    with pytest.raises(FramesError, match="frame_time"):
        EigerFrames(master, MAX_BYTES)


def test_the_byte_budget_holds_across_data_files(tmp_path, counts):
    with EigerFrames(write_eiger(tmp_path, counts, (10, 15)), 5 * counts[0].nbytes) as reader:
        assert len(reader.read(8, 13).frames) == 5
        with pytest.raises(BudgetExceeded, match="6 frames"):
            reader.read(8, 14)
