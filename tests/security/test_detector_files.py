"""A document may name any file: nothing outside the allowed folders is opened, and nothing inside leads out."""

import os

import h5py
import numpy as np
import pytest

from beamline_ml.documents import describe_run
from beamline_ml.errors import BudgetExceeded, FileRefused, FramesError
from beamline_ml.frames import open_frames
from beamline_ml.frames.allowed import local_file
from beamline_ml.frames.hdf5 import Hdf5Frames

DATASET = "entry/data/data"
SHAPE = (20, 8, 6)
SECRET = np.full(SHAPE, 7, np.uint16)
MAX_BYTES = 2**20


@pytest.fixture
def roots(tmp_path):
    (tmp_path / "allowed").mkdir()
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "allowed", tmp_path / "elsewhere"


def write(path, counts=SECRET):
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset(DATASET, data=counts, chunks=(10, *counts.shape[1:]))
    return path


def test_a_file_outside_is_never_opened_here(roots):
    allowed, elsewhere = roots
    secret = write(elsewhere / "secret.h5")
    for uri in (
        f"file://localhost{secret}",
        f"file://localhost{allowed}/../elsewhere/secret.h5",
        f"file://localhost{allowed}/%2e%2e/elsewhere/secret.h5",
        f"file://localhost{allowed}-not/secret.h5",
        f"http://localhost{allowed}/secret.h5",
        "file:relative.h5",
    ):
        assert local_file(uri, (allowed,), 0.0) is None


def test_a_link_that_leads_out_is_refused(roots):
    allowed, elsewhere = roots
    secret = write(elsewhere / "secret.h5")
    (allowed / "link.h5").symlink_to(secret)
    (allowed / "folder").symlink_to(elsewhere)
    for name in ("link.h5", "folder/secret.h5"):
        with pytest.raises(FileRefused, match="outside the allowed folders"):
            local_file(f"file://localhost{allowed}/{name}", (allowed,), 0.0)


def test_a_link_that_stays_inside_is_followed(roots):
    allowed, _ = roots
    real = write(allowed / "real.h5")
    (allowed / "link.h5").symlink_to(real)
    assert local_file(f"file://localhost{allowed}/link.h5", (allowed,), 0.0) == real.resolve()


def test_an_allowed_folder_may_itself_be_a_link(roots):
    allowed, elsewhere = roots
    real = write(elsewhere / "real.h5")
    (allowed / "mount").symlink_to(elsewhere)
    assert local_file(f"file://localhost{allowed}/mount/real.h5", (allowed / "mount",), 0.0) == real.resolve()


def test_a_pipe_or_folder_is_refused_without_opening_it(roots):
    allowed, _ = roots
    os.mkfifo(allowed / "pipe.h5")
    (allowed / "folder.h5").mkdir()
    for name in ("pipe.h5", "folder.h5"):
        with pytest.raises(FileRefused, match="no regular file"):
            local_file(f"file://localhost{allowed}/{name}", (allowed,), 0.0)


def crafted(path, secret, how):
    with h5py.File(path, "w", libver="latest") as file:
        if how == "external link":
            file["entry/data/data"] = h5py.ExternalLink(str(secret), DATASET)
        elif how == "external link of a group":
            file["entry/data"] = h5py.ExternalLink(str(secret), "entry/data")
        elif how == "soft link to an external link":
            file["away"] = h5py.ExternalLink(str(secret), DATASET)
            file["entry/data/data"] = h5py.SoftLink("/away")
        elif how == "virtual dataset":
            layout = h5py.VirtualLayout(SHAPE, np.uint16)
            layout[:] = h5py.VirtualSource(str(secret), DATASET, SHAPE)
            file.create_virtual_dataset(DATASET, layout)
        elif how == "external storage":
            file.create_dataset(DATASET, SHAPE, np.uint16, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    return path


@pytest.mark.parametrize(
    "how",
    [
        "external link",
        "external link of a group",
        "soft link to an external link",
        "virtual dataset",
        "external storage",
    ],
)
def test_a_file_that_pulls_in_another_is_refused(roots, how):
    allowed, elsewhere = roots
    path = crafted(allowed / "crafted.h5", write(elsewhere / "secret.h5"), how)
    with pytest.raises(FileRefused):
        Hdf5Frames(path, DATASET, SHAPE, MAX_BYTES)


def test_a_soft_link_inside_the_file_is_followed(roots):
    path = write(roots[0] / "soft.h5")
    with h5py.File(path, "r+") as file:
        file["entry/frames"] = h5py.SoftLink("data/data")
        file["loop"] = h5py.SoftLink("/loop")
    with Hdf5Frames(path, "/entry/frames", SHAPE, MAX_BYTES) as reader:
        np.testing.assert_array_equal(reader.read(0, 20).frames, SECRET)
    with pytest.raises((FileRefused, FramesError)):
        Hdf5Frames(path, "loop", SHAPE, MAX_BYTES)


@pytest.mark.parametrize(
    "dtype", [np.dtype([("a", "u2"), ("b", "f8")]), h5py.string_dtype(), h5py.vlen_dtype(np.uint8), "S4"], ids=str
)
def test_what_is_no_plain_number_is_refused(roots, dtype):
    path = roots[0] / "odd.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset(DATASET, SHAPE, dtype)
    with pytest.raises(FileRefused, match="not plain numbers"):
        Hdf5Frames(path, DATASET, SHAPE, MAX_BYTES)


@pytest.mark.parametrize("chunks", [(1, 64, 64), (1, 2**15, 2**14)])
def test_a_huge_shape_costs_no_memory(roots, chunks):
    path = roots[0] / "huge.h5"
    huge = (10**6, 2**15, 2**15)
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset(DATASET, huge, np.uint32, chunks=chunks)
    with pytest.raises(FramesError, match="never written"):
        Hdf5Frames(path, DATASET, huge, MAX_BYTES)


def test_a_frame_beyond_the_budget_is_never_decompressed(roots):
    path = roots[0] / "bomb.h5"
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset(DATASET, (2, 2048, 2048), np.uint32, chunks=(1, 2048, 2048), compression="gzip")
        data[:] = np.zeros((2, 2048, 2048), np.uint32)
    assert path.stat().st_size < MAX_BYTES
    with (
        Hdf5Frames(path, DATASET, (2, 2048, 2048), MAX_BYTES) as reader,
        pytest.raises(BudgetExceeded, match="1 frames of 2048 x 2048 uint32"),
    ):
        reader.read(0, 1)


def test_a_run_that_points_outside_is_read_by_tiled_or_not_at_all(record_run, tmp_path):
    """tiled guards its own storage; the answer is a plain error that says where to look."""
    run = record_run(write(tmp_path / "outside.h5"), shape=SHAPE)
    with open_frames(run, describe_run(run), allowed_roots=(tmp_path / "other",)) as reader:
        assert reader.source == "tiled"
        with pytest.raises(FramesError, match="readable_storage"):
            reader.read(0, 2)
