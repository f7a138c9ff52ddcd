"""New frames of a run whose pattern fit is known: an information filter whose cost does not grow with the run.

The particles at the end of the frames seen so far, x(p), are carried with their derivative dx/dp. For other parameters
they start the next block at x + dx/dp (p - p0), which is as good as integrating from the beginning once p hardly moves;
what all earlier frames said about p is a quadratic form. So a block costs its own frames and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.dynamics.flow import follow, follow_with_tangents
from beamline_ml.dynamics.growing_horizon import Evaluation
from beamline_ml.dynamics.pattern_contest import PatternContest, of_frames
from beamline_ml.dynamics.pattern_law import PatternFit, open_particles
from beamline_ml.dynamics.pattern_state import RECENT_FRAMES, PatternState
from beamline_ml.dynamics.patterns import PatternObservations
from beamline_ml.dynamics.photon_information import mean_around, photon_information
from beamline_ml.dynamics.statistical_gauss_newton import OPEN_BENDS, Belief, belief_from
from beamline_ml.dynamics.steadiness import of_parts
from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array

STEPS = 2
LARGEST_STEP = 1.0
"""In units of the standard deviations that the parameters had before, root mean square."""


def go_on(fit: PatternFit, observations: PatternObservations) -> PatternFit:
    """Take in the frames that are later than those the fit knows; frames that it knows are not looked at.

    Raises
    ------
    FitRefused
        When the fit carries no state, nothing is new, or the motion does not stay finite.
    """
    state = fit.state
    if state is None:
        raise FitRefused("This fit ended before it had a state to go on from.", "Fit the run from its beginning.")
    new = observations.times_s > state.end_s + 1e-9
    if not new.any():
        raise FitRefused(f"No frame is later than {state.end_s:.6g} s.", "Wait for new frames.")
    return absorb(fit, state, observations.counts[new], observations.times_s[new])


def absorb(fit: PatternFit, state: PatternState, counts: NDArray[Any], times_s: Float64Array) -> PatternFit:
    """The fit after one more block: counts (n_frames, size, size) at times (n_frames,) after the state's end."""
    block = _Block(fit, state, counts, np.append(state.end_s, times_s))
    prior = block.belief(state.information, state.vector - state.information @ state.mean, state.mean, state.smoothness)
    mean, seen = state.mean, block.evaluate(state.mean)
    earlier = Evaluation(state.information, state.vector - state.information @ mean, 0.0, fit.chi2)
    steadiness, contest = fit.steadiness.with_more(of_parts(earlier, seen)), block.contest()
    for _ in range(STEPS):
        target = block.combined(seen, mean, prior.smoothness)
        mean = _trusted(mean, target.mean, prior)
        seen = block.evaluate(mean)
    at = block.combined(seen, mean, prior.smoothness)
    n_before, n_new = state.n_frames, len(times_s)
    chi2 = (n_before * fit.chi2 + n_new * seen.chi2) / (n_before + n_new)
    chi2_err = float(np.hypot(n_before * fit.chi2_err, n_new * seen.chi2_err)) / (n_before + n_new)
    carried = block.carried(mean, seen, at.smoothness)
    law = fit.law.with_parameters(state.unit * mean[:-1])
    covariance = np.outer(state.unit, state.unit) * at.covariance[:-1, :-1] * max(1.0, chi2)
    n = len(fit.coefficients)
    found = replace(
        fit.with_law(law),
        covariance=covariance[:n, :n],
        chi2=chi2,
        start_um=carried.start_um,
        # What is left unknown of a start shows in the frames to come as anything else does.
        joint_covariance=None if law.n_parameters == n else covariance,
        photons_per_intensity=state.first_photons_per_intensity * float(np.exp(mean[-1])),
        times_s=np.append(fit.times_s[: fit.used_frames], times_s),
        used_frames=carried.n_frames,
        state=carried,
        chi2_err=chi2_err,
        steadiness=steadiness,
        # What had been said of the law is said anew.
        warnings=tuple(said for said in fit.warnings if said not in fit.doubts),
    )
    together = contest if fit.contest is None else fit.contest.joined(contest)
    return found.judged(together, carried.recent_counts, carried.recent_s)


