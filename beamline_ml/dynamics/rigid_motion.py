"""A rigid object and a beam that move against each other: the law of their motion from the patterns alone.

The object is known (points that scatter, or a map of its transmission), its position relative to the beam is a hidden
state u(t) of two coordinates that obeys du/dt = F(u). F is a polynomial of degree ``DEGREE`` per coordinate, small
enough that Gauss-Newton with exact tangents and a growing horizon finds it from zero, and the start with it. This
covers a source that fluctuates as a whole, and a probe that is scanned over an object along a path that nobody recorded
(two cases of Andrejevic et al., npj Comput Mater 10, 225 (2024), who learn F as a perceptron). torchdiffeq integrates
state and tangents together.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.dynamics.growing_horizon import Evaluation, damped, fit_growing
from beamline_ml.dynamics.mapped_scattering import MappedScattering
from beamline_ml.dynamics.patterns import PatternScattering, expected_photons
from beamline_ml.dynamics.photon_information import (
    MOST_CHI2,
    brightest_pixels,
    photon_information,
    photons_per_intensity,
    unexplained,
)
from beamline_ml.dynamics.start_refinement import refuse_wrong_start
from beamline_ml.dynamics.tangent_motion import motion_with_tangents, shortest_spacing_s
from beamline_ml.errors import FitRefused
from beamline_ml.records import BoolArray, Float64Array, IntArray

DEGREE = 3
START_SPREAD = 0.02
"""How far the given start may be off, in units of the beam's width."""
SMOOTHNESS_RANGE = (1e-4, 1e4)
LONGEST_STEP = 5.0
LAW, START = slice(None, -3), slice(-3, -1)
"""Places of the coefficients and of the start among the parameters; the last one is the brightness."""


@dataclass(frozen=True)
class RigidScattering:
    """Points of a known object, and the beam that they are seen in."""

    optics: PatternScattering
    points_um: Float64Array
    """(n_points, 2)."""
    beam_moves: bool = False
    """True: u is where the beam stands on the object; False: u is where the object stands in the beam."""

    def __post_init__(self) -> None:
        if self.optics.probe_um is None:
            raise FitRefused(
                "In a plane wave an object that moves as a whole gives one pattern for ever.",
                "Give the width of the beam.",
            )

    @property
    def size(self) -> int:
        """Rows and columns of a pattern."""
        return self.optics.size

    @property
    def used(self) -> BoolArray:
        """(size, size) pixels that count."""
        return self.optics.used

    @property
    def length_um(self) -> float:
        """Width of the beam."""
        return float(self.optics.probe_um or 1.0)

    @property
    def sign(self) -> float:
        """By which the hidden state shifts the points."""
        return -1.0 if self.beam_moves else 1.0

    def intensity(self, u_um: Float64Array) -> Float64Array:
        """Pattern at the relative position (2,) um, (size, size)."""
        return self.optics.intensity(self.points_um + self.sign * u_um)

    def with_tangents(
        self, u_um: Float64Array, tangent: Float64Array, pixels: IntArray
    ) -> tuple[Float64Array, Float64Array]:
        """Pattern at flat pixel indices (n_pixels,) and its derivative along tangents (1, 2, m): (n_pixels, m).

        ``u_um`` (1, 2): the object is one particle.
        """
        shift = np.broadcast_to(self.sign * np.eye(2), (len(self.points_um), 2, 2))
        value, slope = self.optics.with_tangents(self.points_um + self.sign * u_um, np.ascontiguousarray(shift), pixels)
        return value, slope @ tangent[0]


@dataclass(frozen=True)
class RigidObservations:
    """Photon counts of a run in which object and beam move against each other."""

    counts: NDArray[Any]
    """(n_frames, size, size) photons."""
    times_s: Float64Array
    """(n_frames,) increasing."""
    scattering: RigidScattering | MappedScattering
    start_um: Float64Array
    """(2,) relative position at times_s[0], to a fiftieth of the beam's width."""

    def __post_init__(self) -> None:
        size = self.scattering.size
        if self.counts.shape != (len(self.times_s), size, size) or len(self.times_s) < 4:
            raise FitRefused(
                f"Counts {self.counts.shape} do not match {len(self.times_s)} times on a {size} x {size} detector.",
                "Give (n_frames >= 4, size, size) counts, one time a frame.",
            )
        finite = all(np.isfinite(part).all() for part in (self.counts, self.times_s, self.start_um))
        if self.start_um.shape != (2,) or not finite or not (np.diff(self.times_s) > 0).all():
            raise FitRefused(
                "Counts, times or the start are not finite, times do not increase, or the start is not (x, y).",
                "Mask bad pixels, drop bad frames, give one position.",
            )


