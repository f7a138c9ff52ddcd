"""Patterns ahead of the run, averaged over the laws that the data leave possible, with a band.

Where particles come close to each other, small errors of the force grow; single patterns then go wrong in ways that
differ from law to law. Their mean over draws from the posterior is the best guess in the mean square, and their spread
says where it can be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from beamline_ml.dynamics.pattern_law import PatternFit
from beamline_ml.records import Float64Array

N_MEMBERS = 32


@dataclass(frozen=True)
class PatternForecast:
    """Expected photons at some times."""

    times_s: Float64Array
    """(n_times,)."""
    photons: Float64Array
    """(n_times, size, size) mean over the members."""
    photons_sd: Float64Array
    """(n_times, size, size) standard deviation between members: the uncertainty of the law, and of a start that had to
    be corrected, without photon noise."""


def forecast_patterns(
    found: PatternFit,
    times_s: Float64Array,
    start_um: Float64Array | None = None,
    n_members: int = N_MEMBERS,
    seed: int = 0,
) -> PatternForecast:
    """Patterns at any times from the run's first one on, with what the force's uncertainty makes of them.

    Parameters
    ----------
    start_um
        (n, 2) another start, to ask about another sample of its kind; None = the run's.
    n_members
        Laws drawn from the posterior, in antithetic pairs; two at least.
    """
    mean: Float64Array | float = 0.0
    square: Float64Array | float = 0.0
    members = _drawn(found, max(2, n_members), np.random.default_rng(seed))
    for k, member in enumerate(members):
        patterns = member.patterns(times_s, start_um)
        off = patterns - mean
        mean = mean + off / (k + 1)
        square = square + off * (patterns - mean)
    variance = np.asarray(square, np.float64) / (len(members) - 1)
    return PatternForecast(np.asarray(times_s, np.float64), np.asarray(mean, np.float64), np.sqrt(variance))


def _drawn(found: PatternFit, n_members: int, rng: np.random.Generator) -> list[PatternFit]:
    """The fit with laws and starts that the data leave possible."""
    covariance = found.covariance if found.joint_covariance is None else found.joint_covariance
    values, vectors = np.linalg.eigh(covariance)
    factor = vectors * np.sqrt(np.clip(values, 0.0, None))
    half = rng.standard_normal(((n_members + 1) // 2, len(values))) @ factor.T
    return [_moved(found, off) for off in np.concatenate([half, -half])[:n_members]]


def _moved(found: PatternFit, off: Float64Array) -> PatternFit:
    """The fit with changes added to the first of its law's parameters and, where there are more, to its start."""
    law = found.law
    parameters, of_start = law.parameters, off[law.n_parameters :]
    of_law = off[: law.n_parameters]
    parameters[: len(of_law)] += of_law
    moved = found.with_law(law.with_parameters(parameters))
    if not len(of_start):
        return moved
    return replace(moved, start_um=found.start_um + of_start.reshape(found.start_um.shape))
