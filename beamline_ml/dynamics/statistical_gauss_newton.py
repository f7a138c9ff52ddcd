"""Gauss-Newton steps whose Jacobian is a regression over an ensemble, for horizons where single paths are chaotic.

Parameters are p = (spline coefficients / v0, log D) with a Gaussian prior. An ensemble is drawn around what is known so
far, every member is simulated with particles and noise of its own, and the observables are regressed on the parameters.
The slope is the derivative of the *mean*, which exists where derivatives of single chaotic trajectories do not; what
the members' own noise adds to the information matrix is known and taken off (errors-in-variables correction). Data
enter once, whatever the number of steps, because each step starts from the prior again (the idea of ensemble randomised
maximum likelihood: Chen and Oliver, Math. Geosci. 44, 1 (2012)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import block_diag

from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array, IntArray

SMOOTHNESS_RANGE = (2.0, 100.0)
MOST_OF_KNOWN = 1e4
"""Upper end of that range for a spline that is known beforehand: what is left to learn may be very little."""
SIZE = 4.5
"""Expected size of coefficients away from the core."""
CORE_BENDS_PER_SIZE = 0.6
"""At the core coefficients may be larger by the factor 1 + (its bends / this)."""
SPREAD_OF_MORE = 1.0
"""Of all parameters after the coefficients: log D, the logarithm of a brightness, and a drift and the errors of a start
in their units."""
WIDEST = 1.0
"""Of the spread of members, in units of v0: what a core may be goes far beyond what a straight line follows."""
BEYOND_REACH = 1e-4
"""Expected size of coefficients beyond a force's range, as a part of what it is within."""
LARGEST_PARAMETER = 1e9
"""In units of the velocity scale: whatever moves so fast is no motion that was seen."""


@dataclass(frozen=True)
class Bends:
    """Expected second differences of coefficients (units of v0) along the distance r, where the smoothness is 1."""

    far: float
    """Everywhere."""
    flank: tuple[float, float]
    """On top of it at r = 0, and the share of the cutoff over which that falls by e."""
    core: tuple[float, float] = (3.0, 0.05)
    """The same once more, for forces that grow without bound at the core."""
    most: float = np.inf
    """Largest expected size of coefficients."""
    smoothest: float = SMOOTHNESS_RANGE[1]
    """Largest smoothness that the evidence may ask for."""
    reach: float = np.inf
    """Share of the cutoff beyond which there is hardly any force (or hardly more than is known beforehand)."""

    def at(self, share: Float64Array) -> Float64Array:
        """Of the shape of ``share``, the distance in units of the cutoff."""
        return self.far + _falling(self.flank, share) + _falling(self.core, share)

    def size(self, share: Float64Array) -> Float64Array:
        """Expected size of coefficients, of the shape of ``share``."""
        inside = np.minimum(SIZE * (1.0 + _falling(self.core, share) / CORE_BENDS_PER_SIZE), self.most)
        return inside * np.where(share > self.reach, BEYOND_REACH, 1.0)

    def with_open_core(self) -> Bends:
        """For when the answer is nearly there: hardly anything is asked of the core.

        The band there becomes as wide as the data leave it. From the beginning, it would let a fit go astray.
        """
        return replace(self, core=(300.0, 0.03))


def _falling(height_and_width: tuple[float, float], share: Float64Array) -> Float64Array:
    height, width = height_and_width
    return height * np.exp(-share / width)


