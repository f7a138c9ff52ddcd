"""Fit of a force law to speckle patterns: Gauss-Newton with a growing horizon and exact tangents.

The start is known, so every later pattern is a function of the force, and of how bright the beam is, alone
(``photon_information``). The prior asks for a smooth kernel, its strength set by the evidence. The normal matrix at the
end is the posterior. A start that is wrong is corrected on the first frame (``start_refinement``), and then fitted
together with the force on all of them (``pattern_work``): only a start that is right explains the whole run.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

import numpy as np

from beamline_ml.dynamics.growing_horizon import fit_growing
from beamline_ml.dynamics.model import DynamicsModel
from beamline_ml.dynamics.pattern_law import PatternFit
from beamline_ml.dynamics.pattern_work import FreeStart, PatternWork
from beamline_ml.dynamics.patterns import PatternObservations
from beamline_ml.dynamics.start_refinement import (
    START_MISFIT,
    expected_error_um,
    first_misfit,
    refined_start,
    refuse_unlike_start,
)
from beamline_ml.errors import FitRefused, NotIdentifiable
from beamline_ml.records import Float64Array

EXPLAINED_CHI2 = 1.05
"""Of the whole run, up to which its start is not doubted."""
CONVINCING_CHI2 = 1.01
"""Of the whole run, up to which no other corrected start is tried."""
SAME_CHI2 = 1e-3
"""Two fits from different starts that differ by less have found the same minimum."""
STEPS_WITH_START = 4
"""On each horizon, where the start is free: it has more to find."""
CORRECTED_CHI2 = 1.2
"""Of the whole run, above which the best corrected start was a wrong minimum."""
FARTHEST = 1.45
"""RMS correction of a start's coordinates in units of half a neighbour distance. Farther away, what explains the run is
found by luck (4 of 10 samples that were wrong by a whole one), and whoever gave such a start should know."""
STARTS = 6
"""Corrected starts that are tried on the whole run."""
SHARE_OF_START = 0.5
"""Part of the time budget after which no other start is tried."""


def fit_patterns(
    observations: PatternObservations, model: DynamicsModel, time_budget_s: float, seed: int = 0
) -> PatternFit:
    """Find the force law behind a run of patterns.

    Raises
    ------
    NotIdentifiable
        When the start positions do not explain the run, and none nearby does: they must be right to half a neighbour
        distance (the mean distance to the nearest neighbour).
    FitRefused
        When the motion does not stay finite, or a plane wave is asked for a uniform drift.
    """
    if model.drift == "uniform" and observations.scattering.probe_um is None:
        raise FitRefused(
            "Under a plane wave the patterns do not change when all particles move alike: they show no uniform drift.",
            "Give the scattering its probe_um, or leave the drift out.",
        )
    began = time.monotonic()
    deadline, no_more_starts = began + time_budget_s, began + SHARE_OF_START * time_budget_s
    n_frames = len(observations.times_s)
    as_given = None
    if first_misfit(observations) <= START_MISFIT:
        as_given = fit_growing(PatternWork(observations, model, seed), n_frames, deadline)
        if as_given.chi2 <= EXPLAINED_CHI2 or time.monotonic() > no_more_starts:
            return as_given
    best = _corrected(observations, model, seed, deadline, no_more_starts)
    if as_given is not None and (best is None or best.chi2 >= min(as_given.chi2, CORRECTED_CHI2)):
        return as_given
    if best is not None and best.chi2 <= CORRECTED_CHI2:
        if as_given is not None and not _is_near(observations.start_um, best):
            # A start that explains the first frame: the law is to blame, and the fit's doubts say so.
            return as_given
        return _near_enough(observations.start_um, best)
    if best is None:
        # A start whose pattern is like the first frame, but which cannot be bettered: the optics may be to blame.
        refuse_unlike_start(observations)
        return fit_growing(PatternWork(observations, model, seed), n_frames, deadline)
    raise NotIdentifiable(
        f"Positions near the given start explain the first frame, but not the run: chi-squared {best.chi2:.2f}.",
        "Retrieve the first frame's positions to half a neighbour distance, or fit correlations instead.",
    )


def _corrected(
    observations: PatternObservations, model: DynamicsModel, seed: int, deadline: float, no_more_starts: float
) -> PatternFit | None:
    """The best of some fits of start and force together; None where no start near the given one explains frame 1."""
    free = FreeStart(observations.start_um, expected_error_um(observations.start_um))
    found: list[PatternFit] = []
    for attempt in range(STARTS):
        start = refined_start(observations, free.error_um, no_more_starts, seed, attempt)
        if start.misfit <= START_MISFIT:
            # A start from which no motion stays finite is one more that was wrong.
            with suppress(FitRefused):
                work = PatternWork(replace(observations, start_um=start.positions_um), model, seed, free)
                found.append(fit_growing(work, len(observations.times_s), deadline, STEPS_WITH_START))
        if _convincing([fit.chi2 for fit in found]) or time.monotonic() > no_more_starts:
            break
    return min(found, key=lambda fit: fit.chi2, default=None)


def _convincing(chi2: list[float]) -> bool:
    """Whether one of these fits leaves nothing to explain, or the two best ones arrived at the same answer."""
    best = sorted(chi2)[:2]
    return bool(best) and (best[0] <= CONVINCING_CHI2 or (len(best) == 2 and best[1] - best[0] < SAME_CHI2))


def _near_enough(given_um: Float64Array, found: PatternFit) -> PatternFit:
    """The fit with a word on its start; refused where that is not near the given one."""
    moved_um = _moved_um(given_um, found)
    if not _is_near(given_um, found):
        raise NotIdentifiable(
            f"Only positions {moved_um:.3g} um (RMS of a coordinate) from the given start explain the run.",
            "Retrieve the first frame's positions to half a neighbour distance, or fit correlations instead.",
        )
    said = f"The start did not explain the run: its coordinates were corrected by {moved_um:.3g} um (RMS)."
    return replace(found, warnings=(said, *found.warnings))


def _moved_um(given_um: Float64Array, found: PatternFit) -> float:
    """Root mean square correction of the start's coordinates."""
    return float(np.sqrt(((found.start_um - given_um) ** 2).mean()))


def _is_near(given_um: Float64Array, found: PatternFit) -> bool:
    return _moved_um(given_um, found) <= FARTHEST * expected_error_um(given_um)
