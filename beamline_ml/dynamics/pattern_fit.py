"""Fit of a force law to speckle patterns: Gauss-Newton with a growing horizon and exact tangents.

The start is known, so every later pattern is a function of the force alone. Residuals carry the Poisson weights of the
*prediction* (weights from the data would favour dark speckles) with a Huber cut; the prior asks for a smooth kernel,
its strength set by the evidence. The normal matrix at the end is the posterior.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from beamline_ml.dynamics.flow import Surrogates, move, move_with_tangents
from beamline_ml.dynamics.model import DynamicsModel
from beamline_ml.dynamics.pattern_state import PatternState
from beamline_ml.dynamics.patterns import PatternObservations, PatternScattering
from beamline_ml.dynamics.spline import spline_basis
from beamline_ml.dynamics.start_refinement import misfit_of, refined_start
from beamline_ml.dynamics.statistical_gauss_newton import SMOOTHNESS_RANGE, Belief, belief_from
from beamline_ml.errors import FitRefused, NotIdentifiable
from beamline_ml.records import BoolArray, Float64Array, IntArray

N_PIXELS = 800
"""Enough to find the way, and for frames that come later."""
MOST_PIXELS = 4096
"""For the last stage, which decides the answer."""
FIRST_FRAMES = 4
GROWTH = 1.5
NEARLY_ALL = 0.8
STEPS_PER_STAGE = 2
LAST_STEPS = 3
HUBER = 3.0
MIN_START_LIKENESS = 0.5
START_MISFIT = 1.3
"""Of the first frame, up to which a start is taken as it is, or as corrected."""
CORRECTED_CHI2 = 2.0
"""Of the whole run, above which a corrected start was a wrong minimum."""
STARTS = 4
"""Corrected starts that are tried on the whole run."""
SHARE_OF_START = 0.5
"""Part of the time budget that correcting the start may take."""
STEPS_PER_FRAME = 1


@dataclass(frozen=True)
class PatternFit:
    """A force law and the patterns that it predicts."""

    coefficients: Float64Array
    """(n_coefficients,) spline in um/s, positive repels."""
    covariance: Float64Array
    """(n_coefficients, n_coefficients)."""
    cutoff_um: float
    chi2: float
    """Mean squared weighted residual; 1 where photons alone explain it."""
    scattering: PatternScattering
    start_um: Float64Array
    times_s: Float64Array
    used_frames: int
    photons_per_intensity: float
    mode: str = "patterns; start known"
    warnings: tuple[str, ...] = ()
    state: PatternState | None = None
    """Where ``fit`` goes on when new frames come."""

    def kernel(self, r_um: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Radial force (um/s) and its standard deviation at r."""
        basis = spline_basis(np.asarray(r_um, np.float64), len(self.coefficients), self.cutoff_um)
        variance = np.einsum("rk,kl,rl->r", basis, self.covariance, basis)
        return basis @ self.coefficients, np.sqrt(np.maximum(variance, 0.0))

    def positions(self, times_s: Float64Array, start_um: Float64Array | None = None) -> Float64Array:
        """Particles at the given times, (n_times, n, 2) um; another start asks about another sample of its kind."""
        start = self.start_um if start_um is None else start_um
        return move(open_particles(start, times_s), self.coefficients, self.cutoff_um, 0.0, method="rk4")

    def patterns(self, times_s: Float64Array, start_um: Float64Array | None = None) -> Float64Array:
        """Expected photons, (n_times, size, size), at any times from the first one on."""
        x = self.positions(times_s, start_um)
        return self.photons_per_intensity * np.stack([self.scattering.intensity(at) for at in x])


def open_particles(start_um: Float64Array, times_s: Float64Array) -> Surrogates:
    """One open box without noise; times count from the first."""
    times = np.asarray(times_s, np.float64) - times_s[0]
    pieces = [np.zeros(1)]
    longest = float(np.min(np.diff(times))) / STEPS_PER_FRAME if len(times) > 1 else 1.0
    for low, high in pairwise(times):
        n = max(1, int(np.ceil((high - low) / longest - 1e-6)))
        pieces.append(low + (high - low) * np.arange(1, n + 1) / n)
    grid = np.concatenate(pieces)
    snapshots = np.abs(grid[None, :] - times[:, None]).argmin(axis=1).astype(np.int64)
    return Surrogates(start_um, 1, 0.0, grid, snapshots, np.zeros((len(grid), 1, 1)))