EVEN = Bends(0.15, (0.6, 0.15))
FADING = Bends(0.03, (0.72, 0.16))
"""For forces that fade: were their bends expected to be alike, those near the core would leave the far force too free.
"""
CLOSED_BENDS = (EVEN, FADING)
REACHES = tuple(np.arange(0.15, 0.95, 0.05))
"""Ranges of a force that are tried, in units of the cutoff, which is only known to be no shorter."""
OPEN_BENDS = tuple(
    bends.with_open_core() for bends in (EVEN, FADING, *(replace(FADING, reach=reach) for reach in REACHES))
)
"""Of a force from patterns, on the way and where it is nearly there: the evidence weighs them."""
_OF_RINGS = replace(EVEN, core=(30.0, 0.05), most=2.0, smoothest=SMOOTHNESS_RANGE[0])
RING_BENDS = (_OF_RINGS, *(replace(_OF_RINGS, reach=reach) for reach in REACHES))
"""Of a force from correlations: the core is open, but for its size, because rings say little of it. The smoothness is
fixed: slopes that are partly noise make a force look smoother than it is, and the evidence would believe them."""
OF_NOISY_SLOPES = 0.2
"""Part of the logarithm of an evidence that counts where slopes are partly noise: taken as it is, it is too sure of a
force's range, and the band too narrow."""


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
    widest: float = WIDEST
    """Standard deviation of coefficients, in their units, beyond which no members are drawn."""

    @property
    def explorable(self) -> Float64Array:
        """The covariance were the coefficients known to ``widest``: of a core more may be open than a line follows."""
        c, n = self.covariance, len(self.mean) - 1
        gain = np.linalg.solve(c[:n, :n] + self.widest**2 * np.eye(n), c[:n])
        limited = c - c[:, :n] @ gain
        return np.asarray(0.5 * (limited + limited.T), np.float64)

    def draw(self, n: int, spread: float, rng: np.random.Generator) -> Float64Array:
        """(n, n_parameters) samples with the covariance scaled by spread^2, in antithetic pairs one after the other."""
        values, vectors = np.linalg.eigh(self.explorable)
        factor = vectors * np.sqrt(np.clip(values, 0.0, None)) * spread
        half = rng.standard_normal(((n + 1) // 2, len(self.mean)))
        return self.mean + np.stack([half, -half], axis=1).reshape(-1, len(self.mean))[:n] @ factor.T


def roughness(n: int, bends: Bends) -> Float64Array:
    """Penalty (n, n) on second differences and, weakly, on the size of coefficients (units of v0)."""
    second = np.diff(np.eye(n), n=2, axis=0)
    share = np.arange(n) / n
    return second.T @ (second / bends.at(share)[1:-1, None] ** 2) + np.diag(bends.size(share) ** -2.0)


def prior_precision(
    n_coefficients: int, smoothness: float | Float64Array, bends: Bends = EVEN, n_more: int = 1
) -> Float64Array:
    """Precision under the prior: of one spline's coefficients for each smoothness, then of ``n_more`` parameters."""
    coefficients = np.kron(np.diag(np.atleast_1d(smoothness)), roughness(n_coefficients, bends))
    return np.asarray(block_diag(coefficients, np.eye(n_more) / SPREAD_OF_MORE**2), np.float64)


def belief_from(
    information: Float64Array,
    pull: Float64Array,
    at: Float64Array,
    prior_mean: Float64Array,
    smoothness: float | Float64Array,
    chi2: float,
    bends: tuple[Bends, ...] = (EVEN,),
    n_coefficients: int | None = None,
    evidence_counts: float = 1.0,
) -> Belief:
    """Posterior from the data's information matrix and its gradient at ``at``; updates the smoothness by the evidence.

    The first parameters are those of the splines, one for each smoothness, of ``n_coefficients`` each; None: one, all
    parameters but the last. MacKay's fixed point (Neural Computation 4, 415 (1992)): the prior's weight is the number
    of well-determined coefficients over the roughness of what the answer differs by from the prior's mean. Several
    ``bends`` are averaged over by their evidence (Hoeting et al., Statistical Science 14, 382 (1999)), so that the
    covariance holds what is not known of them; of its logarithm the part ``evidence_counts`` is believed.

    Raises
    ------
    FitRefused
        When the answer is not finite, or out of all proportion.
    """
    n = len(at) - 1 if n_coefficients is None else n_coefficients
    if not (np.isfinite(information).all() and np.isfinite(pull).all()):
        raise _unexplained()
    weighed = [_weighed(information, pull, at, prior_mean, smoothness, one, n) for one in bends]
    means, covariances, smooth, evidence = zip(*weighed, strict=True)
    mean, covariance, weights = _averaged(means, covariances, smooth, evidence_counts * np.array(evidence))
    return Belief(mean, covariance, weights if np.ndim(smoothness) else float(weights[0]), chi2)


def _averaged(
    means: Sequence[Float64Array],
    covariances: Sequence[Float64Array],
    weights: Sequence[Float64Array],
    evidence: Float64Array,
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Mean and covariance of a mixture, and the smoothness that it asks for."""
    share = np.exp(evidence - evidence.max())
    share /= share.sum()
    mean = share @ np.array(means)
    off = np.array(means) - mean
    covariance = np.tensordot(share, np.array(covariances), 1) + (share[:, None] * off).T @ off
    return mean, covariance, np.exp(share @ np.log(weights))


def _weighed(
    information: Float64Array,
    pull: Float64Array,
    at: Float64Array,
    prior_mean: Float64Array,
    smoothness: float | Float64Array,
    bends: Bends,
    n: int,
) -> tuple[Float64Array, Float64Array, Float64Array, float]:
    """Mean, covariance, the smoothness that the evidence asks for, and the logarithm of that evidence."""
    weights, rough = np.array(smoothness, np.float64, ndmin=1), roughness(n, bends)
    is_known = prior_mean[: n * len(weights)].reshape(len(weights), n).any(axis=1)
    most = np.where(is_known, MOST_OF_KNOWN, bends.smoothest)
    for _ in range(8):
        precision = prior_precision(n, weights, bends, len(at) - n * len(weights))
        total = information + precision
        mean = at + np.linalg.solve(total, pull + precision @ (prior_mean - at))
        if not np.abs(mean).max() < LARGEST_PARAMETER:
            raise _unexplained()
        covariance, before = np.linalg.inv(total), weights.copy()
        for k in range(len(weights)):
            own = slice(k * n, (k + 1) * n)
            undetermined = np.trace(covariance[own, own] @ precision[own, own])
            learnt = mean[own] - prior_mean[own]
            wanted = max(n - undetermined, 0.5) / max(float(learnt @ rough @ learnt), 1e-9)
            weights[k] = np.clip(np.sqrt(weights[k] * wanted), SMOOTHNESS_RANGE[0], most[k])
        if (weights == before).all():
            break
    moved, learnt = mean - at, mean - prior_mean
    gain = pull @ moved - 0.5 * moved @ information @ moved - 0.5 * learnt @ precision @ learnt
    evidence = gain + 0.5 * (np.linalg.slogdet(precision)[1] - np.linalg.slogdet(total)[1])
    return mean, 0.5 * (covariance + covariance.T), weights, float(evidence)


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
