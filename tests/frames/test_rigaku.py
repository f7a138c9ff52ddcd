"""Sparse Rigaku events give the frames that they describe: nothing wraps, nothing overwrites."""

import numpy as np
import pytest

from beamline_ml.correlation import QMap, multi_tau, multi_tau_events
from beamline_ml.errors import BudgetExceeded, FileMissing, FileRefused, FramesError
from beamline_ml.frames import open_file
from beamline_ml.frames.rigaku import GAP, LAYOUT, MODULE_SHAPE, RigakuFrames

ROWS, COLS = MODULE_SHAPE
MAX_BYTES = 2**28


def pack(frame, pixel, count):
    frame, pixel, count = (np.asarray(column, np.uint64) for column in (frame, pixel, count))
    return (frame << np.uint64(40)) | (pixel << np.uint64(16)) | count


def write(path, frame, pixel, count):
    pack(frame, pixel, count).astype("<u8").tofile(path)
    return path


@pytest.fixture
def events():
    """Photons in no order, some of them in the same frame and pixel."""
    random = np.random.default_rng(5)
    frame = random.integers(0, 30, 4000)
    pixel = np.concatenate([random.integers(0, ROWS * COLS, 3000), random.integers(0, 40, 1000)])
    return frame, pixel, random.integers(1, 4, 4000)


def dense(frame, pixel, count, n_frames, shape=MODULE_SHAPE):
    frames = np.zeros((n_frames, shape[0] * shape[1]), np.int64)
    np.add.at(frames, (frame, pixel), count)
    return frames.reshape(n_frames, *shape)


def test_frames_hold_every_photon(tmp_path, events):
    with open_file(write(tmp_path / "run.bin", *events), frame_period_s=2e-5) as reader:
        assert reader.shape == (30, ROWS, COLS)
        assert reader.recorded.frame_period_s == 2e-5
        expected = dense(*events, 30)
        assert expected.max() > 3
        np.testing.assert_array_equal(reader.read(0, 30).frames, expected)
        np.testing.assert_array_equal(reader.read(11, 17).frames, expected[11:17])


@pytest.mark.parametrize(("counts", "dtype"), [((300, 4095), np.uint16), ((4095,) * 17, np.uint32)])
def test_large_counts_do_not_wrap(tmp_path, counts, dtype):
    """Each event carries at most 12 bits, and 17 full ones make more than 16 bits."""
    path = write(tmp_path / "run.bin", [3] * len(counts), [77] * len(counts), counts)
    with RigakuFrames(path, MAX_BYTES) as reader:
        assert reader.dtype == dtype
        assert reader.read(3, 4).frames[0, 0, 77] == sum(counts)


def test_events_go_straight_to_multi_tau(tmp_path, events):
    labels = np.zeros(MODULE_SHAPE, int)
    labels.ravel()[:40] = 1
    labels.ravel()[40:80] = 2
    qmap = QMap(labels)
    with RigakuFrames(write(tmp_path / "run.bin", *events), MAX_BYTES) as reader:
        listed = reader.events()
        sparse = multi_tau_events(listed.frame, listed.pixel, qmap, reader.shape[0], count=listed.count)
        whole = multi_tau(reader.read(0, 30).frames, qmap)
        part = reader.events(10, 20)
    np.testing.assert_array_equal(sparse.delay_frames, whole.delay_frames)
    np.testing.assert_allclose(sparse.g2, whole.g2)
    assert (part.frame.min(), part.frame.max()) == (0, 9)
    assert part.count.sum() == dense(*events, 30)[10:20].sum()


def test_a_run_that_ends_dark_has_its_true_length(tmp_path, events):
    path = write(tmp_path / "run.bin", *events)
    with RigakuFrames(path, MAX_BYTES, n_frames=50) as reader:
        assert reader.shape[0] == 50
        assert not reader.read(40, 50).frames.any()
    with pytest.raises(FramesError, match="frame 29; the run has 20 frames"):
        RigakuFrames(path, MAX_BYTES, n_frames=20)


@pytest.fixture
def six(tmp_path):
    """Six modules, each with one photon in its first and two in its last pixel; one counts pixels from 2^20."""
    for number in range(6):
        offset = 2**20 if number == 4 else 0
        pixels = np.array([0, ROWS * COLS - 1]) + offset
        write(tmp_path / f"run.bin.00{number}", [number, 9], pixels, [1, 2])
    return tmp_path


def test_six_modules_make_one_frame(six):
    with open_file(six / "run.bin.002") as reader:
        assert reader.shape == (10, 3 * ROWS + 2 * GAP[0], 2 * COLS + GAP[1])
        frames = reader.read(0, 10).frames
        for i, line in enumerate(LAYOUT):
            for k, number in enumerate(line):
                row, column = i * (ROWS + GAP[0]), k * (COLS + GAP[1])
                assert frames[number, row, column] == 1
                assert frames[9, row + ROWS - 1, column + COLS - 1] == 2
        assert frames.sum() == 18
        assert reader.unusable.sum() == reader.unusable.size - 6 * ROWS * COLS
        assert not frames[:, reader.unusable].any()


def test_a_missing_module_is_named(six):
    (six / "run.bin.003").unlink()
    with pytest.raises(FileMissing, match=r"run\.bin\.003 is not in"):
        open_file(six / "run.bin.000")


def test_a_module_elsewhere_is_refused(six, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "secret"
    (six / "run.bin.003").rename(elsewhere)
    (six / "run.bin.003").symlink_to(elsewhere)
    with pytest.raises(FileRefused, match="link to another folder"):
        open_file(six / "run.bin.000")


def test_a_file_that_is_cut_off(tmp_path, events):
    path = write(tmp_path / "run.bin", *events)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(FramesError, match="no whole number of 64-bit events"):
        open_file(path)


def test_a_pixel_outside_the_module(tmp_path):
    path = write(tmp_path / "run.bin", [0, 1], [5, ROWS * COLS], [1, 1])
    with pytest.raises(FramesError, match=r"1 of 2 events .* outside .*pixel 524288"):
        open_file(path)


def test_a_file_without_photons(tmp_path):
    (tmp_path / "run.bin").write_bytes(b"")
    with pytest.raises(FramesError, match="no photon"):
        open_file(tmp_path / "run.bin")


def test_the_budget_holds_for_events_and_for_frames(tmp_path, events):
    path = write(tmp_path / "run.bin", *events)
    with pytest.raises(BudgetExceeded, match="4000 events"):
        RigakuFrames(path, 4000 * 8)
    with RigakuFrames(path, 4 * ROWS * COLS * 2) as reader:
        assert len(reader.read(0, 4).frames) == 4
        with pytest.raises(BudgetExceeded, match="5 frames"):
            reader.read(0, 5)
