"""Gauss-Newton over ever more frames: a motion that is nearly right over a few frames is the start for some more."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from beamline_ml.records import Float64Array

FIRST_FRAMES = 4
GROWTH = 1.5
NEARLY_ALL = 0.8
STEPS_PER_STAGE = 2
LAST_STEPS, MOST_LAST_STEPS = 3, 12
SETTLED = 2.0
"""Fall of the misfit (twice a log-likelihood) in a step, below which the last stage has arrived."""
TRIALS = 4
SHORTER = 0.3
TOLERATED = 1.005
"""How much the misfit may grow in a step, which follows the prior as well."""

Fit = TypeVar("Fit", covariant=True)


@dataclass(frozen=True)
class Evaluation:
    """What is known at some parameters."""

    information: Float64Array
    """(m, m)."""
    pull: Float64Array
    """(m,) towards better parameters."""
    misfit: float
    """What the steps lower."""
    chi2: float
    """1 where noise alone explains the data."""
    chi2_err: float = 0.0
    """Standard deviation of ``chi2`` by noise alone."""

    @classmethod
    def nowhere(cls, m: int) -> Evaluation:
        """Where the motion does not stay finite."""
        return cls(np.zeros((m, m)), np.zeros(m), np.inf, np.inf)


class Work(Protocol[Fit]):
    """A fit that is under way."""

    def step(self, horizon: int) -> float:
        """Take one step on the first ``horizon`` frames; returns by how much the misfit fell."""
        ...

    def result(self, horizon: int, warnings: tuple[str, ...]) -> Fit:
        """The fit so far."""
        ...


def horizons(n_frames: int) -> list[int]:
    """How many frames each stage uses: ever more, in the end all."""
    stages = [min(FIRST_FRAMES, n_frames)]
    while stages[-1] < n_frames:
        grown = int(np.ceil(GROWTH * stages[-1]))
        stages.append(grown if grown < NEARLY_ALL * n_frames else n_frames)
    return stages


def fit_growing(work: Work[Fit], n_frames: int, deadline: float, steps_per_stage: int = STEPS_PER_STAGE) -> Fit:
    """All stages, or those that end before ``deadline`` on the monotonic clock, which the fit's warnings then say.

    A stage before the last one takes ``steps_per_stage`` at most, and ends earlier where nothing is gained any more.
    """
    for horizon in horizons(n_frames):
        last = horizon == n_frames
        least, most = (LAST_STEPS, MOST_LAST_STEPS) if last else (STEPS_PER_STAGE, steps_per_stage)
        for n_steps in range(1, most + 1):
            if time.monotonic() > deadline:
                return work.result(horizon, (f"The time budget ended at frame {horizon} of {n_frames}.",))
            if work.step(horizon) < SETTLED and n_steps >= least:
                break
    return work.result(n_frames, ())


def damped(
    mean: Float64Array,
    target: Float64Array,
    misfit: float,
    evaluate: Callable[[Float64Array], Evaluation],
    longest: float | Float64Array,
) -> tuple[Float64Array, Evaluation] | None:
    """Parameters on the way from ``mean`` to ``target`` at which the misfit does not grow, with what holds there.

    No parameter changes by more than (its) ``longest``; None where even short steps make it worse.
    """
    change = target - mean
    scale = min(1.0, 1.0 / max(float((np.abs(change) / longest).max()), 1e-30))
    for _ in range(TRIALS):
        trial = mean + scale * change
        found = evaluate(trial)
        if found.misfit <= TOLERATED * misfit:
            return trial, found
        scale *= SHORTER
    return None
