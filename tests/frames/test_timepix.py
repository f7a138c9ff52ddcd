"""Timepix3 packets become one photon for each cluster, each in the frame of its arrival."""

import numpy as np
import pytest

from beamline_ml.errors import BudgetExceeded, FramesError
from beamline_ml.frames import open_file
from beamline_ml.frames.timepix import MAGIC, TICK_S, TimepixFrames

MAX_BYTES = 2**26
PERIOD_S = 1e-3
TICKS = round(PERIOD_S / TICK_S)
ROLLOVER = 2**34


def packets(tick, row, column, over_threshold, kind=0xB):
    """Pixel words as the chip packs them."""
    tick, row, column, tot = (np.asarray(a, np.int64) for a in np.broadcast_arrays(tick, row, column, over_threshold))
    coarse = -(-tick // 16)
    fine = coarse * 16 - tick
    address = (column // 2 << 9) | (row // 4 << 3) | (column % 2 << 2) | row % 4
    spidr, arrival = (coarse >> 14) % 2**16, coarse % 2**14
    word = (kind << 60) | 0
    packed = (address << 44) | (arrival << 30) | (tot << 20) | (fine << 16) | spidr
    return packed.astype(np.uint64) | np.uint64(word)


def write(path, words, per_chunk=100, chip=0):
    with path.open("wb") as file:
        for lo in range(0, len(words), per_chunk):
            chunk = words[lo : lo + per_chunk]
            np.array([MAGIC | chip << 32 | 8 * len(chunk) << 48], "<u8").tofile(file)
            chunk.astype("<u8").tofile(file)
    return path


@pytest.fixture
def photons():
    """Time, row and column of well separated photons, the first at tick 5."""
    random = np.random.default_rng(7)
    tick = 5 + np.sort(random.choice(20 * TICKS // 200, 900, replace=False)) * 200
    tick[0] = 5
    tick[-1] = 5 + 20 * TICKS + 9
    return tick, random.integers(1, 255, 900), random.integers(1, 255, 900)


def dense(tick, row, column, n_frames=20):
    frames = np.zeros((n_frames, 256, 256), np.int64)
    frame = (tick - tick.min()) // TICKS
    kept = frame < n_frames
    np.add.at(frames, (frame[kept], row[kept], column[kept]), 1)
    return frames


def test_single_hits_fall_into_their_frames(tmp_path, photons):
    with open_file(write(tmp_path / "a.tpx3", packets(*photons, 20)), frame_period_s=PERIOD_S) as reader:
        assert reader.shape == (20, 256, 256)
        assert reader.recorded.frame_period_s == PERIOD_S
        np.testing.assert_array_equal(reader.read(0, 20).frames, dense(*photons))


def test_order_in_the_file_and_other_packets_do_not_matter(tmp_path, photons):
    words = packets(*photons, 20)
    shuffled = np.concatenate([np.random.default_rng(1).permutation(part) for part in np.array_split(words, 30)])
    mixed = np.insert(shuffled, np.arange(0, 900, 50), np.uint64(0x6F << 56))
    with TimepixFrames(write(tmp_path / "a.tpx3", mixed), MAX_BYTES, PERIOD_S) as reader:
        np.testing.assert_array_equal(reader.read(0, 20).frames, dense(*photons))
        assert reader.recorded.notes == ()


def test_the_clock_may_roll_over(tmp_path, photons):
    tick, row, column = photons
    late = tick + ROLLOVER - 10 * TICKS
    with TimepixFrames(write(tmp_path / "a.tpx3", packets(late, row, column, 20)), MAX_BYTES, PERIOD_S) as reader:
        np.testing.assert_array_equal(reader.read(0, 20).frames, dense(*photons))


def test_three_rounds_of_the_clock(tmp_path):
    tick = np.arange(0, 3 * ROLLOVER, ROLLOVER // 7)
    path = write(tmp_path / "a.tpx3", packets(tick, 3, 4, 20))
    with TimepixFrames(path, MAX_BYTES, 1.0) as reader:
        assert reader.shape[0] == int(tick[-1] * TICK_S)


def test_jumped_time_stamps_are_left_out_and_counted(tmp_path, photons):
    tick, row, column = photons
    wrong = tick.copy()
    wrong[[100, 101, 500]] += [ROLLOVER // 8, ROLLOVER // 8, ROLLOVER // 3]
    wrong[700] += ROLLOVER - ROLLOVER // 9
    with TimepixFrames(write(tmp_path / "a.tpx3", packets(wrong, row, column, 20)), MAX_BYTES, PERIOD_S) as reader:
        kept = np.delete(np.arange(900), [100, 101, 500, 700])
        np.testing.assert_array_equal(reader.read(0, 20).frames, dense(tick[kept], row[kept], column[kept]))
        assert "4 hits" in reader.recorded.notes[0]


def clustered(photons):
    """A photon's own pixel, brightest; a weak neighbour, a strong one diagonally, each some 10 ns later."""
    tick, row, column = photons
    parts = [(tick, row, column, 100), (tick + 9, row, column + 1, 30), (tick + 20, row + 1, column + 1, 95)]
    words = np.concatenate([packets(*part) for part in parts])
    return words[np.argsort(np.concatenate([part[0] for part in parts]), kind="stable")]


def test_a_cluster_is_one_photon(tmp_path, photons):
    path = write(tmp_path / "a.tpx3", clustered(photons))
    tick, row, column = photons
    # Weighted mean: row + 95/225, column + 125/225.
    expected = {
        "centroid": dense(tick, row, column + 1),
        "brightest": dense(*photons),
        "hits": sum(dense(tick, *place) for place in ((row, column), (row, column + 1), (row + 1, column + 1))),
    }
    for photon_at, frames in expected.items():
        with open_file(path, frame_period_s=PERIOD_S, photon_at=photon_at) as reader:
            np.testing.assert_array_equal(reader.read(0, 20).frames, frames)
    with pytest.raises(FramesError, match="'middle' is unknown"):
        open_file(path, frame_period_s=PERIOD_S, photon_at="middle")


def test_hits_apart_in_time_or_place_are_two_photons(tmp_path):
    end = 2 * TICKS + 50
    tick, row, column = np.array([0, 65, 200, 201, end]), [10, 10, 20, 22, 1], [10, 11, 20, 20, 1]
    with TimepixFrames(write(tmp_path / "a.tpx3", packets(tick, row, column, 9)), MAX_BYTES, PERIOD_S) as reader:
        assert reader.read(0, 1).frames.sum() == 4


def test_photons_of_one_frame_and_pixel_add(tmp_path):
    tick = np.array([*range(0, 70000, 100), 3 * TICKS])
    with TimepixFrames(write(tmp_path / "a.tpx3", packets(tick, 9, 8, 9)), MAX_BYTES, PERIOD_S) as reader:
        assert reader.read(0, 1).frames[0, 9, 8] == 700
        assert reader.events().count.tolist() == [700]


def test_the_length_of_the_run_may_be_given(tmp_path, photons):
    path = write(tmp_path / "a.tpx3", packets(*photons, 20))
    for n_frames in (8, 30):
        with open_file(path, frame_period_s=PERIOD_S, n_frames=n_frames) as reader:
            assert reader.shape[0] == n_frames
            assert reader.events().count.sum() == dense(*photons, n_frames).sum()


@pytest.mark.parametrize("period", [None, 0.0, -1.0, np.nan, 1e-10])
def test_a_frame_needs_a_duration(tmp_path, photons, period):
    path = write(tmp_path / "a.tpx3", packets(*photons, 20))
    with pytest.raises(FramesError, match="frame_period_s"):
        open_file(path, frame_period_s=period)


def test_a_run_within_one_frame(tmp_path, photons):
    with pytest.raises(FramesError, match="within one frame of 10 s"):
        open_file(write(tmp_path / "a.tpx3", packets(*photons, 20)), frame_period_s=10.0)


@pytest.mark.parametrize("n_bytes", [-8, -5])
def test_a_file_that_is_cut_off(tmp_path, photons, n_bytes):
    path = write(tmp_path / "a.tpx3", packets(*photons, 20))
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(FramesError, match="cut off"):
        open_file(path, frame_period_s=PERIOD_S)


def test_a_damaged_chunk_is_placed(tmp_path, photons):
    path = write(tmp_path / "a.tpx3", packets(*photons, 20))
    content = bytearray(path.read_bytes())
    content[101 * 8] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(FramesError, match="no chunk begins at byte 808"):
        open_file(path, frame_period_s=PERIOD_S)


def test_other_modes_and_chips_are_refused(tmp_path, photons):
    counting = write(tmp_path / "a.tpx3", packets(*photons, 20, kind=0xA))
    with pytest.raises(FramesError, match="counting mode"):
        open_file(counting, frame_period_s=PERIOD_S)
    quad = write(tmp_path / "b.tpx3", packets(*photons, 20), chip=2)
    with pytest.raises(FramesError, match="chip 2"):
        open_file(quad, frame_period_s=PERIOD_S)
    empty = write(tmp_path / "c.tpx3", np.full(3, 0x6F << 56, np.uint64))
    with pytest.raises(FramesError, match="no hit"):
        open_file(empty, frame_period_s=PERIOD_S)


def test_the_budget_holds_before_reading(tmp_path, photons):
    with pytest.raises(BudgetExceeded, match="events of a"):
        TimepixFrames(write(tmp_path / "a.tpx3", packets(*photons, 20)), 8000, PERIOD_S)
