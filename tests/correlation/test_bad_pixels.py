"""Pixels that do not count photons are found; pixels that do are kept."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.correlation import bad_pixels
from beamline_ml.errors import CorrelationError

from . import speckle

SHAPE = (48, 64)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).poisson(0.6, (200, *SHAPE)).astype(np.uint16)


def test_ordinary_poisson_frames_have_no_bad_pixel(frames: np.ndarray) -> None:
    assert not bad_pixels(frames).any()


def test_static_coherent_speckle_is_not_called_hot() -> None:
    qmap = speckle.rings(SHAPE, n_q=1, static_per_q=1)
    frames = speckle.counts(np.random.default_rng(1), qmap, 150, mean=3.0, relaxation_frames=2_000)
    assert not bad_pixels(frames).any()


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (11_810, np.uint16),
        (2**16 - 1, np.uint16),
        (2**32 - 1, np.uint32),
        (2**31 - 1, np.int32),
        (-1, np.int32),
        (0, np.uint16),
        (2**12 - 1, np.uint16),
    ],
    ids=["hot", "2^16-1", "2^32-1", "2^31-1", "gap mark", "dead", "2^12-1"],
)
def test_stuck_pixels_are_found(frames: np.ndarray, value: int, dtype: type) -> None:
    stuck = frames.astype(dtype)
    stuck[:, 10, 20] = value
    stuck[:, 31:33, 5] = value
    expected = np.zeros(SHAPE, bool)
    expected[10, 20] = expected[31, 5] = expected[32, 5] = True
    np.testing.assert_array_equal(bad_pixels(stuck), expected)


def test_a_mark_in_a_single_frame_is_enough(frames: np.ndarray) -> None:
    frames[77, 3, 4] = 2**16 - 1
    assert np.argwhere(bad_pixels(frames)).tolist() == [[3, 4]]


def test_whole_modules_of_marked_pixels_are_found(frames: np.ndarray) -> None:
    wide = frames.astype(np.uint32)
    wide[:, :, 30:34] = 2**32 - 1
    bad = bad_pixels(wide)
    assert bad[:, 30:34].all()
    assert bad.sum() == 4 * SHAPE[0]


def test_nan_and_infinite_pixels_are_found(frames: np.ndarray) -> None:
    floats = frames.astype(np.float32)
    floats[5, 1, 2] = np.nan
    floats[6, 2, 3] = np.inf
    assert np.argwhere(bad_pixels(floats)).tolist() == [[1, 2], [2, 3]]


def test_flickering_pixel_is_hot(frames: np.ndarray) -> None:
    frames[::4, 20, 20] = 90
    assert np.argwhere(bad_pixels(frames)).tolist() == [[20, 20]]


def test_saturation_is_tested_when_asked(frames: np.ndarray) -> None:
    frames[9, 7, 7] = 13
    assert not bad_pixels(frames).any()
    assert np.argwhere(bad_pixels(frames, saturation=13)).tolist() == [[7, 7]]


def test_a_shadow_is_not_full_of_dead_pixels(frames: np.ndarray) -> None:
    frames[:, 10:30, 10:30] = 0  # beam stop
    assert bad_pixels(frames)[14:26, 14:26].sum() == 0


@pytest.mark.parametrize("frames", [np.zeros((4, 4)), np.zeros((0, 4, 4)), np.zeros((2, 2, 2), complex)])
def test_what_are_no_frames_is_refused(frames: np.ndarray) -> None:
    with pytest.raises(CorrelationError, match="Cannot judge pixels"):
        bad_pixels(frames)
