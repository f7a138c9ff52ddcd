"""Dark regions are found; darkness that chance or frozen speckle makes is not."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.correlation import shadows
from beamline_ml.errors import GeometryError

from . import speckle

SHAPE = (96, 128)
RINGS = speckle.rings(SHAPE, n_q=4, static_per_q=1).labels


def lit(mean: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(mean, SHAPE).astype(np.int64)


@pytest.mark.parametrize("mean", [2.0, 5.0, 300.0])
def test_a_beam_stop_arm_is_found_whole_and_nothing_else(mean: float) -> None:
    counts = lit(mean)
    counts[:50, 58:70] = 0
    covered = np.zeros(SHAPE, bool)
    covered[:50, 58:70] = RINGS[:50, 58:70] > 0
    found = shadows(counts, RINGS) > 0
    assert found[covered].mean() > 0.9
    assert not found[~covered & (counts > 0)].any()


def test_two_shadows_are_told_apart() -> None:
    counts = lit(20.0)
    counts[10:25, 20:40] = 0
    counts[60:80, 90:105] = 0
    assert shadows(counts, RINGS).max() == 2


@pytest.mark.parametrize("mean", [1e-3, 0.02, 0.3, 2.0, 50.0])
def test_ordinary_frames_have_none(mean: float) -> None:
    assert not any(shadows(lit(mean, seed), RINGS).any() for seed in range(20))


def test_frozen_coherent_speckle_has_none() -> None:
    """Negative-exponential intensities, three pixels wide, that do not move at all."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        field = rng.standard_normal((2, SHAPE[0] // 3, SHAPE[1] // 3 + 1))
        intensity = np.kron((field**2).sum(axis=0) / 2, np.ones((3, 3)))[: SHAPE[0], : SHAPE[1]]
        counts = rng.poisson(4.0 * intensity)
        assert not shadows(counts, RINGS[: counts.shape[0], : counts.shape[1]]).any()


def test_a_bin_that_is_dark_altogether_says_nothing() -> None:
    counts = np.where(RINGS == 2, 0, lit(50.0))
    assert not shadows(counts, RINGS).any()


def test_counts_of_another_detector_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"\(96, 96\).*\(96, 128\)"):
        shadows(np.ones((96, 96)), RINGS)
