"""A followed run goes on from its checkpoint, whatever a crash has left of it, as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from beamline_ml.correlation import QMap
from beamline_ml.live.checkpoint import Checkpoint
from beamline_ml.live.correlator import LiveCorrelator
from beamline_ml.records import FrameBlock, TwoTime
from tests.correlation.speckle import counts
from tests.live.conftest import N_FRAMES, SHAPE

Correlator = Callable[[], LiveCorrelator]


def read_from(frames: np.ndarray) -> Callable[[int, int], FrameBlock]:
    return lambda first, last: FrameBlock(first, frames[first:last])


def qmap(n_rings: int = 3) -> QMap:
    return QMap(1 + np.add.outer(np.arange(SHAPE[0]) * n_rings // SHAPE[0], np.zeros(SHAPE[1], np.int64)))


def correlator(kind: str = "plain", n_rings: int = 3) -> LiveCorrelator:
    return LiveCorrelator(qmap(n_rings), 0.01, kind, 100, 2)


@pytest.fixture(params=["counts", "sparse", "floating point", "static"])
def case(request: pytest.FixtureRequest) -> tuple[np.ndarray, Correlator]:
    frames = counts(np.random.default_rng(5), qmap(), N_FRAMES, 0.05 if request.param == "sparse" else 4.0, 12.0)
    frames = frames.astype(np.float32) if request.param == "floating point" else frames
    return frames, lambda: correlator("static" if request.param == "static" else "plain")


def follow(made: LiveCorrelator, checkpoint: Checkpoint, frames: np.ndarray, stops: list[int]) -> None:
    """Take frames in up to each stop, and write a checkpoint there."""
    for n in stops:
        made.add(FrameBlock(made.n_frames, frames[made.n_frames : n]), read_from(frames))
        checkpoint.write(checkpoint.next_part(made))


def resumed(folder: Path, made: LiveCorrelator) -> tuple[LiveCorrelator, Checkpoint]:
    checkpoint = Checkpoint(folder, "run")
    arrays = checkpoint.load()
    assert arrays is not None
    assert made.resume(arrays)
    return made, checkpoint


def finished(made: LiveCorrelator, frames: np.ndarray) -> TwoTime:
    made.add(FrameBlock(made.n_frames, frames[made.n_frames :]), read_from(frames))
    return made.rows()


def uninterrupted(new: Correlator, frames: np.ndarray) -> TwoTime:
    return finished(new(), frames)


def assert_same(found: TwoTime, wanted: TwoTime) -> None:
    np.testing.assert_array_equal(found.c2, wanted.c2)
    np.testing.assert_array_equal(found.numerator, wanted.numerator)
    np.testing.assert_array_equal(found.frame_sum, wanted.frame_sum)
    np.testing.assert_array_equal(found.quality.saturated, wanted.quality.saturated)


def test_parts_make_the_whole(case: tuple[np.ndarray, Correlator], tmp_path: Path) -> None:
    frames, new = case
    follow(new(), Checkpoint(tmp_path, "run"), frames, [50, 51, 130, 180])
    made, checkpoint = resumed(tmp_path, new())
    assert made.n_frames == 180
    follow(made, checkpoint, frames, [200])
    made, _ = resumed(tmp_path, new())
    assert made.n_frames == 200
    assert_same(finished(made, frames), uninterrupted(new, frames))


def test_each_part_holds_the_new_frames_alone(case: tuple[np.ndarray, Correlator], tmp_path: Path) -> None:
    frames, new = case
    checkpoint = Checkpoint(tmp_path, "run")
    follow(new(), checkpoint, frames, [50, 130, 180])
    rows = [len(np.load(part)["sums/rows"]) for part in sorted(checkpoint.path.glob("*.npz"))]
    assert rows == [50, 80, 50]


def test_nothing_new_is_a_part_too(case: tuple[np.ndarray, Correlator], tmp_path: Path) -> None:
    frames, new = case
    made, checkpoint = new(), Checkpoint(tmp_path, "run")
    follow(made, checkpoint, frames, [50])
    for _ in range(2):
        checkpoint.write(checkpoint.next_part(made))
    follow(made, checkpoint, frames, [90])
    assert_same(finished(resumed(tmp_path, new())[0], frames), uninterrupted(new, frames))


def test_after_a_broken_part_it_goes_on_from_the_one_before(tmp_path: Path) -> None:
    frames = counts(np.random.default_rng(5), qmap(), N_FRAMES, 4.0, 12.0)
    checkpoint = Checkpoint(tmp_path, "run")
    follow(correlator(), checkpoint, frames, [50, 130, 180])
    broken = sorted(checkpoint.path.glob("*.npz"))[1]
    broken.write_bytes(broken.read_bytes()[:2000])
    (checkpoint.path / "unfinished").write_bytes(b"PK")
    made, again = resumed(tmp_path, correlator())
    assert made.n_frames == 50
    follow(made, again, frames, [180])  # ends where a part of the earlier process began
    made, _ = resumed(tmp_path, correlator())
    assert made.n_frames == 180
    assert_same(finished(made, frames), uninterrupted(correlator, frames))


def test_other_pixels_begin_it_anew(tmp_path: Path) -> None:
    frames = counts(np.random.default_rng(5), qmap(), N_FRAMES, 4.0, 12.0)
    made, checkpoint = correlator(), Checkpoint(tmp_path, "run")
    follow(made, checkpoint, frames, [50, 130])
    bad = np.zeros(SHAPE, np.bool_)
    bad[3, 4] = True
    made.adopt(bad, 100, read_from(frames))
    follow(made, checkpoint, frames, [180])
    assert len(list(checkpoint.path.glob("*.npz"))) == 1
    assert_same(finished(resumed(tmp_path, correlator())[0], frames), finished(made, frames))


def test_the_state_of_another_qmap_is_not_taken(tmp_path: Path) -> None:
    frames = counts(np.random.default_rng(5), qmap(), N_FRAMES, 4.0, 12.0)
    follow(correlator(), Checkpoint(tmp_path, "run"), frames, [50])
    arrays = Checkpoint(tmp_path, "run").load()
    assert arrays is not None
    assert not correlator(n_rings=2).resume(arrays)


def test_a_run_that_is_over_leaves_nothing(tmp_path: Path) -> None:
    frames = counts(np.random.default_rng(5), qmap(), N_FRAMES, 4.0, 12.0)
    checkpoint = Checkpoint(tmp_path, "run")
    follow(correlator(), checkpoint, frames, [50])
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []
    assert Checkpoint(tmp_path, "run").load() is None