def fit_patterns(
    observations: PatternObservations, model: DynamicsModel, time_budget_s: float, seed: int = 0
) -> PatternFit:
    """Find the force law behind a run of patterns.

    Raises
    ------
    NotIdentifiable
        When the start positions do not explain the first frame, and none nearby does: they must be right to half a
        neighbour distance (the mean distance to the nearest neighbour).
    FitRefused
        When the motion does not stay finite.
    """
    began = time.monotonic()
    for attempt in range(STARTS):
        start_um = _identified_start(observations, began + SHARE_OF_START * time_budget_s, seed, attempt)
        found = _fit_from(replace(observations, start_um=start_um), model, began + time_budget_s, seed)
        if start_um is observations.start_um:
            return found
        if found.chi2 <= CORRECTED_CHI2:
            return replace(found, warnings=(*_said_of_start(observations.start_um, start_um), *found.warnings))
        if time.monotonic() > began + SHARE_OF_START * time_budget_s:
            break
    raise NotIdentifiable(
        f"Positions near the given start explain the first frame, but not the run: chi-squared {found.chi2:.1f}.",
        "Retrieve the first frame's positions to half a neighbour distance, or fit correlations instead.",
    )


def _fit_from(observations: PatternObservations, model: DynamicsModel, deadline: float, seed: int) -> PatternFit:
    work = PatternWork(observations, model, seed)
    n_frames = len(observations.times_s)
    for horizon in horizons(n_frames):
        for _ in range(LAST_STEPS if horizon == n_frames else STEPS_PER_STAGE):
            if time.monotonic() > deadline:
                return work.result(horizon, (f"The time budget ended at frame {horizon} of {n_frames}.",))
            work.step(horizon)
    return work.result(n_frames, ())


def _identified_start(observations: PatternObservations, deadline: float, seed: int, attempt: int = 0) -> Float64Array:
    """The given start where it explains the first frame, else one nearby that does.

    A start whose pattern is like the first frame, but which cannot be bettered, stays: the optics may be to blame.
    """
    frame = np.asarray(observations.counts[0], np.float64)
    scattering, start = observations.scattering, observations.start_um
    expected = scattering.intensity(start)
    used = scattering.used
    scale = float(frame[used].sum() / max(expected[used].sum(), 1e-30))
    if misfit_of(frame, scattering, start, scale) <= START_MISFIT:
        return start
    error = 0.5 * neighbour_distance_um(start)
    found = refined_start(frame, scattering, start, scale, error, START_MISFIT, deadline, seed, attempt)
    if found.misfit <= START_MISFIT:
        return found.positions_um
    refuse_wrong_start(frame[used], scale * expected[used])
    return start


def neighbour_distance_um(x_um: Float64Array) -> float:
    """Mean distance to the nearest neighbour."""
    distance, _ = KDTree(x_um).query(x_um, k=2)
    return float(distance[:, 1].mean())


def _said_of_start(given_um: Float64Array, corrected_um: Float64Array) -> tuple[str, ...]:
    moved = float(np.sqrt(((corrected_um - given_um) ** 2).mean()))
    return (f"The start did not explain the first frame: its coordinates were corrected by {moved:.3g} um (RMS).",)


def horizons(n_frames: int) -> list[int]:
    """How many frames each stage uses: ever more, in the end all."""
    stages = [min(FIRST_FRAMES, n_frames)]
    while stages[-1] < n_frames:
        grown = int(np.ceil(GROWTH * stages[-1]))
        stages.append(grown if grown < NEARLY_ALL * n_frames else n_frames)
    return stages


