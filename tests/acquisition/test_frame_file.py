"""The SWMR file: visible while it grows, in the chunks and compression that readers count on."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from beamline_ml.acquisition.frame_file import FRAMES, TIMESTAMPS, FrameFile
from beamline_ml.acquisition.playback import chunk_frames, frames_per_flush


def test_a_reader_sees_each_block_while_the_file_is_written(tmp_path: Path) -> None:
    frames = np.arange(30 * 4 * 5, dtype="u2").reshape(30, 4, 5)
    writer = FrameFile(tmp_path / "frames.h5", (4, 5), frames.dtype, chunk_frames=10)
    with h5py.File(tmp_path / "frames.h5", "r", swmr=True) as reader:
        for first in range(0, 30, 15):
            assert writer.append(frames[first : first + 15], np.arange(15.0)) == first + 15
            for name in (FRAMES, TIMESTAMPS):
                reader[name].refresh()
                assert reader[name].shape[0] == first + 15
            np.testing.assert_array_equal(reader[FRAMES][first : first + 15], frames[first : first + 15])
    writer.close()
    writer.close()


def test_frames_are_chunked_and_compressed_with_bitshuffle(tmp_path: Path) -> None:
    FrameFile(tmp_path / "frames.h5", (4, 5), np.dtype("u2"), chunk_frames=10).close()
    with h5py.File(tmp_path / "frames.h5") as file:
        assert file[FRAMES].chunks == (10, 4, 5)
        assert "32008" in file[FRAMES]._filters  # registered number of bitshuffle


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    FrameFile(tmp_path / "frames.h5", (4, 5), np.dtype("u2"), chunk_frames=10).close()
    with pytest.raises(OSError, match="exists"):
        FrameFile(tmp_path / "frames.h5", (4, 5), np.dtype("u2"), chunk_frames=10)


@pytest.mark.parametrize(("period_s", "flush", "chunk"), [(0.01, 20, 20), (0.001, 200, 50), (0.1, 2, 10), (3.0, 1, 10)])
def test_about_five_flushes_a_second_and_chunks_of_10_to_50(period_s: float, flush: int, chunk: int) -> None:
    assert frames_per_flush(period_s) == flush
    assert chunk_frames(period_s, n_frames=1000) == chunk
    assert chunk_frames(period_s, n_frames=7) == 7
