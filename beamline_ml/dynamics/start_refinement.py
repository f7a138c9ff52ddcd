"""Start positions that are nearly right, corrected on the first pattern: coarse features first, then ever finer ones.

A pattern changes with a position x as cos(q x): a position that is wrong by 1/q is within reach of Gauss and Newton for
momentum transfers below q. So the pixels of small q move the particles first, and each ring further out finds them
nearer (frequency marching, as in inverse scattering: Y. Chen, Inverse Problems 13, 253 (1997)). Steps are damped
(Levenberg and Marquardt); some restarts from slightly shaken positions leave wrong minima behind.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from beamline_ml.dynamics.patterns import PatternObservations, PatternScattering
from beamline_ml.dynamics.photon_information import photons_per_intensity
from beamline_ml.dynamics.photon_squares import DARK, photon_residual
from beamline_ml.errors import NotIdentifiable
from beamline_ml.records import Float64Array, IntArray

N_RINGS = 8
FIRST_PHASE = 0.7
"""q times the expected error where the march begins: within reach of a linear step."""
STEPS_PER_RING = 8
DAMPING, LEAST_DAMPING, DAMPING_FACTOR, TRIALS = 1e-2, 1e-6, 5.0, 5
NO_PROGRESS = 1e-4
RESTARTS = 10
SHAKEN = 0.5
"""Of the expected error, by how much restarts move the particles."""
START_MISFIT = 1.3
"""Of the first frame, up to which a start is taken as it is, or as corrected."""
MIN_START_LIKENESS = 0.5


@dataclass(frozen=True)
class Start:
    """Positions, and how well they explain the first frame."""

    positions_um: Float64Array
    """(n, 2)."""
    misfit: float
    """Mean weighted square over the lit pixels; 1 where photons alone explain it."""


def first_misfit(observations: PatternObservations) -> float:
    """Mean weighted square of the first frame for the given start; 1 where photons alone explain it."""
    frame, scattering = np.asarray(observations.counts[0], np.float64), observations.scattering
    return misfit_of(frame, scattering, observations.start_um, _scale(observations))


def _scale(observations: PatternObservations) -> float:
    """Photons per unit of intensity."""
    scattering = observations.scattering
    expected = scattering.intensity(observations.start_um)
    return photons_per_intensity(observations.counts[0], expected, scattering.used)


def expected_error_um(start_um: Float64Array) -> float:
    """Of each coordinate of a start that is not right: half a neighbour distance."""
    return 0.5 * neighbour_distance_um(start_um)


def neighbour_distance_um(x_um: Float64Array) -> float:
    """Mean distance to the nearest neighbour."""
    distance, _ = KDTree(x_um).query(x_um, k=2)
    return float(distance[:, 1].mean())


def refuse_unlike_start(observations: PatternObservations) -> None:
    """Refuse a start whose pattern does not look like the first frame, as :func:`refuse_wrong_start`."""
    scattering = observations.scattering
    expected = scattering.intensity(observations.start_um)[scattering.used]
    refuse_wrong_start(observations.counts[0][scattering.used].astype(np.float64), _scale(observations) * expected)


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


def misfit_of(frame: NDArray[np.float64], scattering: PatternScattering, x_um: Float64Array, scale: float) -> float:
    """Mean weighted square between a frame (size, size) and what particles at ``x_um`` scatter."""
    pixels = np.flatnonzero(scattering.used.ravel()).astype(np.int64)
    expected = scale * scattering.intensity(x_um).ravel()[pixels]
    residual, weight = photon_residual(frame.ravel()[pixels], expected)
    return float((weight * residual**2).mean())


def refined_start(
    observations: PatternObservations, error_um: float, deadline: float, seed: int, attempt: int
) -> Start:
    """The positions near the given ones that explain the first frame best.

    Parameters
    ----------
    error_um
        Standard deviation of the start's errors: a prior, and what the march begins with.
    deadline
        On the monotonic clock; the best so far is returned then.
    attempt
        Another number shakes the start otherwise; only 0 begins with it as it is.
    """
    rng = np.random.default_rng((seed, attempt))
    frame, scattering = np.asarray(observations.counts[0], np.float64), observations.scattering
    start_um, scale = observations.start_um, _scale(observations)
    best = Start(start_um, misfit_of(frame, scattering, start_um, scale))
    for restart in range(RESTARTS):
        shaken = rng.normal(0.0, SHAKEN * error_um, start_um.shape) if restart + attempt else 0.0
        march = _March(frame, scattering, scale, start_um, error_um, deadline)
        found = march.positions(start_um + shaken)
        misfit = misfit_of(frame, scattering, found, scale)
        best = Start(found, misfit) if misfit < best.misfit else best
        if best.misfit <= START_MISFIT or time.monotonic() > deadline:
            break
    return best


class _March:
    """Damped Gauss-Newton steps on rings that grow."""

    def __init__(
        self,
        frame: NDArray[np.float64],
        scattering: PatternScattering,
        scale: float,
        start_um: Float64Array,
        error_um: float,
        deadline: float,
    ) -> None:
        self._counts, self._scattering, self._scale = frame.ravel(), scattering, scale
        self._start_um, self._error_um, self._deadline = start_um, error_um, deadline

    def positions(self, x_um: Float64Array) -> Float64Array:
        """Where the march ends that begins at ``x_um``."""
        radius = self._scattering.radius_inv_um.ravel()
        first = max(3.0 * self._scattering.dq_inv_um, FIRST_PHASE / self._error_um)
        for reach in np.geomspace(min(first, radius.max()), radius.max(), N_RINGS):
            pixels = np.flatnonzero(self._scattering.used.ravel() & (radius <= reach)).astype(np.int64)
            if pixels.size:
                x_um = self._settled(x_um, pixels)
        return x_um

    def _settled(self, x_um: Float64Array, pixels: IntArray) -> Float64Array:
        damping, (misfit, gradient, curvature) = DAMPING, self._normal(x_um, pixels)
        for _ in range(STEPS_PER_RING):
            for _ in range(TRIALS):
                step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), gradient)
                trial = x_um + step.reshape(x_um.shape)
                found = self._normal(trial, pixels)
                if found[0] < misfit:
                    break
                damping *= DAMPING_FACTOR
            else:
                return x_um
            gained, x_um = misfit - found[0], trial
            misfit, gradient, curvature = found
            damping = max(damping / DAMPING_FACTOR, LEAST_DAMPING)
            if gained < NO_PROGRESS * misfit or time.monotonic() > self._deadline:
                break
        return x_um

    def _normal(self, x_um: Float64Array, pixels: IntArray) -> tuple[float, Float64Array, Float64Array]:
        """Misfit with the prior's part, and the normal equations of the positions (2 n,), (2 n, 2 n)."""
        value, slope = self._scattering.with_position_slopes(x_um, pixels)
        expected = self._scale * value
        residual, weight = photon_residual(self._counts[pixels], expected)
        rows = self._scale * slope / np.sqrt(expected + DARK)[:, None]
        off = (x_um - self._start_um).ravel() / self._error_um**2
        curvature = rows.T @ (weight[:, None] * rows) + np.eye(len(off)) / self._error_um**2
        prior = float((off * (x_um - self._start_um).ravel()).sum())
        return float((weight * residual**2).sum()) + prior, rows.T @ (weight * residual) - off, curvature
