"""Simulated runs that follow the advice, beside an oracle that knows how errors really shrink, and a fixed schedule.

Speckle comes from ``tests.correlation.speckle`` (Gaussian fields, Poisson counts), which knows nothing of the noise
model behind the advice; how errors really shrink is the scatter of fits around the truth over many realisations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.correlation import QMap, fit_relaxation, multi_tau
from beamline_ml.guidance import Goal, RunSoFar, advise
from tests.correlation.speckle import ornstein_uhlenbeck

PERIOD_S = 0.05
SHAPE = (16, 20)
FIRST_FRAMES = 100
QMAP = QMap(np.ones(SHAPE, int), q_inv_angstrom=[1e-3])


@dataclass(frozen=True)
class Sample:
    """What the beam meets."""

    relaxation_frames: float
    counts: float


def movie(sample: Sample, n_frames: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    intensity = ornstein_uhlenbeck(rng, n_frames, SHAPE[0] * SHAPE[1], sample.relaxation_frames)
    return rng.poisson(sample.counts * intensity).astype(np.uint16).reshape(-1, *SHAPE)


def run_of(frames: np.ndarray) -> RunSoFar:
    g2 = multi_tau(frames, QMAP, PERIOD_S)
    n_pixels = np.array([SHAPE[0] * SHAPE[1]])
    return RunSoFar(g2, fit_relaxation(g2), len(frames), PERIOD_S, n_pixels, np.array([frames.mean()]))


def log_error(sample: Sample, frames: np.ndarray) -> float:
    """Deviation of the fitted log relaxation time; 1, what was known before, where there is no fit."""
    time_s = fit_relaxation(multi_tau(frames, QMAP, PERIOD_S)).relaxation_time_s[0]
    off = np.log(time_s / (sample.relaxation_frames * PERIOD_S))
    return float(min(abs(off), 1.0)) if np.isfinite(off) else 1.0


def true_errors(sample: Sample, lengths: np.ndarray, n_realisations: int, first_seed: int = 10_000) -> np.ndarray:
    """(n_lengths,) rms error of the log relaxation time over realisations, made to fall with length."""
    squared = np.zeros(len(lengths))
    for seed in range(first_seed, first_seed + n_realisations):
        frames = movie(sample, int(lengths[-1]), seed)
        squared += [log_error(sample, frames[:n]) ** 2 for n in lengths]
    return np.minimum.accumulate(np.sqrt(squared / n_realisations))


def followed(sample: Sample, goal: Goal, seed: int) -> int:
    """Frames after which a run that follows the advice, asked again at the latest when twice as long, has ended."""
    longest = round(goal.longest_s / PERIOD_S)
    frames, n = movie(sample, longest, seed), FIRST_FRAMES
    while True:
        advice = advise(run_of(frames[:n]), goal)
        if advice.action == "stop" or n >= longest:
            return n
        n = min(longest, 2 * n, n + max(1, round(advice.go_on_s / PERIOD_S)))


def information(lengths: np.ndarray, errors: np.ndarray, n_frames: float, wanted: float) -> float:
    """Nats about the log relaxation time after a run; what is better than wanted does not count."""
    error = np.exp(np.interp(np.log(n_frames), np.log(lengths), np.log(errors)))
    return float(np.log(1.0 / min(max(error, wanted), 1.0)))


def oracle_frames(lengths: np.ndarray, errors: np.ndarray, wanted: float) -> float:
    """Shortest run that truly has all the information it can count for."""
    goal = max(wanted, errors[-1]) * (1.0 + 1e-9)
    grid = np.geomspace(lengths[0], lengths[-1], 400)
    curve = np.exp(np.interp(np.log(grid), np.log(lengths), np.log(errors)))
    return float(grid[np.argmax(curve <= goal)])
