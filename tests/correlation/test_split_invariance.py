"""Any split, order, repetition and restart gives the same bits."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamline_ml.correlation import MultiTauAccumulator, TwoTimeAccumulator, multi_tau, two_time
from beamline_ml.errors import CorrelationError

from . import speckle

N_FRAMES = 40
QMAP = speckle.rings((12, 15))
FRAMES = speckle.counts(np.random.default_rng(5), QMAP, N_FRAMES, mean=0.5)
BRIGHT = FRAMES * 90
EXPECTED = {
    (bright, normalization): two_time(BRIGHT if bright else FRAMES, QMAP, normalization)
    for bright in (False, True)
    for normalization in ("plain", "static")
}
MULTI_TAU = multi_tau(FRAMES, QMAP)


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
    result, expected = accumulator.result(), EXPECTED[bright, normalization]
    for name in ("c2", "numerator", "frame_sum"):
        assert getattr(result, name).tobytes() == getattr(expected, name).tobytes(), name


@settings(max_examples=50, deadline=None, derandomize=True)
@given(blocks=deliveries())
def test_floating_point_two_time(blocks: list[tuple[int, int]]) -> None:
    frames = FRAMES * np.float64(0.37)
    accumulator = TwoTimeAccumulator(QMAP)
    for first, last in blocks:
        accumulator.add(frames[first:last], first)
    assert accumulator.result().c2.tobytes() == two_time(frames, QMAP).c2.tobytes()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(blocks=deliveries(), restart=st.integers(0, 12))
def test_multi_tau(blocks: list[tuple[int, int]], restart: int) -> None:
    accumulator = MultiTauAccumulator(QMAP)
    for i, (first, last) in enumerate(blocks):
        accumulator.add(FRAMES[first:last], first)
        if i == restart:
            with suppress(CorrelationError):  # one frame alone has no pair
                accumulator.result()
    result = accumulator.result()
    assert result.g2.tobytes() == MULTI_TAU.g2.tobytes()
    assert result.g2_err.tobytes() == MULTI_TAU.g2_err.tobytes()