class Scattering(Protocol):
    """Whatever turns particles into patterns with derivatives: positions, or positions and phases."""

    def with_tangents(
        self, at: Float64Array, tangent: Float64Array, pixels: IntArray, /
    ) -> tuple[Float64Array, Float64Array]:
        """|A|^2 at flat pixel indices (n_pixels,) and its derivative along tangents (n, d, m): (n_pixels, m)."""
        ...


def photon_information(
    scattering: Scattering,
    counts: NDArray[Any],
    x_um: Float64Array,
    tangents: Float64Array,
    pixels: IntArray,
    scale: float,
) -> tuple[Float64Array, Float64Array, float]:
    """What frames say about parameters: information, pull and sum of squared residuals.

    Parameters
    ----------
    counts, x_um, tangents
        (n_frames, size, size) photons, (n_frames, n, 2) positions and their derivatives (n_frames, n, 2, m).

    Returns
    -------
    information, pull, misfit
        (m + 1, m + 1) and (m + 1,), the last place (log D) empty, and the Huber-weighted sum of squares.
    """
    m = tangents.shape[3]
    information, pull, misfit = np.zeros((m + 1, m + 1)), np.zeros(m + 1), 0.0
    for frame, at, tangent in zip(counts, x_um, tangents, strict=True):
        value, slope = scattering.with_tangents(at, tangent, pixels)
        expected = scale * value
        noise = np.sqrt(expected + 0.1)
        residual = (frame.ravel()[pixels] - expected) / noise
        weight = np.minimum(1.0, HUBER / np.maximum(np.abs(residual), 1e-12))
        rows = scale * slope / noise[:, None]
        information[:-1, :-1] += rows.T @ (weight[:, None] * rows)
        pull[:-1] += rows.T @ (weight * residual)
        misfit += float((weight * residual**2).sum())
    return information, pull, misfit


def chosen_pixels(counts: NDArray[Any], used: BoolArray, rng: np.random.Generator, most: int = N_PIXELS) -> IntArray:
    """Flat indices of pixels drawn in proportion to the light that they saw, (at most ``most``,), sorted."""
    light = (counts.mean(axis=0) * used).ravel()
    lit = np.count_nonzero(light)
    if lit < 8:
        raise FitRefused(f"Only {lit} pixels saw a photon.", "Check mask and beam stop, or count longer.")
    picked = rng.choice(light.size, min(most, int(lit)), replace=False, p=light / light.sum())
    return np.sort(picked).astype(np.int64)


def refuse_wrong_start(observed: Float64Array, expected: Float64Array) -> None:
    """Refuse a start whose pattern (n_pixels,) photons does not look like the first frame, photon noise considered.

    Raises
    ------
    NotIdentifiable
        When the start explains less than half of the first frame's contrast.
    """
    excess = float(((observed - expected) ** 2 - np.maximum(expected, observed)).mean())
    spread = float(expected.var() + observed.var())
    likeness = 1.0 - max(excess, 0.0) / max(spread, 1e-30)
    if likeness < MIN_START_LIKENESS:
        raise NotIdentifiable(
            f"The start positions explain the first frame only to {likeness:.0%}.",
            "Retrieve the first frame's positions to half a neighbour distance, or fit correlations instead.",
        )