@dataclass(frozen=True)
class RigidFit:
    """The law of motion, and the patterns that it predicts."""

    coefficients: Float64Array
    """(n_terms, 2) of F in um/s, over the monomials of ``exponents`` in (u - origin_um) / length_um."""
    start_um: Float64Array
    """(2,) as fitted."""
    start_err_um: Float64Array
    origin_um: Float64Array
    length_um: float
    chi2: float
    """Deviance over that of photon noise alone: 1 where photons explain the run."""
    scattering: RigidScattering | MappedScattering
    times_s: Float64Array
    used_frames: int
    photons_per_intensity: float
    warnings: tuple[str, ...] = ()

    @property
    def describes_data(self) -> bool:
        """Whether photon noise explains what the law missed of the run."""
        return self.chi2 <= MOST_CHI2

    def velocity(self, u_um: Float64Array) -> Float64Array:
        """F at (n, 2) um, (n, 2) um/s; polynomials mean nothing far from where the run has been."""
        return monomials((u_um - self.origin_um) / self.length_um) @ self.coefficients

    def positions(self, times_s: Float64Array, start_um: Float64Array | None = None) -> Float64Array:
        """(n_times, 2) um from times_s[0] on; another start asks about another run."""
        start = self.start_um if start_um is None else start_um
        z = (start - self.origin_um) / self.length_um
        longest_s = shortest_spacing_s(self.times_s)
        path = planar_motion(z, times_s, self.coefficients / self.length_um, 0, longest_s)[0]
        return np.asarray(self.origin_um + self.length_um * path, np.float64)

    def patterns(self, times_s: Float64Array, start_um: Float64Array | None = None) -> Float64Array:
        """Expected photons, (n_times, size, size)."""
        at = self.positions(times_s, start_um)
        return expected_photons(self.scattering, self.photons_per_intensity, at)


def exponents() -> IntArray:
    """(n_terms, 2) powers of the two coordinates, by total degree."""
    return np.array([(d - k, k) for d in range(DEGREE + 1) for k in range(d + 1)], np.int64)


def monomials(z: Float64Array) -> Float64Array:
    """(..., n_terms) values at (..., 2)."""
    return np.asarray(np.prod(z[..., None, :] ** exponents(), axis=-1), np.float64)


def monomial_slopes(z: Float64Array) -> Float64Array:
    """(n_terms, 2) derivatives at (2,)."""
    p = exponents()
    x = p[:, 0] * z[0] ** np.maximum(p[:, 0] - 1, 0) * z[1] ** p[:, 1]
    y = p[:, 1] * z[1] ** np.maximum(p[:, 1] - 1, 0) * z[0] ** p[:, 0]
    return np.column_stack([x, y])


def planar_motion(
    start: Float64Array, times_s: Float64Array, coefficients: Float64Array, m: int, longest_s: float = np.inf
) -> tuple[Float64Array, Float64Array]:
    """Solution (n_times, 2) and its derivative (n_times, 2, m) to coefficients in row order, then to the start."""
    n_terms = len(coefficients)

    def rates(z: Float64Array, tangent: Float64Array) -> tuple[Float64Array, Float64Array]:
        value = monomials(z)
        out = (coefficients.T @ monomial_slopes(z)) @ tangent
        if m:
            out[0, 0 : 2 * n_terms : 2] += value
            out[1, 1 : 2 * n_terms : 2] += value
        return value @ coefficients, out

    begin = np.zeros((2, m))
    if m:
        begin[:, -2:] = np.eye(2)
    # A law that is far off may leave all bounds; whoever asks looks at what comes back.
    with np.errstate(all="ignore"):
        return motion_with_tangents(rates, start, begin, times_s, longest_s)


def fit_rigid(observations: RigidObservations, time_budget_s: float, seed: int = 0) -> RigidFit:
    """Find the law of motion behind a run, from no motion at all.

    Raises
    ------
    NotIdentifiable
        When the start does not explain the first frame.
    FitRefused
        When too few pixels saw a photon.
    """
    deadline = time.monotonic() + time_budget_s
    return fit_growing(_Work(observations, seed), len(observations.times_s), deadline)


