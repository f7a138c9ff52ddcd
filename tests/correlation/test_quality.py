"""Frames that should not count are named."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.correlation import QMap, frame_quality

LABELS = np.ones((24, 24), int)
LABELS[:4] = 0


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).poisson(1.0, (120, 24, 24)).astype(np.uint16)


def test_good_frames_raise_no_flag(frames: np.ndarray) -> None:
    quality = frame_quality(frames, QMap(LABELS))
    for name in ("missing", "zero", "saturated", "outlier"):
        assert not getattr(quality, name).any(), name


def test_each_fault_has_its_flag(frames: np.ndarray) -> None:
    frames[10] = 0
    frames[20, 8, 8] = 2**16 - 1
    frames[30] *= 3
    frames[40, 1, 1] = 2**16 - 1  # not a used pixel
    quality = frame_quality(frames, QMap(LABELS), n_frames=125)
    assert np.flatnonzero(quality.missing).tolist() == [120, 121, 122, 123, 124]
    assert np.flatnonzero(quality.zero).tolist() == [10]
    assert np.flatnonzero(quality.saturated).tolist() == [20]
    assert np.flatnonzero(quality.outlier).tolist() == [20, 30]


def test_slow_drift_is_no_outlier() -> None:
    mean = np.linspace(1.0, 3.0, 200)[:, None, None] * np.ones((1, 24, 24))
    frames = np.random.default_rng(1).poisson(mean)
    assert not frame_quality(frames, QMap(LABELS)).outlier.any()


def test_saturation_can_be_set_and_masked_pixels_are_counted(frames: np.ndarray) -> None:
    frames[7, 9, 9] = 30
    bad = np.zeros((24, 24), bool)
    bad[10, 10:13] = True
    quality = frame_quality(frames, QMap(LABELS).without(bad), saturation=30)
    assert np.flatnonzero(quality.saturated).tolist() == [7]
    assert quality.n_masked_pixels == 3
