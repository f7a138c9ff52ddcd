"""Events give what the frames that they make up give."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.correlation import QMap, multi_tau, multi_tau_events
from beamline_ml.errors import CorrelationError

from . import speckle


@pytest.fixture(scope="module")
def qmap() -> QMap:
    return speckle.rings()


@pytest.fixture(scope="module")
def frames(qmap: QMap) -> np.ndarray:
    return speckle.counts(np.random.default_rng(1), qmap, 205, mean=0.05)


@pytest.mark.parametrize("definition", ["symmetric", "ratio_of_sums", "mean_of_ratios"])
@pytest.mark.parametrize("convention", ["aps", "scikit-beam"])
@pytest.mark.parametrize("mean", [0.02, 0.5], ids=["pair by pair", "level by level"])
def test_events_equal_frames(qmap: QMap, mean: float, convention: str, definition: str) -> None:
    frames = speckle.counts(np.random.default_rng(1), qmap, 205, mean)
    t, row, col = np.nonzero(frames)
    pixel, count = row * frames.shape[2] + col, frames[t, row, col]
    choices = {"convention": convention, "definition": definition, "bad_frames": [17, 90]}
    events = multi_tau_events(t, pixel, qmap, len(frames), 0.1, count=count, **choices)
    dense = multi_tau(frames, qmap, 0.1, **choices)
    np.testing.assert_array_equal(events.delay_frames, dense.delay_frames)
    np.testing.assert_array_equal(events.g2, dense.g2)
    np.testing.assert_array_equal(events.g2_err, dense.g2_err)


def test_order_does_not_matter_and_equal_events_add(qmap: QMap, frames: np.ndarray) -> None:
    t, row, col = np.nonzero(frames)
    repeated = np.repeat(np.arange(t.size), frames[t, row, col])
    shuffled = np.random.default_rng(0).permutation(repeated)
    pixel = row * frames.shape[2] + col
    events = multi_tau_events(t[shuffled], pixel[shuffled], qmap, len(frames))
    np.testing.assert_array_equal(events.g2, multi_tau(frames, qmap).g2)


@pytest.mark.parametrize(
    ("frame", "pixel", "count", "message"),
    [
        ([0, 205], [1, 2], None, "frames 0 to 205 of 205"),
        ([0, -1], [1, 2], None, "frames -1 to 0"),
        ([0, 1], [1, 1280], None, "pixels 1 to 1280 of 1280"),
        ([0, 1], [1], None, "2 frame indices, 1 pixels"),
        ([0, 1], [1, 2], [1, -1], "counts from -1"),
    ],
)
def test_events_outside_the_run_or_detector_are_refused(
    qmap: QMap, frame: list[int], pixel: list[int], count: list[int] | None, message: str
) -> None:
    with pytest.raises(CorrelationError, match=message):
        multi_tau_events(frame, pixel, qmap, 205, count=count)
