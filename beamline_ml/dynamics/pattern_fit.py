"""Fit of a force law to speckle patterns: Gauss-Newton with a growing horizon and exact tangents.

The start is known, so every later pattern is a function of the force alone. Residuals carry the Poisson weights of the
*prediction* (weights from the data would favour dark speckles) with a Huber cut; the prior asks for a smooth kernel,
its strength set by the evidence. The normal matrix at the end is the posterior.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from beamline_ml.dynamics.flow import Surrogates, move, move_with_tangents
from beamline_ml.dynamics.model import DynamicsModel
from beamline_ml.dynamics.patterns import PatternObservations, PatternScattering
from beamline_ml.dynamics.spline import spline_basis
from beamline_ml.dynamics.statistical_gauss_newton import SMOOTHNESS_RANGE, Belief, belief_from
from beamline_ml.errors import FitRefused, NotIdentifiable
from beamline_ml.records import Float64Array, IntArray

N_PIXELS = 800
FIRST_FRAMES = 4
GROWTH = 1.5
NEARLY_ALL = 0.8
STEPS_PER_STAGE = 2
LAST_STEPS = 3
HUBER = 3.0
MIN_START_LIKENESS = 0.5
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

    def kernel(self, r_um: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Radial force (um/s) and its standard deviation at r."""
        basis = spline_basis(np.asarray(r_um, np.float64), len(self.coefficients), self.cutoff_um)
        variance = np.einsum("rk,kl,rl->r", basis, self.covariance, basis)
        return basis @ self.coefficients, np.sqrt(np.maximum(variance, 0.0))

    def positions(self, times_s: Float64Array, start_um: Float64Array | None = None) -> Float64Array:
        """Particles at the given times, (n_times, n, 2) um; another start asks about another sample of its kind."""
        start = self.start_um if start_um is None else start_um
        return move(_particles(start, times_s), self.coefficients, self.cutoff_um, 0.0, method="rk4")

    def patterns(self, times_s: Float64Array, start_um: Float64Array | None = None) -> Float64Array:
        """Expected photons, (n_times, size, size), at any times from the first one on."""
        x = self.positions(times_s, start_um)
        return self.photons_per_intensity * np.stack([self.scattering.intensity(at) for at in x])


def _particles(start_um: Float64Array, times_s: Float64Array) -> Surrogates:
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
        When the start positions do not explain the first frame: they must be right to half a neighbour distance.
    FitRefused
        When the motion does not stay finite.
    """
    deadline = time.monotonic() + time_budget_s
    work = _Work(observations, model, seed)
    work.check_start()
    n_frames, horizon = len(observations.times_s), min(FIRST_FRAMES, len(observations.times_s))
    while True:
        last = horizon == n_frames
        for _ in range(LAST_STEPS if last else STEPS_PER_STAGE):
            if time.monotonic() > deadline:
                return work.result(horizon, (f"The time budget ended at frame {horizon} of {n_frames}.",))
            work.step(horizon)
        if last:
            return work.result(horizon, ())
        grown = int(np.ceil(GROWTH * horizon))
        horizon = grown if grown < NEARLY_ALL * n_frames else n_frames


class _Work:
    """What a pattern fit carries from step to step."""

    def __init__(self, observations: PatternObservations, model: DynamicsModel, seed: int) -> None:
        self._observations = observations
        start = observations.start_um
        extent = np.ptp(start, axis=0)
        density = len(start) / max(float(np.pi / 4 * extent[0] * extent[1]), 1e-12)
        self._cutoff = model.cutoff_um or 4.0 / float(np.sqrt(density))
        duration = float(observations.times_s[-1] - observations.times_s[0])
        self._v0 = 3.0 * self._cutoff / (duration * max(1.0, density * self._cutoff**2))
        n = model.n_coefficients
        self._belief = Belief(np.zeros(n + 1), np.eye(n + 1), 10.0, 1.0)
        self._known: tuple[int, tuple[Float64Array, Float64Array, float]] | None = None
        self._pixels = self._choose_pixels(np.random.default_rng(seed))
        first = observations.scattering.intensity(start)
        used = observations.scattering.used
        self._scale = float(observations.counts[0][used].sum() / max(first[used].sum(), 1e-30))

    def _choose_pixels(self, rng: np.random.Generator) -> IntArray:
        """Pixels drawn in proportion to the light that they saw."""
        light = (self._observations.counts.mean(axis=0) * self._observations.scattering.used).ravel()
        lit = np.count_nonzero(light)
        if lit < 8:
            raise FitRefused(f"Only {lit} pixels saw a photon.", "Check mask and beam stop, or count longer.")
        picked = rng.choice(light.size, min(N_PIXELS, int(lit)), replace=False, p=light / light.sum())
        return np.sort(picked).astype(np.int64)

    def check_start(self) -> None:
        """Refuse a start that does not look like the first frames, photon noise considered."""
        observed = self._observations.counts[0].ravel()[self._pixels].astype(np.float64)
        expected = (
            self._scale * self._observations.scattering.intensity(self._observations.start_um).ravel()[self._pixels]
        )
        excess = float(((observed - expected) ** 2 - np.maximum(expected, observed)).mean())
        spread = float(expected.var() + observed.var())
        likeness = 1.0 - max(excess, 0.0) / max(spread, 1e-30)
        if likeness < MIN_START_LIKENESS:
            raise NotIdentifiable(
                f"The start positions explain the first frame only to {likeness:.0%}.",
                "Retrieve the first frame's positions to half a neighbour distance, or fit correlations instead.",
            )

    def _evaluate(self, mean: Float64Array, horizon: int) -> tuple[Float64Array, Float64Array, float]:
        """Information, pull and chi-squared at some coefficients."""
        observations = self._observations
        particles = _particles(observations.start_um, observations.times_s[:horizon])
        x, tangents = move_with_tangents(particles, self._v0 * mean[:-1], self._cutoff, 0.0, method="rk4")
        if not (np.isfinite(x).all() and np.isfinite(tangents).all()):
            return np.zeros((len(mean), len(mean))), np.zeros(len(mean)), np.inf
        information, pull, chi2 = np.zeros((len(mean), len(mean))), np.zeros(len(mean)), 0.0
        for frame in range(1, horizon):
            value, slope = observations.scattering.with_tangents(
                x[frame], self._v0 * tangents[frame, :, :, :-1], self._pixels
            )
            expected = self._scale * value
            noise = np.sqrt(expected + 0.1)
            residual = (observations.counts[frame].ravel()[self._pixels] - expected) / noise
            weight = np.minimum(1.0, HUBER / np.maximum(np.abs(residual), 1e-12))
            rows = self._scale * slope / noise[:, None]
            information[:-1, :-1] += rows.T @ (weight[:, None] * rows)
            pull[:-1] += rows.T @ (weight * residual)
            chi2 += float((weight * residual**2).sum())
        return information, pull, chi2 / max(1, (horizon - 1) * len(self._pixels))

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
        belief, observations = self._belief, self._observations
        return PatternFit(
            coefficients=self._v0 * belief.mean[:-1],
            covariance=self._v0**2 * belief.covariance[:-1, :-1] * max(1.0, belief.chi2),
            cutoff_um=self._cutoff,
            chi2=belief.chi2,
            scattering=observations.scattering,
            start_um=observations.start_um,
            times_s=observations.times_s,
            used_frames=horizon,
            photons_per_intensity=self._scale,
            warnings=warnings,
        )
