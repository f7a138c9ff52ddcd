"""Which samples to measure first: expected information of a phonon spectrum per hour, and batches without repetition.

The members of an ensemble are draws from what is believed of all densities of states at once. A measurement of a sample
with noise sigma tells 1/2 log det(1 + Sigma/sigma^2) nats, Sigma being the members' covariance there (D. V. Lindley,
Ann. Math. Stat. 27, 986 (1956), for Gaussian beliefs). Samples on which members disagree alike tell the same thing
twice, so each is counted after those chosen before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.errors import GuidanceError
from beamline_ml.records import Float64Array, IntArray


@dataclass(frozen=True, slots=True)
class Ranking:
    """Samples in the order in which to measure them."""

    order: IntArray
    """(n_chosen,) indices of samples."""
    nats: Float64Array
    """(n_chosen,) information that each adds to those before it."""
    nats_per_hour: Float64Array
    """(n_chosen,) the same, by the time it takes."""


def expected_information_nats(member_points: Float64Array, noise: float) -> Float64Array:
    """(n_samples,) information that a spectrum of each sample alone would give.

    Parameters
    ----------
    member_points
        (n_members, n_samples, n_points) densities as each member predicts them.
    noise
        Standard deviation of a measured point, in the units of the densities.

    Raises
    ------
    GuidanceError
        Fewer than two members, or noise that is not positive.
    """
    scaled = _scaled(member_points, noise)
    return np.array([_log_det(one.T @ one) for one in scaled])


def greedy_ranking(member_points: Float64Array, noise: float, hours: Float64Array, n_chosen: int) -> Ranking:
    """Choose samples one by one, each for what it adds per hour to those chosen before it.

    Parameters
    ----------
    member_points, noise
        As in :func:`expected_information_nats`.
    hours
        (n_samples,) beam time that each takes, change of sample included.
    n_chosen
        How many to choose; no more than there are samples.

    Raises
    ------
    GuidanceError
        As above; or times that are not positive; or more to choose than there are samples.
    """
    scaled = _scaled(member_points, noise)
    if hours.shape != (len(scaled),) or not (hours > 0).all():
        raise GuidanceError(f"There are {len(scaled)} samples and hours {hours}.", "Give a positive time for each.")
    if not 1 <= n_chosen <= len(scaled):
        raise GuidanceError(f"{n_chosen} of {len(scaled)} samples cannot be chosen.", "Ask for fewer.")
    # Everything happens in the small space of members: what is known there, and what each sample would add.
    information = np.einsum("spm,spn->smn", scaled, scaled)
    known = np.eye(scaled.shape[2])
    left, order, nats = set(range(len(scaled))), [], []
    for _ in range(n_chosen):
        base = float(np.linalg.slogdet(known)[1])
        index = np.array(sorted(left))
        gains = 0.5 * (np.linalg.slogdet(known + information[index])[1] - base)
        best = int(np.argmax(gains / hours[index]))
        order.append(int(index[best]))
        nats.append(float(gains[best]))
        known = known + information[index[best]]
        left.remove(int(index[best]))
    chosen, gained = np.array(order, np.int64), np.array(nats)
    return Ranking(chosen, gained, gained / hours[chosen])


def _scaled(member_points: Float64Array, noise: float) -> Float64Array:
    """(n_samples, n_points, n_members) deviations whose outer product is the covariance in units of the noise."""
    n_members = member_points.shape[0]
    if n_members < 2:
        raise GuidanceError(f"{n_members} member has no spread.", "Use an ensemble of two or more.")
    if not (np.isfinite(noise) and noise > 0):
        raise GuidanceError(f"A noise of {noise} is none.", "Give the standard deviation of a measured point.")
    deviation = (member_points - member_points.mean(axis=0)) / (noise * np.sqrt(n_members - 1.0))
    moved: Float64Array = np.moveaxis(deviation, 0, 2).astype(np.float64)
    return moved


def _log_det(information: Float64Array) -> float:
    """Nats of a measurement, from its (n_members, n_members) information."""
    return 0.5 * float(np.linalg.slogdet(np.eye(len(information)) + information)[1])
