"""Speckle movies with a known answer: independent pixels, Gaussian fields, exponential or stretched decay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation import QMap


def rings(shape: tuple[int, int] = (32, 40), n_q: int = 3, static_per_q: int = 2) -> QMap:
    """Interleaved bins of nearly equal size, with unused pixels in between, so that gathering is not trivial."""
    index = np.arange(shape[0] * shape[1]).reshape(shape)
    static = index * 11 % (n_q * static_per_q + 1)
    labels = (static + static_per_q - 1) // static_per_q
    return QMap(labels, static, q_inv_angstrom=1e-4 * np.arange(1, n_q + 1))


def ornstein_uhlenbeck(
    rng: np.random.Generator, n_frames: int, n_pixels: int, relaxation_frames: float, n_modes: int = 1
) -> NDArray[np.float64]:
    """(n_frames, n_pixels) intensities of mean 1 with g2 = 1 + exp(-2 t / relaxation_frames) / n_modes."""
    keep = np.exp(-1.0 / relaxation_frames)
    fresh = np.sqrt(1 - keep**2)
    shape = (2 * n_modes, n_pixels)
    field = rng.standard_normal(shape)
    intensity = np.empty((n_frames, n_pixels))
    for t in range(n_frames):
        intensity[t] = (field**2).sum(axis=0) / (2 * n_modes)
        field = keep * field + fresh * rng.standard_normal(shape)
    return intensity


def counts(
    rng: np.random.Generator, qmap: QMap, n_frames: int, mean: float, relaxation_frames: float = 20.0, n_modes: int = 1
) -> NDArray[np.uint16]:
    """(n_frames, rows, cols) Poisson counts; bin q relaxes q times faster than bin 1."""
    frames = rng.poisson(mean, (n_frames, *qmap.frame_shape))
    for q in range(1, qmap.n_q + 1):
        mine = qmap.labels == q
        frames[:, mine] = rng.poisson(
            mean * ornstein_uhlenbeck(rng, n_frames, int(mine.sum()), relaxation_frames / q, n_modes)
        )
    return frames.astype(np.uint16)
