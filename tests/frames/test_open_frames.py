"""Frames come from the file where allowed and through tiled otherwise, and are the same numbers."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import h5py
import hdf5plugin
import numpy as np
import pytest

from beamline_ml.documents import describe_run
from beamline_ml.errors import BudgetExceeded, FileMissing, FramesError
from beamline_ml.frames import open_frames
from tests.frames.eiger_files import write_eiger

DATASET = "/entry/data/data"


@pytest.fixture(scope="module")
def counts():
    return np.random.default_rng(1).poisson(2.0, (40, 32, 24)).astype(np.uint16)


@pytest.fixture
def open_run(tiled_server):
    def opener(run, direct=True, **options):
        roots = (tiled_server.frames_dir,) if direct else ()
        return open_frames(run, describe_run(run), allowed_roots=roots, missing_file_wait_s=0.0, **options)

    return opener


def test_file_and_tiled_give_the_same_frames(record_run, write_frames, open_run, counts):
    run = record_run(write_frames(counts))
    with open_run(run) as direct, open_run(run, direct=False) as remote:
        assert (direct.source, remote.source) == ("file", "tiled")
        for reader in (direct, remote):
            assert reader.shape == (40, 32, 24)
            assert reader.dtype == np.uint16
            block = reader.read(7, 31)
            assert block.first_index == 7
            np.testing.assert_array_equal(block.frames, counts[7:31])
            np.testing.assert_array_equal(np.concatenate([b.frames for b in reader.blocks(7)]), counts)
            assert [b.first_index for b in reader.blocks(16, first=3)] == [3, 19, 35]


def test_a_compressed_file_that_the_detector_still_writes(record_run, tiled_server, open_run, counts):
    path = tiled_server.frames_dir / "live.h5"
    with h5py.File(path, "w", libver="latest") as file:
        shape = {"shape": (0, 32, 24), "maxshape": (None, 32, 24), "chunks": (10, 32, 24), "dtype": "<u2"}
        data = file.create_dataset(DATASET, **shape, **hdf5plugin.Bitshuffle(cname="lz4"))
        file.swmr_mode = True
        data.resize(40, axis=0)
        data[:] = counts
        data.flush()
        with open_run(record_run(path, stop=False)) as reader:
            np.testing.assert_array_equal(reader.read(0, 40).frames, counts)


def test_frames_that_arrive_late_are_waited_for(record_run, tiled_server, counts):
    path = tiled_server.frames_dir / "late.h5"
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset(DATASET, data=counts[:20], maxshape=(None, 32, 24), chunks=(10, 32, 24))
        file.swmr_mode = True
        run = record_run(path)

        def finish():
            time.sleep(0.3)
            data.resize(40, axis=0)
            data[20:] = counts[20:]
            data.flush()

        writer = threading.Thread(target=finish)
        writer.start()
        roots = (tiled_server.frames_dir,)
        with open_frames(run, describe_run(run), allowed_roots=roots, missing_file_wait_s=30.0) as reader:
            writer.join()
            np.testing.assert_array_equal(reader.read(0, 40).frames, counts)


def test_a_file_that_appears_late_is_waited_for(record_run, write_frames, tiled_server, counts):
    path = write_frames(counts)
    run = record_run(path)
    hidden = path.with_suffix(".moved")
    path.rename(hidden)
    mover = threading.Timer(0.3, hidden.rename, [path])
    mover.start()
    roots = (tiled_server.frames_dir,)
    with open_frames(run, describe_run(run), allowed_roots=roots, missing_file_wait_s=30.0) as reader:
        np.testing.assert_array_equal(reader.read(0, 2).frames, counts[:2])


def test_a_missing_file_is_named_with_the_remedy(record_run, write_frames, open_run, counts):
    path = write_frames(counts)
    run = record_run(path)
    path.unlink()
    with pytest.raises(FileMissing, match=rf"{path.name}.* is not there.*reprocess"):
        open_run(run)


def test_a_missing_file_read_through_tiled_is_a_plain_error(record_run, write_frames, open_run, counts):
    path = write_frames(counts)
    run = record_run(path)
    path.unlink()
    with open_run(run, direct=False) as reader, pytest.raises(FramesError, match=r"tiled cannot deliver.*readable"):
        reader.read(0, 4)


def test_a_truncated_file_is_said_to_be_cut_off(record_run, write_frames, open_run, counts):
    path = write_frames(counts)
    run = record_run(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(FramesError, match=r"cut off|cannot be read"), open_run(run) as reader:
        reader.read(0, 40)


def test_frames_that_were_never_written_are_not_taken_for_dark_ones(record_run, tiled_server, open_run, counts):
    path = tiled_server.frames_dir / "holes.h5"
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset(DATASET, (40, 32, 24), chunks=(10, 32, 24), dtype="<u2")
        data[:10] = counts[:10]
        data[20:] = counts[20:]
    with pytest.raises(FramesError, match="never written in 1 of 4 chunks"):
        open_run(record_run(path))


def test_a_file_that_is_no_hdf5(record_run, write_frames, open_run, counts):
    path = write_frames(counts)
    run = record_run(path)
    path.write_bytes(b"not hdf5")
    with pytest.raises(FramesError, match="no readable HDF5"):
        open_run(run)


def test_a_file_with_fewer_frames_than_announced(record_run, write_frames, open_run, counts):
    run = record_run(write_frames(counts[:30]))
    with pytest.raises(FramesError, match=r"holds 30 frames; the catalogue announced 40.*last_frame=30"):
        open_run(run)


def test_a_file_of_another_detector_mode(record_run, write_frames, open_run, counts):
    run = record_run(write_frames(np.swapaxes(counts, 1, 2).copy()))
    with pytest.raises(FramesError, match=r"shape \(40, 24, 32\); the catalogue announced \(40, 32, 24\)"):
        open_run(run)


@pytest.mark.parametrize("direct", [True, False])
def test_the_byte_budget_holds_before_reading(record_run, write_frames, open_run, counts, direct):
    run = record_run(write_frames(counts))
    with open_run(run, direct=direct, max_gib=10 * counts[0].nbytes / 2**30) as reader:
        assert len(reader.read(0, 10).frames) == 10
        with pytest.raises(BudgetExceeded, match=r"11 frames .* need .*max_gib"):
            reader.read(0, 11)
        assert max(len(block.frames) for block in reader.blocks()) == 10


def test_frames_outside_the_run_are_refused(record_run, write_frames, open_run, counts):
    with open_run(record_run(write_frames(counts))) as reader, pytest.raises(FramesError, match="40 frames"):
        reader.read(30, 41)


def test_a_singleton_axis_of_an_unpatched_writer_is_squeezed(record_run, tiled_server, open_run, counts):
    path = tiled_server.frames_dir / "rank4.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset(DATASET, data=counts[:, None], chunks=(10, 1, 32, 24))
    run = record_run(path, shape=(40, 1, 32, 24))
    for direct in (True, False):
        with open_run(run, direct=direct) as reader:
            np.testing.assert_array_equal(reader.read(3, 5).frames, counts[3:5])


def test_a_run_that_names_an_eiger_master(record_run, tiled_server, open_run, counts):
    folder = tiled_server.frames_dir / "eiger"
    folder.mkdir()
    run = record_run(write_eiger(folder, counts, (25, 15)))
    with open_run(run) as reader:
        assert (reader.source, reader.recorded.exposure_s) == ("file", 0.0199)
        np.testing.assert_array_equal(reader.read(20, 30).frames, counts[20:30])
    (folder / "series_data_000002.h5").unlink()
    with pytest.raises(FileMissing, match="series_data_000002"):
        open_run(run)


def test_an_eiger_master_of_another_run(record_run, tiled_server, open_run, counts):
    folder = tiled_server.frames_dir / "other-eiger"
    folder.mkdir()
    run = record_run(write_eiger(folder, counts[:30], (30,)))
    with pytest.raises(FramesError, match=r"holds 30 frames of \(32, 24\); the catalogue announced 40"):
        open_run(run)


class Registered:
    """What a catalogue whose site registers event files says of them."""

    def __init__(self, path, mimetype):
        self._source = SimpleNamespace(
            mimetype=mimetype, parameters={}, assets=[SimpleNamespace(data_uri=f"file://localhost{path}")]
        )

    def data_sources(self):
        return [self._source]


def test_a_run_that_names_photon_events(record_run, write_frames, tmp_path, counts):
    description = replace(describe_run(record_run(write_frames(counts))), frame_shape=(512, 1024))
    words = np.array([3 << 40 | 1030 << 16 | 2, 3 << 40 | 1030 << 16 | 5], "<u8")
    words.tofile(tmp_path / "run.bin")
    run = {"primary": {"det": Registered(tmp_path / "run.bin", "application/x-rigaku-sparse")}}
    with open_frames(run, description, allowed_roots=(tmp_path,)) as reader:
        assert reader.shape == (40, 512, 1024)
        assert reader.recorded.frame_period_s == description.frame_period_s
        assert reader.read(3, 4).frames[0, 1, 6] == 7
    other = replace(description, frame_shape=(32, 24))
    with pytest.raises(FramesError, match=r"of \(512, 1024\); the catalogue announced 40 of \(32, 24\)"):
        open_frames(run, other, allowed_roots=(tmp_path,))