class PatternWork:
    """What a pattern fit carries from step to step."""

    def __init__(self, observations: PatternObservations, model: DynamicsModel, seed: int) -> None:
        self.observations = observations
        start = observations.start_um
        extent = np.ptp(start, axis=0)
        density = len(start) / max(float(np.pi / 4 * extent[0] * extent[1]), 1e-12)
        self.cutoff_um = model.cutoff_um or 4.0 / float(np.sqrt(density))
        duration = float(observations.times_s[-1] - observations.times_s[0])
        self.velocity_um_per_s = 3.0 * self.cutoff_um / (duration * max(1.0, density * self.cutoff_um**2))
        n = model.n_coefficients
        self._belief = Belief(np.zeros(n + 1), np.eye(n + 1), 10.0, 1.0)
        self._known: tuple[int, tuple[Float64Array, Float64Array, float]] | None = None
        used, rng = observations.scattering.used, np.random.default_rng(seed)
        self.pixels = chosen_pixels(observations.counts, used, rng)
        self._last_pixels = chosen_pixels(observations.counts, used, rng, MOST_PIXELS)
        first = observations.scattering.intensity(start)
        self.scale = float(observations.counts[0][used].sum() / max(first[used].sum(), 1e-30))

    def _evaluate(self, mean: Float64Array, horizon: int) -> tuple[Float64Array, Float64Array, float]:
        """Information, pull and chi-squared at some coefficients."""
        observations = self.observations
        pixels = self._last_pixels if horizon == len(observations.times_s) else self.pixels
        particles = open_particles(observations.start_um, observations.times_s[:horizon])
        x, tangents = move_with_tangents(
            particles, self.velocity_um_per_s * mean[:-1], self.cutoff_um, 0.0, method="rk4"
        )
        if not (np.isfinite(x).all() and np.isfinite(tangents).all()):
            return np.zeros((len(mean), len(mean))), np.zeros(len(mean)), np.inf
        information, pull, misfit = photon_information(
            observations.scattering,
            observations.counts[1:horizon],
            x[1:],
            self.velocity_um_per_s * tangents[1:, :, :, :-1],
            pixels,
            self.scale,
        )
        return information, pull, misfit / max(1, (horizon - 1) * len(pixels))

    def step(self, horizon: int) -> None:
        """One damped Gauss-Newton step; halves it until the misfit does not grow."""
        belief = self._belief
        if self._known is None or self._known[0] != horizon:
            self._known = (horizon, self._evaluate(belief.mean, horizon))
        information, pull, chi2 = self._known[1]
        if not np.isfinite(chi2):
            raise FitRefused("The particles' motion is not finite.", "Use more frames per second or a shorter cutoff.")
        target = belief_from(information, pull, belief.mean, np.zeros(len(belief.mean)), belief.smoothness, chi2)
        move_by = target.mean - belief.mean
        scale = min(1.0, 3.0 / max(float(np.abs(move_by).max()), 1e-30))
        for _ in range(4):
            trial = belief.mean + scale * move_by
            found = self._evaluate(trial, horizon)
            if found[2] <= 1.02 * chi2:
                self._belief = Belief(trial, target.covariance, target.smoothness, found[2])
                self._known = (horizon, found)
                return
            scale *= 0.3
        self._belief = Belief(belief.mean, target.covariance, min(2.0 * belief.smoothness, SMOOTHNESS_RANGE[1]), chi2)

    def result(self, horizon: int, warnings: tuple[str, ...]) -> PatternFit:
        """The fit so far."""
        belief, observations = self._belief, self.observations
        return PatternFit(
            coefficients=self.velocity_um_per_s * belief.mean[:-1],
            covariance=self.velocity_um_per_s**2 * belief.covariance[:-1, :-1] * max(1.0, belief.chi2),
            cutoff_um=self.cutoff_um,
            chi2=belief.chi2,
            scattering=observations.scattering,
            start_um=observations.start_um,
            times_s=observations.times_s,
            used_frames=horizon,
            photons_per_intensity=self.scale,
            warnings=warnings,
            state=self._state(horizon),
        )

    def _state(self, horizon: int) -> PatternState | None:
        """The knowledge so far, and the particles at the last frame used with their derivatives."""
        if self._known is None or self._known[0] != horizon or not np.isfinite(self._known[1][2]):
            return None
        belief, observations = self._belief, self.observations
        information, pull, _ = self._known[1]
        particles = open_particles(observations.start_um, observations.times_s[:horizon])
        coefficients = self.velocity_um_per_s * belief.mean[:-1]
        x, tangents = move_with_tangents(particles, coefficients, self.cutoff_um, 0.0, method="rk4")
        return PatternState(
            mean=belief.mean,
            information=information,
            vector=information @ belief.mean + pull,
            smoothness=belief.smoothness,
            velocity_um_per_s=self.velocity_um_per_s,
            end_s=float(observations.times_s[horizon - 1]),
            end_um=x[-1],
            end_tangent=self.velocity_um_per_s * tangents[-1],
            pixels=self.pixels,
            n_frames=horizon,
        )
