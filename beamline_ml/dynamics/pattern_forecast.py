"""Patterns ahead of the run, averaged over the laws that the data leave possible, with a band.

Where particles come close to each other, small errors of the force grow; single patterns then go wrong in ways that
differ from law to law. Their mean over draws from the posterior is the best guess in the mean square, and their spread
says where it can be trusted. Of a law that does not describe the run it says nothing: such a law, or the simple
forecast that foretold the run's own frames better, has a band that holds what it missed there, growing with the time
ahead, and of the law's speckles only what is then still known of them is published (``pattern_misses``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from beamline_ml.dynamics.contest import NEURAL_ODE
from beamline_ml.dynamics.pattern_baselines import FadingPictures
from beamline_ml.dynamics.pattern_contest import UNRELATED, PatternContest
from beamline_ml.dynamics.pattern_law import PatternFit
from beamline_ml.dynamics.pattern_misses import grown, of_displaced, square_displacement_um2
from beamline_ml.dynamics.photon_information import mean_around
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
    contest = found.contest
    law = PatternForecast(times_s, photons, np.sqrt(variance), contest={} if contest is None else contest.scores)
    if contest is None or found.describes_data:
        return law
    if start_um is not None:
        # No simple forecast knows another sample.
        return _of_wrong_law(law, found, contest, times_s - times_s[0])
    ahead_s = times_s - found.times_s[found.used_frames - 1]
    if found.curve is None or found.winner == NEURAL_ODE:
        return _of_wrong_law(law, found, contest, ahead_s)
    return _of_curve(law, found, contest, found.curve, ahead_s)


def _of_wrong_law(
    law: PatternForecast, found: PatternFit, contest: PatternContest, ahead_s: Float64Array
) -> PatternForecast:
    """What is left of a law's forecast after what it missed of the run."""
    scattering, light = found.scattering, _light(law, found)
    q = scattering.radius_inv_um
    there_um2 = square_displacement_um2(contest.scores[NEURAL_ODE] ** 2, light, q)
    photons, missed = of_displaced(law.photons, light, q, there_um2 * grown(ahead_s, contest.ahead_s))
    return replace(law, photons=photons, photons_sd=np.sqrt(law.photons_sd**2 + missed))


def _of_curve(
    law: PatternForecast, found: PatternFit, contest: PatternContest, curve: FadingPictures, ahead_s: Float64Array
) -> PatternForecast:
    """The law's patterns of the run, and the simple forecast's of what comes after."""
    later, square = ahead_s > 0.0, contest.scores[found.winner] ** 2
    photons, deviation = law.photons.copy(), law.photons_sd.copy()
    photons[later] = curve.at(law.times_s[later]).reshape(-1, *photons.shape[1:])
    share = np.minimum(square * grown(ahead_s[later], contest.ahead_s), max(UNRELATED, square))
    deviation[later] = np.sqrt(share)[:, None, None] * _light(law, found)
    refused = STAYS if found.winner in ("persistence", "mean") else None
    return replace(law, photons=photons, photons_sd=deviation, method=found.winner, refused=refused)


def _light(law: PatternForecast, found: PatternFit) -> Float64Array:
    """(size, size) mean photons as far from the direct beam; none where a pixel is not used."""
    used = found.scattering.used
    light = np.zeros(used.shape)
    light[used] = mean_around(law.photons[:, used].mean(axis=0), used.shape, np.flatnonzero(used))
    return light


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
