"""Fit of forces and phase couplings to speckle patterns: Gauss-Newton with a growing horizon and exact tangents.

As ``pattern_fit``, with three splines in place of one (``phase_kernel``): the radial force f, its modulation g by the
cosine of the phase difference, and the phase coupling k. Each has a smoothness prior of its own, set by the evidence
(MacKay, Neural Computation 4, 415 (1992)). torchdiffeq integrates particles and tangents together.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag

from beamline_ml.dynamics.growing_horizon import Evaluation, damped, fit_growing
from beamline_ml.dynamics.model import DynamicsModel
from beamline_ml.dynamics.neighbours import build_pairs
from beamline_ml.dynamics.patterns import expected_photons
from beamline_ml.dynamics.phase_kernel import phase_tangent
from beamline_ml.dynamics.phase_patterns import PhaseObservations, PhaseScattering
from beamline_ml.dynamics.photon_information import (
    MOST_CHI2,
    brightest_pixels,
    photon_information,
    photons_per_intensity,
    unexplained,
)
from beamline_ml.dynamics.spline import spline_basis, spline_deviation
from beamline_ml.dynamics.start_refinement import refuse_wrong_start
from beamline_ml.dynamics.statistical_gauss_newton import EVEN, SMOOTHNESS_RANGE, roughness
from beamline_ml.dynamics.tangent_motion import motion_with_tangents, shortest_spacing_s
from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array

FIRST_SMOOTHNESS = 10.0
LONGEST_STEP = 3.0
"""In units of the prior: how far one step may change a coefficient."""


@dataclass(frozen=True)
class PhaseFit:
    """Forces and couplings, and the patterns that they predict."""

    splines: Float64Array
    """(3, n_coefficients): force f and its phase-dependent part g in um/s (positive repels), coupling k in rad/s."""
    covariance: Float64Array
    """(3 n_coefficients, 3 n_coefficients) of the splines in order."""
    cutoff_um: float
    chi2: float
    """Deviance over that of photon noise alone: 1 where photons explain the run."""
    scattering: PhaseScattering
    start: Float64Array
    mobile: bool
    times_s: Float64Array
    used_frames: int
    photons_per_intensity: float
    warnings: tuple[str, ...] = ()

    @property
    def describes_data(self) -> bool:
        """Whether photon noise explains what the law missed of the run."""
        return self.chi2 <= MOST_CHI2

    def kernel(self, r_um: Float64Array) -> tuple[Float64Array, Float64Array]:
        """(3, n_r) values of f, g (um/s) and k (rad/s) at r, and their standard deviations."""
        n = self.splines.shape[1]
        basis = spline_basis(np.asarray(r_um, np.float64), n, self.cutoff_um)
        blocks = [self.covariance[b * n : (b + 1) * n, b * n : (b + 1) * n] for b in range(3)]
        return self.splines @ basis.T, np.stack([spline_deviation(r_um, block, self.cutoff_um) for block in blocks])

    def states(self, times_s: Float64Array, start: Float64Array | None = None) -> Float64Array:
        """Particles and phases, (n_times, n, 3) um and rad; another start asks about another sample of its kind."""
        begin = self.start if start is None else start
        longest_s = shortest_spacing_s(self.times_s)
        return phase_motion(begin, times_s, self.splines, self.cutoff_um, self.mobile, longest_s=longest_s)[0]

    def patterns(self, times_s: Float64Array, start: Float64Array | None = None) -> Float64Array:
        """Expected photons, (n_times, size, size)."""
        states = self.states(times_s, start)
        return expected_photons(self.scattering, self.photons_per_intensity, states)


def phase_motion(
    start: Float64Array,
    times_s: Float64Array,
    splines: Float64Array,
    cutoff_um: float,
    mobile: bool,
    m: int = 0,
    longest_s: float = np.inf,
) -> tuple[Float64Array, Float64Array]:
    """States (n_times, n, 3) and their derivatives to the first ``m`` parameters, (n_times, n, 3, m)."""

    def rates(state: Float64Array, tangent: Float64Array) -> tuple[Float64Array, Float64Array]:
        pairs = build_pairs(np.ascontiguousarray(state[:, :2]), 0.0, cutoff_um)
        out, out_tangent = np.zeros_like(state), np.zeros_like(tangent)
        phase_tangent(state, pairs.first, pairs.second, splines, cutoff_um, mobile, tangent, out, out_tangent)
        return out, out_tangent

    return motion_with_tangents(rates, start, np.zeros((*start.shape, m)), times_s, longest_s)


def fit_phase_patterns(
    observations: PhaseObservations, model: DynamicsModel, time_budget_s: float, seed: int = 0
) -> PhaseFit:
    """Find forces and couplings behind a run of patterns, from none at all.

    Raises
    ------
    NotIdentifiable
        When the start does not explain the first frame.
    FitRefused
        When the motion does not stay finite.
    """
    deadline = time.monotonic() + time_budget_s
    return fit_growing(_Work(observations, model, seed), len(observations.times_s), deadline)


class _Work:
    """What the fit carries from step to step: coefficients in the units of ``unit``, then the brightness.

    Brightness is the logarithm of the photons per unit of intensity over those that the first frame asks for.
    """

    def __init__(self, observations: PhaseObservations, model: DynamicsModel, seed: int) -> None:
        self.observations = observations
        x = observations.start[:, :2]
        extent = np.ptp(x, axis=0)
        density = len(x) / max(float(np.pi / 4 * extent[0] * extent[1]), 1e-12)
        self.cutoff_um = model.cutoff_um or 4.0 / float(np.sqrt(density))
        self.n = model.n_coefficients
        self.blocks = 3 if observations.mobile else 1
        neighbours = min(len(x), max(1.0, density * self.cutoff_um**2))
        rate = 3.0 / (float(np.ptp(observations.times_s)) * neighbours)
        scales = (self.cutoff_um, self.cutoff_um, 1.0)[3 - self.blocks :]
        self.unit = rate * np.repeat(scales, self.n)
        self.mean = np.zeros(self.blocks * self.n + 1)
        self.smoothness = np.full(self.blocks, FIRST_SMOOTHNESS)
        self._roughness = roughness(self.n, EVEN)
        scattering = observations.scattering
        self.pixels = brightest_pixels(observations.counts, scattering.used, np.random.default_rng(seed))
        first = scattering.intensity(observations.start)
        self.scale = photons_per_intensity(observations.counts[0], first, scattering.used)
        observed = observations.counts[0].ravel()[self.pixels].astype(np.float64)
        refuse_wrong_start(observed, self.scale * first.ravel()[self.pixels])
        self._known: tuple[int, Evaluation] | None = None

    def splines(self, mean: Float64Array) -> Float64Array:
        """(3, n) coefficients in um/s and rad/s; what is not fitted is zero."""
        out = np.zeros((3, self.n))
        out[3 - self.blocks :] = (mean[:-1] * self.unit).reshape(self.blocks, self.n)
        return out

    def _evaluate(self, mean: Float64Array, horizon: int) -> Evaluation:
        """What the frames up to the horizon say."""
        seen = self.observations
        m = len(mean) - 1
        times = seen.times_s[:horizon]
        states, tangents = phase_motion(seen.start, times, self.splines(mean), self.cutoff_um, seen.mobile, m)
        if not (np.isfinite(states).all() and np.isfinite(tangents).all()):
            return Evaluation.nowhere(m + 1)
        scale = self.scale * np.exp(mean[-1])
        return photon_information(
            seen.scattering, seen.counts[:horizon], states, self.unit * tangents, self.pixels, scale
        )

    def _prior(self) -> Float64Array:
        """Precision of the parameters under the prior, block by block."""
        coefficients = np.kron(np.diag(self.smoothness), self._roughness)
        return block_diag(coefficients, 1.0)

    def _target(self, information: Float64Array, pull: Float64Array) -> Float64Array:
        """Posterior mean of the linearised problem; each block's smoothness follows its evidence."""
        for _ in range(8):
            total = information + self._prior()
            mean = self.mean + np.linalg.solve(total, pull - self._prior() @ self.mean)
            covariance = np.linalg.inv(total)
            for b in range(self.blocks):
                block = slice(b * self.n, (b + 1) * self.n)
                held = self.n - self.smoothness[b] * np.trace(covariance[block, block] @ self._roughness)
                wanted = max(held, 0.5) / max(float(mean[block] @ self._roughness @ mean[block]), 1e-9)
                self.smoothness[b] = np.clip(np.sqrt(self.smoothness[b] * wanted), *SMOOTHNESS_RANGE)
        return mean

    def step(self, horizon: int) -> float:
        """One damped Gauss-Newton step; shortened until the misfit does not grow. Returns its fall."""
        if self._known is None or self._known[0] != horizon:
            self._known = (horizon, self._evaluate(self.mean, horizon))
        here = self._known[1]
        if not np.isfinite(here.misfit):
            raise FitRefused("The particles' motion is not finite.", "Use more frames per second or a shorter cutoff.")
        target = self._target(here.information, here.pull)
        found = damped(self.mean, target, here.misfit, lambda mean: self._evaluate(mean, horizon), LONGEST_STEP)
        if found is not None:
            self.mean, self._known = found[0], (horizon, found[1])
            return here.misfit - found[1].misfit
        self.smoothness = np.minimum(2.0 * self.smoothness, SMOOTHNESS_RANGE[1])
        return 0.0

    def result(self, horizon: int, warnings: tuple[str, ...]) -> PhaseFit:
        """The fit so far."""
        if self._known is None or self._known[0] != horizon:
            self._known = (horizon, self._evaluate(self.mean, horizon))
        seen = self._known[1]
        covariance = np.zeros((3 * self.n, 3 * self.n))
        first = (3 - self.blocks) * self.n
        known = np.linalg.inv(seen.information + self._prior())[:-1, :-1]
        covariance[first:, first:] = known * np.outer(self.unit, self.unit)
        return PhaseFit(
            splines=self.splines(self.mean),
            covariance=covariance * max(1.0, seen.chi2),
            cutoff_um=self.cutoff_um,
            chi2=seen.chi2,
            scattering=self.observations.scattering,
            start=self.observations.start,
            mobile=self.observations.mobile,
            times_s=self.observations.times_s,
            used_frames=horizon,
            photons_per_intensity=self.scale * float(np.exp(self.mean[-1])),
            warnings=(*warnings, *unexplained(seen.chi2)),
        )
