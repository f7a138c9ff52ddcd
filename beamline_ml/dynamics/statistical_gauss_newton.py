"""Gauss-Newton steps whose Jacobian is a regression over an ensemble, for horizons where single paths are chaotic.

Parameters are p = (spline coefficients / v0, log D) with a Gaussian prior. An ensemble is drawn around what is known so
far, every member is simulated with particles and noise of its own, and the observables are regressed on the parameters.
The slope is the derivative of the *mean*, which exists where derivatives of single chaotic trajectories do not; what
the members' own noise adds to the information matrix is known and taken off (errors-in-variables correction). Data
enter once, whatever the number of steps, because each step starts from the prior again (the idea of ensemble randomised
maximum likelihood: Chen and Oliver, Math. Geosci. 44, 1 (2012)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag

from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array, IntArray

SMOOTHNESS_RANGE = (2.0, 100.0)
MOST_OF_KNOWN = 1e4
"""Upper end of that range for a spline that is known beforehand: what is left to learn may be very little."""
BEND, SIZE = 0.15, 4.5
"""Expected second difference, and size, of coefficients away from the core."""
FLANK = (4.0, 0.15)
"""By how much larger bends may be at r = 0, and the share of the cutoff over which that falls by e."""
CORE = (20.0, 0.05)
"""The same on top of it, for forces that grow without bound at the core."""
OPEN_CORE = (2000.0, 0.03)
"""The same when the answer is nearly there: hardly anything is asked of the core, and the band there becomes as wide as
the data leave it. From the beginning, it would let a fit go astray."""
SPREAD_OF_MORE = 1.0
"""Of all parameters after the coefficients: log D, the logarithm of a brightness, and a drift and the errors of a start
in their units."""
LARGEST_PARAMETER = 1e9
"""In units of the velocity scale: whatever moves so fast is no motion that was seen."""


@dataclass(frozen=True)
class Belief:
    """Gaussian knowledge of p."""

    mean: Float64Array
    """(n_coefficients + 1,)."""
    covariance: Float64Array
    """(n_coefficients + 1, n_coefficients + 1)."""
    smoothness: float | Float64Array
    """Weight of the smoothness prior that the evidence asks for; (n_splines,) where there are several splines."""
    chi2: float
    """Sum of squared differences at the mean, over the number of rows, noise of the simulation taken off."""

    def draw(self, n: int, spread: float, rng: np.random.Generator) -> Float64Array:
        """(n, n_parameters) samples with the covariance scaled by spread^2, in antithetic pairs one after the other."""
        values, vectors = np.linalg.eigh(self.covariance)
        factor = vectors * np.sqrt(np.clip(values, 0.0, None)) * spread
        half = rng.standard_normal(((n + 1) // 2, len(self.mean)))
        return self.mean + np.stack([half, -half], axis=1).reshape(-1, len(self.mean))[:n] @ factor.T


def roughness(n: int, core: tuple[float, float] = CORE) -> Float64Array:
    """Penalty (n, n) on second differences and, weakly, on the size of coefficients (units of v0)."""
    second = np.diff(np.eye(n), n=2, axis=0)
    share = np.arange(n) / n
    flank, steep = (height * np.exp(-share / width) for height, width in (FLANK, core))
    bend = BEND * (1.0 + flank + steep)[1:-1]
    size = SIZE * (1.0 + 0.25 * steep)
    return second.T @ (second / bend[:, None] ** 2) + np.diag(size**-2.0)


def prior_precision(
    n_coefficients: int, smoothness: float | Float64Array, core: tuple[float, float] = CORE, n_more: int = 1
) -> Float64Array:
    """Precision under the prior: of one spline's coefficients for each smoothness, then of ``n_more`` parameters."""
    coefficients = np.kron(np.diag(np.atleast_1d(smoothness)), roughness(n_coefficients, core))
    return np.asarray(block_diag(coefficients, np.eye(n_more) / SPREAD_OF_MORE**2), np.float64)


