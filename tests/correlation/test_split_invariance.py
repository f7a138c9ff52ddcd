"""Any split, order, repetition and restart gives the same bits."""

from __future__ import annotations

import io
from contextlib import suppress
from functools import cache
from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamline_ml.correlation import (
    LongTwoTimeAccumulator,
    MultiTauAccumulator,
    TwoTimeAccumulator,
    age_lag_two_time,
    bin_time,
    multi_tau,
    two_time,
)
from beamline_ml.errors import CorrelationError
from beamline_ml.records import G2, AgeLagTwoTime, TwoTime

from . import speckle

N_FRAMES = 40
QMAP = speckle.rings((12, 15))
FRAMES = speckle.counts(np.random.default_rng(5), QMAP, N_FRAMES, mean=0.5)
BRIGHT = FRAMES * 90
SPREAD = np.minimum(BRIGHT, 255)


@cache
def expected_two_time(bright: bool, normalization: str = "plain") -> TwoTime:
    """What all deliveries have to give: the run in one piece."""
    return two_time(BRIGHT if bright else FRAMES, QMAP, normalization)


@cache
def expected_multi_tau(bright: bool, convention: str, definition: str) -> G2:
    return multi_tau(SPREAD if bright else FRAMES, QMAP, convention=convention, definition=definition)


@cache
def expected_age_lag(bright: bool, convention: str) -> AgeLagTwoTime:
    return age_lag_two_time(SPREAD if bright else FRAMES, QMAP, n_ages=8, convention=convention)


@st.composite
def deliveries(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Blocks (first, last) that cover the run, in any order, some of them twice or overlapping."""
    cuts = sorted(draw(st.sets(st.integers(1, N_FRAMES - 1), max_size=8)) | {0, N_FRAMES})
    blocks = list(pairwise(cuts))
    again = draw(st.lists(st.tuples(st.integers(0, N_FRAMES - 1), st.integers(1, 12)), max_size=3))
    blocks += [(first, min(first + n, N_FRAMES)) for first, n in again]
    return draw(st.permutations(blocks))


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    blocks=deliveries(),
    bright=st.booleans(),
    normalization=st.sampled_from(["plain", "static"]),
    restart=st.integers(0, 12),
    known=st.booleans(),
)
def test_two_time(blocks: list[tuple[int, int]], bright: bool, normalization: str, restart: int, known: bool) -> None:
    frames = BRIGHT if bright else FRAMES
    accumulator = TwoTimeAccumulator(QMAP, normalization=normalization, n_frames=N_FRAMES if known else None)
    for i, (first, last) in enumerate(blocks):
        accumulator.add(frames[first:last], first)
        if i == restart:
            accumulator.result()
            accumulator = TwoTimeAccumulator.from_arrays(accumulator.to_arrays())
    result, expected = accumulator.result(), expected_two_time(bright, normalization)
    for name in ("c2", "numerator", "frame_sum"):
        assert getattr(result, name).tobytes() == getattr(expected, name).tobytes(), name


def test_two_blocks_split_anywhere() -> None:
    """The first block decides how much room there is; what comes later must not lie beyond it."""
    whole = expected_two_time(bright=False).c2.tobytes()
    for first in range(1, N_FRAMES):
        accumulator = TwoTimeAccumulator(QMAP)
        accumulator.add(FRAMES[:first], 0)
        accumulator.add(FRAMES[first:], first)
        assert accumulator.result().c2.tobytes() == whole, first


@settings(max_examples=50, deadline=None, derandomize=True)
@given(blocks=deliveries())
def test_floating_point_two_time(blocks: list[tuple[int, int]]) -> None:
    frames = FRAMES * np.float64(0.37)
    accumulator = TwoTimeAccumulator(QMAP)
    for first, last in blocks:
        accumulator.add(frames[first:last], first)
    assert accumulator.result().c2.tobytes() == two_time(frames, QMAP).c2.tobytes()


def through_file(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a checkpoint goes through: plain arrays, no pickle."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        return dict(stored)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    blocks=deliveries(),
    restart=st.integers(0, 12),
    bright=st.booleans(),
    convention=st.sampled_from(["aps", "scikit-beam"]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
)
def test_multi_tau(
    blocks: list[tuple[int, int]], restart: int, bright: bool, convention: str, dtype: type[np.unsignedinteger]
) -> None:
    frames = (SPREAD if bright else FRAMES).astype(dtype)
    accumulator = MultiTauAccumulator(QMAP, convention=convention)
    for i, (first, last) in enumerate(blocks):
        accumulator.add(frames[first:last], first)
        if i == restart:
            with suppress(CorrelationError):  # one frame alone has no pair
                accumulator.result()
            accumulator = MultiTauAccumulator.from_arrays(through_file(accumulator.to_arrays()))
    for definition in ("symmetric", "ratio_of_sums", "mean_of_ratios"):
        result, expected = accumulator.result(definition), expected_multi_tau(bright, convention, definition)
        assert result.g2.tobytes() == expected.g2.tobytes()
        assert result.g2_err.tobytes() == expected.g2_err.tobytes()
    assert accumulator.age_lag(8).c2.tobytes() == expected_age_lag(bright, convention).c2.tobytes()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(blocks=deliveries(), restart=st.integers(0, 12), bright=st.booleans())
def test_long_two_time(blocks: list[tuple[int, int]], restart: int, bright: bool) -> None:
    frames = BRIGHT if bright else FRAMES
    accumulator = LongTwoTimeAccumulator(QMAP, max_rows=16)
    for i, (first, last) in enumerate(blocks):
        accumulator.add(frames[first:last], first)
        if i == restart:
            accumulator = LongTwoTimeAccumulator.from_arrays(through_file(accumulator.to_arrays()))
    result, expected = accumulator.result(), bin_time(expected_two_time(bright), 4)
    for name in ("c2", "numerator", "frame_sum"):
        assert getattr(result, name).tobytes() == getattr(expected, name).tobytes(), name
