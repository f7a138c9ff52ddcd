"""C2 that is read out while a run goes on is the C2 of all its frames so far, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from beamline_ml.correlation import GrowingTwoTime, QMap, TwoTimeAccumulator, coarser_rows
from beamline_ml.records import TwoTime

SHAPE = (24, 20)
SPLITS = (1, 3, 2, 40, 7, 64, 1, 12)


def frames_of(mean: float) -> np.ndarray[Any, np.dtype[np.uint16]]:
    rng = np.random.default_rng(3)
    counts = rng.poisson(mean, (sum(SPLITS), *SHAPE)).astype(np.uint16)
    counts[17] = 0  # a frame without intensity: its row is NaN
    return counts


def qmap_of(**given: Any) -> QMap:
    labels = np.arange(SHAPE[0])[:, None] // 8 + np.ones(SHAPE, np.int64)
    return QMap(labels, **given)


def assert_same(found: TwoTime, wanted: TwoTime) -> None:
    names = {one.name for one in fields(TwoTime)} - {"quality", "lower_sums"} | {"numerator"}
    for name in names:
        ours, theirs = getattr(found, name), getattr(wanted, name)
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype, name
    assert_same_flags(found.quality, wanted.quality)


def assert_same_flags(found: Any, wanted: Any) -> None:
    for one in fields(wanted):
        np.testing.assert_array_equal(getattr(found, one.name), getattr(wanted, one.name), err_msg=one.name)


def read_along(
    frames: Any, accumulator: TwoTimeAccumulator, factor: int, check: Callable[[TwoTime, int], None]
) -> None:
    """Add the frames in pieces and check what is read out after each."""
    growing, n = GrowingTwoTime(accumulator, factor), 0
    for size in SPLITS:
        accumulator.add(frames[n : n + size], n)
        n += size
        if n >= factor:
            check(growing.result(), n)


@pytest.mark.parametrize("factor", [1, 2, 5])
@pytest.mark.parametrize("mean", [0.05, 3.0, 400.0])
def test_each_read_out_is_that_of_the_frames_so_far(mean: float, factor: int) -> None:
    frames = frames_of(mean)

    def check(found: TwoTime, n: int) -> None:
        whole = TwoTimeAccumulator(qmap_of(), 0.01)
        whole.add(frames[:n], 0)
        assert_same(found, coarser_rows(whole.result(), factor))

    read_along(frames, TwoTimeAccumulator(qmap_of(), 0.01), factor, check)


def test_what_was_read_out_stays_as_it_is() -> None:
    kept: list[tuple[TwoTime, np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
    read_along(
        frames_of(3.0),
        TwoTimeAccumulator(qmap_of(), 0.01),
        1,
        lambda found, _: kept.append((found, found.c2.copy(), found.lower_sums.copy())),
    )
    assert len(kept) == len(SPLITS)
    for found, c2, lower_sums in kept:
        np.testing.assert_array_equal(found.c2, c2)
        np.testing.assert_array_equal(found.lower_sums, lower_sums)


def test_a_whole_read_out_in_between_disturbs_nothing() -> None:
    frames, accumulator = frames_of(3.0), TwoTimeAccumulator(qmap_of(), 0.01)
    read_along(frames, accumulator, 2, lambda found, _: assert_same(found, coarser_rows(accumulator.result(), 2)))


def test_it_goes_on_from_a_checkpoint() -> None:
    frames, accumulator = frames_of(3.0), TwoTimeAccumulator(qmap_of(), 0.01)
    accumulator.add(frames[:50], 0)
    GrowingTwoTime(accumulator, 2).result()
    later = TwoTimeAccumulator.from_arrays(accumulator.to_arrays())
    growing = GrowingTwoTime(later, 2)
    for first, last in ((50, 60), (60, len(frames))):
        later.add(frames[first:last], first)
        found = growing.result()
    whole = TwoTimeAccumulator(qmap_of(), 0.01)
    whole.add(frames, 0)
    assert_same(found, coarser_rows(whole.result(), 2))


@pytest.mark.parametrize("kind", ["floating point", "flat field", "static"])
@pytest.mark.parametrize("factor", [1, 2])
def test_where_rows_may_change_everything_is_read_out(kind: str, factor: int) -> None:
    frames: Any = frames_of(3.0)
    qmap = qmap_of(flatfield=np.linspace(0.9, 1.1, 480).reshape(SHAPE)) if kind == "flat field" else qmap_of()
    frames = frames.astype(np.float32) if kind == "floating point" else frames
    accumulator = TwoTimeAccumulator(qmap, 0.01, normalization="static" if kind == "static" else "plain")
    read_along(
        frames, accumulator, factor, lambda found, _: assert_same(found, coarser_rows(accumulator.result(), factor))
    )


def test_frames_that_come_late_change_rows_that_were_read_out() -> None:
    frames, accumulator = frames_of(3.0), TwoTimeAccumulator(qmap_of(), 0.01)
    growing = GrowingTwoTime(accumulator)
    for first, last in ((0, 10), (14, 30), (10, 14), (30, len(frames))):
        accumulator.add(frames[first:last], first)
        assert_same(growing.result(), accumulator.result())
    assert np.isfinite(growing.result().c2[:, 12, 40]).all()