def _trusted(old: Float64Array, new: Float64Array, belief: Belief) -> Float64Array:
    """A step not much longer than what was known allows: a poisoned block cannot throw the filter off its track."""
    step = new - old
    reach = np.sqrt(step @ np.linalg.solve(belief.covariance, step) / len(step))
    return np.asarray(old + step * min(1.0, LARGEST_STEP / max(float(reach), 1e-30)), np.float64)


class _Block:
    """Frames of one block, started from wherever the parameters put the particles at its beginning."""

    def __init__(self, fit: PatternFit, state: PatternState, counts: NDArray[Any], times_s: Float64Array) -> None:
        if not np.isfinite(counts).all() or (np.asarray(counts) < 0).any():
            raise FitRefused("New counts are not finite or negative.", "Mask bad pixels and drop bad frames first.")
        self._fit, self._state, self._counts, self._times_s = fit, state, counts, times_s
        self.end_um, self.end_tangent = state.end_um, state.end_tangent

    def carried(self, mean: Float64Array, seen: Evaluation, smoothness: float | Float64Array) -> PatternState:
        """What to remember after the block; after :meth:`evaluate` at the new mean, which gave ``seen``."""
        state = self._state
        return replace(
            state,
            mean=mean,
            information=state.information + seen.information,
            vector=state.vector + seen.information @ mean + seen.pull,
            smoothness=np.atleast_1d(smoothness),
            start_um=state.start_um + state.start_tangent @ (mean - state.mean),
            end_s=float(self._times_s[-1]),
            end_um=self.end_um,
            end_tangent=self.end_tangent,
            n_frames=state.n_frames + len(self._counts),
            recent_counts=np.concatenate([state.recent_counts, self._counts])[-RECENT_FRAMES:],
            recent_s=np.append(state.recent_s, self._times_s[1:])[-RECENT_FRAMES:],
        )

    def contest(self) -> PatternContest:
        """Who foretold the block best from the frames before it."""
        state, fit = self._state, self._fit
        x = follow(open_particles(state.end_um, self._times_s), fit.law, 0.0, "rk4")[1:]
        counts = np.concatenate([state.recent_counts, self._counts])
        asked = counts.reshape(len(counts), -1)[:, state.pixels]
        light = mean_around(asked.mean(axis=0), fit.scattering.used.shape, state.pixels)
        expected = fit.photons_per_intensity * fit.scattering.at_pixels(x, state.pixels)
        return of_frames(asked, np.append(state.recent_s, self._times_s[1:]), light, expected)

    def evaluate(self, mean: Float64Array) -> Evaluation:
        """What the block says; keeps the particles at its end."""
        state, fit = self._state, self._fit
        start = state.end_um + state.end_tangent @ (mean - state.mean)
        unit = np.append(state.unit, 1.0)
        law = fit.law.with_parameters(state.unit * mean[:-1])
        particles = open_particles(start, self._times_s)
        x, tangents = follow_with_tangents(particles, law, 0.0, "rk4", state.end_tangent / unit)
        if not (np.isfinite(x).all() and np.isfinite(tangents).all()):
            raise FitRefused("The particles' motion is not finite.", "Fit the run again from its beginning.")
        self.end_um, self.end_tangent = x[-1], unit * tangents[-1]
        scale = state.first_photons_per_intensity * float(np.exp(mean[-1]))
        slopes = state.unit * tangents[1:, :, :, :-1]
        return photon_information(fit.scattering, self._counts, x[1:], slopes, state.pixels, scale)

    def combined(self, seen: Evaluation, at: Float64Array, smoothness: float | Float64Array) -> Belief:
        """Belief from all frames, linearised at ``at``."""
        state = self._state
        earlier = state.vector - state.information @ at
        return self.belief(state.information + seen.information, earlier + seen.pull, at, smoothness)

    def belief(
        self, information: Float64Array, pull: Float64Array, at: Float64Array, smoothness: float | Float64Array
    ) -> Belief:
        """Belief from what frames said, linearised at ``at``, and the prior."""
        known, n = self._state.prior_mean, len(self._fit.coefficients)
        return belief_from(information, pull, at, known, smoothness, self._fit.chi2, OPEN_BENDS, n)
