"""What a fit of patterns carries from step to step: Gauss-Newton on the force law, and on the start if that is free.

A start that was read from the first frame alone is only as good as the photons of one frame, and may be a wrong minimum
of it. Later frames know better: every one of them depends on where the particles began. So a free start is fitted
together with the force, its 2 n coordinates as so many parameters more; the motion's tangents carry them as they carry
those of the law.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from beamline_ml.dynamics.flow import follow, follow_with_tangents
from beamline_ml.dynamics.growing_horizon import FIRST_FRAMES, Evaluation, damped
from beamline_ml.dynamics.model import DRIFT_PARAMETERS, DynamicsModel
from beamline_ml.dynamics.motion_law import MotionLaw
from beamline_ml.dynamics.one_body import OneBody
from beamline_ml.dynamics.pattern_contest import pattern_contest
from beamline_ml.dynamics.pattern_law import PatternFit, open_particles
from beamline_ml.dynamics.pattern_state import RECENT_FRAMES, PatternState
from beamline_ml.dynamics.patterns import PatternObservations
from beamline_ml.dynamics.photon_information import (
    chosen_pixels,
    mean_around,
    photon_information,
    photons_per_intensity,
)
from beamline_ml.dynamics.statistical_gauss_newton import (
    CLOSED_BENDS,
    OPEN_BENDS,
    SMOOTHNESS_RANGE,
    Belief,
    Bends,
    belief_from,
    prior_precision,
)
from beamline_ml.dynamics.steadiness import Steadiness, of_parts
from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array, IntArray

MOST_PIXELS = 4096
"""For the last stage, which decides the answer."""
LONGEST_STEP = 3.0
LONGEST_MOVE = 1.0
"""Of a coordinate of the start in one step, in units of its expected error."""
FIRST_SMOOTHNESS = 10.0
LARGEST_TANGENT = 1e15
"""Of positions to parameters in their units: beyond, single precision ends, and the motion is far too stiff anyway."""


@dataclass(frozen=True)
class FreeStart:
    """A start that is known only so well."""

    given_um: Float64Array
    """(n, 2) what was said of it."""
    error_um: float
    """Standard deviation of each of these coordinates."""


class PatternWork:
    """A fit of the law to all frames from the start in ``observations``; where that is free, it is the first guess.

    Parameters are those of the law in a unit each (``_units``), the coordinates of a free start as deviations
    from the given one in units of their expected error, and the logarithm of the photons per unit of intensity over
    those that the first frame alone asks for.
    """

    def __init__(
        self, observations: PatternObservations, model: DynamicsModel, seed: int, free: FreeStart | None = None
    ) -> None:
        self.observations, self._free = observations, free
        start = observations.start_um
        given = start if free is None else free.given_um
        extent = np.ptp(start, axis=0)
        density = len(start) / max(float(np.pi / 4 * extent[0] * extent[1]), 1e-12)
        cutoff_um = model.cutoff_um or 4.0 / float(np.sqrt(density))
        duration = float(observations.times_s[-1] - observations.times_s[0])
        velocity_um_per_s = 3.0 * cutoff_um / (duration * max(1.0, density * cutoff_um**2))
        self._model, self._law = model, law_beforehand(model, cutoff_um, given.mean(axis=0))
        self._unit = _units(self._law, velocity_um_per_s, float(extent.max()), duration)
        self._m = m = self._law.n_parameters
        offsets = np.empty(0) if free is None else (start - free.given_um).ravel() / free.error_um
        mean = np.concatenate([self._law.parameters / self._unit, offsets, np.zeros(1)])
        self._prior_mean = mean.copy()
        self._prior_mean[m:] = 0.0
        self._belief = Belief(mean, np.eye(len(mean)), np.full(len(self._law.splines), FIRST_SMOOTHNESS), 1.0)
        self._start_tangent = np.zeros((*start.shape, len(mean)))
        if free is not None:
            self._start_tangent[:, :, m:-1] = free.error_um * np.eye(start.size).reshape(*start.shape, -1)
        self._longest = np.full(len(mean), LONGEST_STEP)
        self._longest[m:-1] = LONGEST_MOVE
        self._known: tuple[int, Evaluation] | None = None
        self._blind: dict[int, Float64Array] = {}
        used, rng = observations.scattering.used, np.random.default_rng(seed)
        self.pixels = chosen_pixels(observations.counts, used, rng)
        self._last_pixels = chosen_pixels(observations.counts, used, rng, MOST_PIXELS)
        first = observations.scattering.intensity(start)
        self.scale = photons_per_intensity(observations.counts[0], first, used)

    def step(self, horizon: int) -> float:
        """One damped Gauss-Newton step; shortens it until the misfit does not grow. Returns its fall."""
        belief = self._belief
        if self._known is None or self._known[0] != horizon:
            if self._known is not None:
                self._blind[self._known[0]] = self._foretold(self._known[0], horizon)
            self._known = (horizon, self._evaluate(belief.mean, horizon))
        here = self._known[1]
        if not np.isfinite(here.misfit):
            raise FitRefused(
                "The particles' motion is not finite.",
                "Use more frames per second or a shorter cutoff, and look at what was said to be known of the law.",
            )
        target = belief_from(
            here.information,
            here.pull,
            belief.mean,
            self._prior_mean,
            belief.smoothness,
            here.chi2,
            self._bends(horizon),
            self._law.splines.shape[1],
        )
        found = damped(belief.mean, target.mean, here.misfit, lambda mean: self._evaluate(mean, horizon), self._longest)
        if found is not None:
            self._belief = Belief(found[0], target.covariance, target.smoothness, found[1].chi2)
            self._known = (horizon, found[1])
            return here.misfit - found[1].misfit
        smoother = np.maximum(belief.smoothness, np.minimum(2.0 * belief.smoothness, SMOOTHNESS_RANGE[1]))
        self._belief = Belief(belief.mean, target.covariance, smoother, here.chi2)
        return 0.0

    def _foretold(self, n_seen: int, horizon: int) -> Float64Array:
        """(horizon - n_seen, n_pixels) photons that are expected of frames not yet seen, at the last stage's pixels."""
        mean, seen = self._belief.mean, self.observations
        particles = open_particles(self._start_of(mean), seen.times_s[:horizon])
        x = follow(particles, self._law_of(mean), 0.0, "rk4")[n_seen:]
        return self.scale * np.exp(mean[-1]) * seen.scattering.at_pixels(x, self._last_pixels)

    def _steadiness(self, horizon: int) -> Steadiness:
        """Whether both halves of the frames up to the horizon ask for the same law."""
        if self._known is None or self._known[0] != horizon or horizon < FIRST_FRAMES:
            return Steadiness()
        mean, whole = self._belief.mean, self._known[1]
        half = self._of_frames(mean, horizon // 2, self._pixels_of(horizon))
        rest = replace(whole, information=whole.information - half.information, pull=whole.pull - half.pull)
        return of_parts(half, rest, np.append(np.arange(self._m), len(mean) - 1))

    def _bends(self, horizon: int) -> tuple[Bends, ...]:
        # What is left of a corrected start's errors would show as a force at contact.
        known = self._free is None and horizon == len(self.observations.times_s)
        return OPEN_BENDS if known else CLOSED_BENDS

    def _start_of(self, mean: Float64Array) -> Float64Array:
        """(n, 2) um."""
        if self._free is None:
            return self.observations.start_um
        offsets = mean[self._m : -1].reshape(self._free.given_um.shape)
        return np.asarray(self._free.given_um + self._free.error_um * offsets, np.float64)

    def _motion(self, mean: Float64Array, horizon: int) -> tuple[Float64Array, Float64Array]:
        """Particles at the frames up to the horizon, and their derivatives to all parameters but the brightness."""
        particles = open_particles(self._start_of(mean), self.observations.times_s[:horizon])
        x, tangents = follow_with_tangents(particles, self._law_of(mean), 0.0, "rk4", self._start_tangent)
        unit = np.ones(len(mean) - 1)
        unit[: self._m] = self._unit
        return x, unit * tangents[:, :, :, :-1]

    def _law_of(self, mean: Float64Array) -> MotionLaw:
        return self._law.with_parameters(self._unit * mean[: self._m])

    def _evaluate(self, mean: Float64Array, horizon: int) -> Evaluation:
        """What the frames up to the horizon say, and what was said of the start."""
        found = self._of_frames(mean, horizon, self._pixels_of(horizon))
        return replace(found, misfit=found.misfit + float((mean[self._m : -1] ** 2).sum()))

    def _of_frames(self, mean: Float64Array, n_frames: int, pixels: IntArray) -> Evaluation:
        """What the first frames say at some pixels."""
        x, tangents = self._motion(mean, n_frames)
        if not (np.isfinite(x).all() and np.abs(tangents).max() < LARGEST_TANGENT):
            return Evaluation.nowhere(len(mean))
        seen, scale = self.observations, self.scale * np.exp(mean[-1])
        return photon_information(seen.scattering, seen.counts[:n_frames], x, tangents, pixels, scale)

    def _pixels_of(self, horizon: int) -> IntArray:
        """Those that a stage looks at."""
        return self._last_pixels if horizon == len(self.observations.times_s) else self.pixels

    def result(self, horizon: int, warnings: tuple[str, ...]) -> PatternFit:
        """The fit so far, held against simple forecasts."""
        seen = self.observations
        counts, times_s = seen.counts[:horizon], seen.times_s[:horizon]
        asked = counts.reshape(horizon, -1)[:, self._last_pixels]
        light = mean_around(asked.mean(axis=0), seen.scattering.used.shape, self._last_pixels)
        contest = pattern_contest(asked, times_s, light, self._blind)
        found = replace(self._result(horizon), warnings=(*warnings, *self._unseen()))
        return found.judged(contest, counts, times_s)

    def _result(self, horizon: int) -> PatternFit:
        belief, observations, free = self._belief, self.observations, self._free
        unit = np.ones(len(belief.mean) - 1)
        unit[: self._m] = self._unit
        unit[self._m :] = 1.0 if free is None else free.error_um
        joint = belief.covariance[:-1, :-1] * max(1.0, belief.chi2) * np.outer(unit, unit)
        law = self._law_of(belief.mean)
        n = law.splines.shape[1]
        return PatternFit(
            coefficients=law.splines[0],
            covariance=joint[:n, :n],
            cutoff_um=law.cutoff_um,
            chi2=belief.chi2,
            scattering=observations.scattering,
            start_um=self._start_of(belief.mean),
            times_s=observations.times_s,
            used_frames=horizon,
            photons_per_intensity=self.scale * float(np.exp(belief.mean[-1])),
            mode=_mode(self._model, corrected=free is not None),
            joint_covariance=None if len(joint) == n else joint,
            state=self._state(horizon),
            angular_coefficients=law.splines[1:],
            drift=law.drift,
            n_drift=law.n_drift,
            chi2_err=0.0 if self._known is None else self._known[1].chi2_err,
            steadiness=self._steadiness(horizon),
        )

    def _unseen(self) -> tuple[str, ...]:
        if self._law.n_drift and self.observations.scattering.probe_um is None:
            return ("Under a plane wave the patterns show the drift's gradient, but not its velocity.",)
        return ()

    def _state(self, horizon: int) -> PatternState | None:
        """The knowledge so far, and the particles at the last frame used with their derivatives.

        A free start follows the law from now on: for other coefficients, the start is the one that fits best with them.
        """
        if self._known is None or self._known[0] != horizon or not np.isfinite(self._known[1].misfit):
            return None
        mean, smoothness, here = self._belief.mean, self._belief.smoothness, self._known[1]
        x, tangents = self._motion(mean, horizon)
        m, n = self._m, self._law.splines.shape[1]
        law = np.append(np.arange(m), len(mean) - 1)
        start = np.arange(m, len(mean) - 1)
        precision = here.information + prior_precision(n, 0.0, n_more=len(mean) - n)
        of_start = precision[np.ix_(start, start)]
        gain = np.linalg.solve(of_start, precision[np.ix_(start, law)])
        information = here.information[np.ix_(law, law)] - precision[np.ix_(law, start)] @ gain
        pull = here.pull[law] - gain.T @ (here.pull[start] - mean[start])
        start_tangent, end_tangent = np.zeros((2, *x[-1].shape, m + 1))
        start_tangent[:, :, :-1] = -self._start_tangent[:, :, m:-1] @ gain[:, :-1]
        end_tangent[:, :, :-1] = tangents[-1, :, :, :m] - tangents[-1, :, :, m:] @ gain[:, :-1]
        return PatternState(
            mean=mean[law],
            information=information,
            vector=information @ mean[law] + pull,
            prior_mean=self._prior_mean[law],
            smoothness=np.atleast_1d(smoothness),
            unit=self._unit,
            first_photons_per_intensity=self.scale,
            start_um=self._start_of(mean),
            start_tangent=start_tangent,
            end_s=float(self.observations.times_s[horizon - 1]),
            end_um=x[-1],
            end_tangent=end_tangent,
            pixels=self.pixels,
            n_frames=horizon,
            recent_counts=self.observations.counts[:horizon][-RECENT_FRAMES:],
            recent_s=self.observations.times_s[:horizon][-RECENT_FRAMES:],
        )


def law_beforehand(model: DynamicsModel, cutoff_um: float, about_um: Float64Array) -> MotionLaw:
    """What the model knows before it sees data; a drift that is fitted is written around ``about_um`` (2,)."""
    splines = np.zeros((1 + 2 * model.angular_harmonics, model.n_coefficients))
    splines[0] = model.known_coefficients(cutoff_um)
    n_drift = DRIFT_PARAMETERS[model.drift]
    drift = model.known_drift
    if n_drift:
        drift = (drift or OneBody(np.zeros(2))).around(about_um)
    return MotionLaw(splines, cutoff_um, drift, n_drift)


def _units(law: MotionLaw, velocity_um_per_s: float, extent_um: float, duration_s: float) -> Float64Array:
    """(n_parameters,) in which the law's parameters are expected to be of order one: what a run could still show."""
    drift = np.repeat([3.0 * extent_um / duration_s, 3.0 / duration_s], [2, 4])
    return np.append(np.full(law.splines.size, velocity_um_per_s), drift[: law.n_drift])


def _mode(model: DynamicsModel, corrected: bool) -> str:
    said = ["patterns", "start corrected" if corrected else "start known"]
    if model.drift != "none":
        said.append(f"drift {model.drift}")
    if model.known_drift is not None:
        said.append("a drift known")
    if model.angular_harmonics:
        said.append(f"angular harmonics {model.angular_harmonics}")
    if model.known_force is not None:
        said.append("a force known")
    return "; ".join(said)