class _Work:
    """What the fit carries: coefficients in beam widths per run, row by row, the start in beam widths, the brightness.

    Brightness is the logarithm of the photons per unit of intensity over those that the first frame asks for.
    """

    def __init__(self, observations: RigidObservations, seed: int) -> None:
        self.observations = observations
        scattering = observations.scattering
        self.length_um = scattering.length_um
        self.rate_per_s = 1.0 / float(np.ptp(observations.times_s))
        n_terms = len(exponents())
        self.mean = np.zeros(2 * n_terms + 3)
        self.smoothness = 1.0
        # Higher powers are the less likely the higher they are.
        self._roughness = np.repeat((1.0 + exponents().sum(axis=1)) ** 6, 2) / 100.0
        self.pixels = brightest_pixels(observations.counts, scattering.used, np.random.default_rng(seed))
        first = scattering.intensity(observations.start_um)
        self.scale = photons_per_intensity(observations.counts[0], first, scattering.used)
        observed = observations.counts[0].ravel()[self.pixels].astype(np.float64)
        refuse_wrong_start(observed, self.scale * first.ravel()[self.pixels])
        self._known: tuple[int, Evaluation] | None = None

    def _evaluate(self, mean: Float64Array, horizon: int) -> Evaluation:
        """What the frames up to the horizon say."""
        seen, m = self.observations, len(mean) - 1
        law = self.rate_per_s * mean[LAW].reshape(-1, 2)
        path, tangents = planar_motion(mean[START], seen.times_s[:horizon], law, m)
        if not (np.isfinite(path).all() and np.isfinite(tangents).all() and np.abs(path).max() < 1e3):
            return Evaluation.nowhere(m + 1)
        tangents[:, :, :-2] *= self.rate_per_s
        at = seen.start_um + self.length_um * path
        return photon_information(
            seen.scattering,
            seen.counts[:horizon],
            at[:, None],
            self.length_um * tangents[:, None],
            self.pixels,
            self.scale * np.exp(mean[-1]),
        )

    def _precision(self) -> Float64Array:
        return np.append(self.smoothness * self._roughness, [1.0 / START_SPREAD**2, 1.0 / START_SPREAD**2, 1.0])

    def _target(self, information: Float64Array, pull: Float64Array) -> Float64Array:
        """Posterior mean of the linearised problem; the prior's weight follows the evidence (MacKay 1992)."""
        for _ in range(8):
            total = information + np.diag(self._precision())
            mean = self.mean + np.linalg.solve(total, pull - self._precision() * self.mean)
            variance = np.diag(np.linalg.inv(total))[LAW]
            held = len(variance) - self.smoothness * float((variance * self._roughness).sum())
            wanted = max(held, 0.5) / max(float((self._roughness * mean[LAW] ** 2).sum()), 1e-9)
            self.smoothness = float(np.clip(np.sqrt(self.smoothness * wanted), *SMOOTHNESS_RANGE))
        return mean

    def step(self, horizon: int) -> float:
        """One damped Gauss-Newton step; shortened until the misfit does not grow. Returns its fall."""
        if self._known is None or self._known[0] != horizon:
            self._known = (horizon, self._evaluate(self.mean, horizon))
        here = self._known[1]
        target = self._target(here.information, here.pull)
        found = damped(self.mean, target, here.misfit, lambda mean: self._evaluate(mean, horizon), LONGEST_STEP)
        if found is None:
            return 0.0
        self.mean, self._known = found[0], (horizon, found[1])
        return here.misfit - found[1].misfit

    def result(self, horizon: int, warnings: tuple[str, ...]) -> RigidFit:
        """The fit so far."""
        if self._known is None or self._known[0] != horizon:
            self._known = (horizon, self._evaluate(self.mean, horizon))
        known = self._known[1]
        if not np.isfinite(known.misfit):
            raise FitRefused("No finite motion explains these patterns.", "Record more frames per second.")
        covariance = np.linalg.inv(known.information + np.diag(self._precision())) * max(1.0, known.chi2)
        seen = self.observations
        return RigidFit(
            coefficients=self.length_um * self.rate_per_s * self.mean[LAW].reshape(-1, 2),
            start_um=seen.start_um + self.length_um * self.mean[START],
            start_err_um=self.length_um * np.sqrt(np.diag(covariance)[START]),
            origin_um=seen.start_um,
            length_um=self.length_um,
            chi2=known.chi2,
            scattering=seen.scattering,
            times_s=seen.times_s,
            used_frames=horizon,
            photons_per_intensity=self.scale * float(np.exp(self.mean[-1])),
            warnings=(*warnings, *unexplained(known.chi2)),
        )