def belief_from(
    information: Float64Array,
    pull: Float64Array,
    at: Float64Array,
    prior_mean: Float64Array,
    smoothness: float | Float64Array,
    chi2: float,
    core: tuple[float, float] = CORE,
    n_coefficients: int | None = None,
) -> Belief:
    """Posterior from the data's information matrix and its gradient at ``at``; updates the smoothness by the evidence.

    The first parameters are those of the splines, one for each smoothness, of ``n_coefficients`` each; None: one, all
    parameters but the last. MacKay's fixed point (Neural Computation 4, 415 (1992)): the prior's weight is the number
    of well-determined coefficients over the roughness of what the answer differs by from the prior's mean.

    Raises
    ------
    FitRefused
        When the answer is not finite, or out of all proportion.
    """
    n = len(at) - 1 if n_coefficients is None else n_coefficients
    weights, rough = np.array(smoothness, np.float64, ndmin=1), roughness(n, core)
    is_known = prior_mean[: n * len(weights)].reshape(len(weights), n).any(axis=1)
    most = np.where(is_known, MOST_OF_KNOWN, SMOOTHNESS_RANGE[1])
    if not (np.isfinite(information).all() and np.isfinite(pull).all()):
        raise _unexplained()
    for _ in range(8):
        precision = prior_precision(n, weights, core, len(at) - n * len(weights))
        total = information + precision
        mean = at + np.linalg.solve(total, pull + precision @ (prior_mean - at))
        if not np.abs(mean).max() < LARGEST_PARAMETER:
            raise _unexplained()
        covariance = np.linalg.inv(total)
        for k in range(len(weights)):
            own = slice(k * n, (k + 1) * n)
            undetermined = np.trace(covariance[own, own] @ precision[own, own])
            learnt = mean[own] - prior_mean[own]
            wanted = max(n - undetermined, 0.5) / max(float(learnt @ rough @ learnt), 1e-9)
            weights[k] = np.clip(np.sqrt(weights[k] * wanted), SMOOTHNESS_RANGE[0], most[k])
    return Belief(mean, 0.5 * (covariance + covariance.T), weights if np.ndim(smoothness) else float(weights[0]), chi2)


def _unexplained() -> FitRefused:
    return FitRefused(
        "No finite force explains these data: the regression over the ensemble does not settle.",
        "Record more frames, or give the model more ensemble members.",
    )


def regress(
    parameters: Float64Array, differences: Float64Array, group: IntArray
) -> tuple[Float64Array, Float64Array, Float64Array, float]:
    """Information, gradient, centre and chi-squared per row from an ensemble.

    Parameters
    ----------
    parameters
        (n_members, n_parameters).
    differences
        (n_members, n_rows) model minus data in units of the data's noise.
    group
        (n_members,) from zero without gaps; members of a group share particles and noise, so that within it only
        parameters differ.

    Returns
    -------
    information
        (n_parameters, n_parameters) slope^T slope, freed of the members' noise.
    pull
        (n_parameters,) minus slope^T mean difference: where the data want the parameters to go.
    centre
        (n_parameters,) where both hold.
    chi2
        Mean squared difference at the centre per row, freed of the members' noise.
    """
    n_members, n_parameters = parameters.shape
    centre = parameters.mean(axis=0)
    member = (group[None, :] == np.unique(group)[:, None]).astype(np.float64)
    average = member / member.sum(axis=1, keepdims=True)
    n_groups = len(member)
    offset = parameters - (average @ parameters)[group]
    inverse = np.linalg.pinv(offset.T @ offset, rcond=1e-10, hermitian=True)
    group_mean = average @ differences
    slope = inverse @ offset.T @ (differences - group_mean[group])
    left = differences - group_mean[group] - offset @ slope
    freedom = max(n_members - n_parameters - n_groups, 1)
    noise = float((left**2).sum() / freedom)
    # Groups of different ensembles lie around different centres.
    at_centre = group_mean - (average @ parameters - centre) @ slope
    mean = at_centre.mean(axis=0)
    # Noise that a whole group shares shows as scatter between groups.
    shared = float(((at_centre - mean) ** 2).mean() / max(n_groups - 1, 1)) if n_groups > 1 else 0.0
    raw = slope @ slope.T
    values, vectors = np.linalg.eigh(raw - noise * inverse)
    values = np.clip(values, 0.0, None)
    # Where a direction is mostly noise, so is its gradient: both shrink alike.
    share = np.minimum(values / np.maximum(np.einsum("pi,pq,qi->i", vectors, raw, vectors), 1e-300), 1.0)
    weight = 1.0 / (1.0 + shared)
    information = (vectors * values) @ vectors.T * weight
    pull = -(vectors * share) @ vectors.T @ (slope @ mean) * weight
    chi2 = float((mean**2).mean()) / (1.0 + shared)
    return information, pull, centre, chi2
