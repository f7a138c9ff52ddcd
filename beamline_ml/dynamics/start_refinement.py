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

from beamline_ml.dynamics.patterns import PatternScattering
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
HUBER = 3.0
DARK = 0.1


@dataclass(frozen=True)
class Start:
    """Positions, and how well they explain the first frame."""

    positions_um: Float64Array
    """(n, 2)."""
    misfit: float
    """Mean weighted square over the lit pixels; 1 where photons alone explain it."""


def misfit_of(frame: NDArray[np.float64], scattering: PatternScattering, x_um: Float64Array, scale: float) -> float:
    """Mean weighted square between a frame (size, size) and what particles at ``x_um`` scatter."""
    pixels = np.flatnonzero(scattering.used.ravel()).astype(np.int64)
    expected = scale * scattering.intensity(x_um).ravel()[pixels]
    residual, weight = _residual(frame.ravel()[pixels], expected)
    return float((weight * residual**2).mean())


def refined_start(
    frame: NDArray[np.float64],
    scattering: PatternScattering,
    start_um: Float64Array,
    scale: float,
    expected_error_um: float,
    good_enough: float,
    deadline: float,
    seed: int = 0,
    attempt: int = 0,
) -> Start:
    """The positions near ``start_um`` that explain the first frame best.

    Parameters
    ----------
    frame
        (size, size) photons.
    scale
        Photons per unit of intensity.
    expected_error_um
        Standard deviation of the start's errors: a prior, and what the march begins with.
    good_enough
        Misfit below which no further restart is tried.
    deadline
        On the monotonic clock; the best so far is returned then.
    attempt
        Another number shakes the start otherwise; only 0 begins with it as it is.
    """
    rng = np.random.default_rng((seed, attempt))
    best = Start(start_um, misfit_of(frame, scattering, start_um, scale))
    for restart in range(RESTARTS):
        shaken = rng.normal(0.0, SHAKEN * expected_error_um, start_um.shape) if restart + attempt else 0.0
        march = _March(frame, scattering, scale, start_um, expected_error_um, deadline)
        found = march.positions(start_um + shaken)
        misfit = misfit_of(frame, scattering, found, scale)
        best = Start(found, misfit) if misfit < best.misfit else best
        if best.misfit <= good_enough or time.monotonic() > deadline:
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
        q = self._scattering.q_inv_um
        radius = np.hypot(q[:, None], q[None, :]).ravel()
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
        value, slope = _position_slopes(self._scattering, x_um, pixels)
        expected = self._scale * value
        residual, weight = _residual(self._counts[pixels], expected)
        rows = self._scale * slope / np.sqrt(expected + DARK)[:, None]
        off = (x_um - self._start_um).ravel() / self._error_um**2
        curvature = rows.T @ (weight[:, None] * rows) + np.eye(len(off)) / self._error_um**2
        prior = float((off * (x_um - self._start_um).ravel()).sum())
        return float((weight * residual**2).sum()) + prior, rows.T @ (weight * residual) - off, curvature


def _residual(counts: Float64Array, expected: Float64Array) -> tuple[Float64Array, Float64Array]:
    """In units of photon noise, and its Huber weight."""
    residual = (counts - expected) / np.sqrt(expected + DARK)
    return residual, np.minimum(1.0, HUBER / np.maximum(np.abs(residual), 1e-12))


def _position_slopes(
    scattering: PatternScattering, x_um: Float64Array, pixels: IntArray
) -> tuple[Float64Array, Float64Array]:
    """|A|^2 at flat pixel indices (n_pixels,) and its derivatives by every coordinate (n_pixels, 2 n)."""
    rows, columns = np.divmod(pixels, scattering.size)
    q = scattering.q_inv_um
    row_phase, column_phase = (np.exp(1j * np.outer(q, x_um[:, d])) for d in range(2))
    phase = (row_phase * scattering.weight(x_um))[rows] * column_phase[columns]
    total = phase.sum(axis=1)
    fading = 0.0 * x_um if scattering.probe_um is None else -2.0 * x_um / scattering.probe_um**2
    turned = 2.0 * total.conj()[:, None] * phase
    slopes = [(1j * q[at][:, None] + fading[:, d]) * turned for d, at in enumerate((rows, columns))]
    return np.abs(total) ** 2, np.stack([slope.real for slope in slopes], axis=2).reshape(len(pixels), -1)
