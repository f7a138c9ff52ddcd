"""Patterns ahead of the run, averaged over the laws that the data leave possible, with a band.

Where particles come close to each other, small errors of the force grow; single patterns then go wrong in ways that
differ from law to law. Their mean over draws from the posterior is the best guess in the mean square, and their spread
says where it can be trusted. Of a law that does not describe the run it says nothing: such a law, or the simple
forecast that foretold the run's own frames better, has a band that holds what it missed there, growing with the time
ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from beamline_ml.dynamics.contest import NEURAL_ODE
from beamline_ml.dynamics.pattern_contest import UNRELATED, light_around
from beamline_ml.dynamics.pattern_law import PatternFit
from beamline_ml.dynamics.photon_information import distance_px
from beamline_ml.records import Float64Array

N_MEMBERS = 32
STAYS = "No law foretold this run's own frames better than a picture that stays as it is."


@dataclass(frozen=True)
class PatternForecast:
    """Expected photons at some times."""

    times_s: Float64Array
    """(n_times,)."""
    photons: Float64Array
    """(n_times, size, size) mean over the members; of frames after the run those of the winner of the contest."""
    photons_sd: Float64Array
    """(n_times, size, size) standard deviation without photon noise: between members, the uncertainty of the law and of
    a start that had to be corrected; after the run that of the winner."""
    method: str = NEURAL_ODE
    """Whose forecast this is after the run."""
    contest: dict[str, float] = field(default_factory=dict)
    """Error of blind forecasts of the run's own frames, over the light there, by forecaster; empty without a contest.
    """
    refused: str | None = None
    """Why there is no more than a picture that stays; None where there is more."""


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
    times_s = np.asarray(times_s, np.float64)
    mean: Float64Array | float = 0.0
    square: Float64Array | float = 0.0
    members = _drawn(found, max(2, n_members), np.random.default_rng(seed))
    for k, member in enumerate(members):
        patterns = member.patterns(times_s, start_um)
        off = patterns - mean
        mean = mean + off / (k + 1)
        square = square + off * (patterns - mean)
    photons, variance = np.asarray(mean, np.float64), np.asarray(square, np.float64) / (len(members) - 1)
    scores = {} if found.contest is None else found.contest.scores
    if start_um is not None:
        # No simple forecast knows another sample.
        missed = _missed(found, NEURAL_ODE, photons, times_s - times_s[0])
        return PatternForecast(times_s, photons, np.sqrt(variance + missed), NEURAL_ODE, scores)
    ahead_s, winner = times_s - found.times_s[found.used_frames - 1], found.winner
    missed = _missed(found, winner, photons, ahead_s)
    if winner != NEURAL_ODE and found.curve is not None:
        later = ahead_s > 0.0
        photons[later] = found.curve.at(times_s[later]).reshape(-1, *photons.shape[1:])
        variance[later] = 0.0
    refused = STAYS if winner in ("persistence", "mean") else None
    return PatternForecast(times_s, photons, np.sqrt(variance + missed), winner, scores, refused)


def _missed(found: PatternFit, name: str, photons: Float64Array, ahead_s: Float64Array) -> Float64Array:
    """(n_times, size, size) mean square that a forecast is expected to miss; 0 where the law describes the run.

    As much as in the contest where it looked as far ahead. Particles that move at a wrong speed are off by ever more,
    in proportion to the time, up to what patterns that have nothing in common differ by.
    """
    if found.contest is None or found.describes_data:
        return np.zeros_like(photons)
    square = found.contest.scores[name] ** 2
    grown = square * (np.clip(ahead_s, 0.0, None) / found.contest.ahead_s) ** 2
    share = np.minimum(grown, max(UNRELATED, square))
    light = light_around(photons.reshape(len(photons), -1), distance_px(photons.shape[1:])).reshape(photons.shape[1:])
    return np.asarray(share[:, None, None] * (light * found.scattering.used) ** 2, np.float64)


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
