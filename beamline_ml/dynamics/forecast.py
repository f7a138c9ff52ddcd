"""How the sample goes on after the run: the winner of the contest, with its band.

The neural ODE's forecast is the mean over members drawn from the fit, each with new particles and noise: what the
sample does, as any speckles would show it. A run sees only so many speckles, and those that it saw will still be there
for a while; asked for its own speckles, the forecast carries on what they added to the observed C2 as far as they
persist (``carry_over``), which is what the same detector would measure next. The band holds the members' spread, wider
where blind forecasts of the run's own blocks missed by more than that (``band_scale``), the contrast's error, and by
how much |f|^2 of as many wave vectors as the run has speckles strays from its mean; where it is about these speckles,
what cannot be foreseen of their noise instead. A law that does not describe the run may be corrected by what it missed
(``corrected_law``), and its band holds what its rolling-origin error exceeds the noise by. A classical winner's band
holds its own rolling-origin error and speckle noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np

from beamline_ml.dynamics.baselines import BASELINES, Observed
from beamline_ml.dynamics.carry_over import carried_on
from beamline_ml.dynamics.contest import CORRECTED, LAWS, NEURAL_ODE, published
from beamline_ml.dynamics.corrected_law import corrected_law
from beamline_ml.dynamics.ensembles import Ensemble, simulate_apart
from beamline_ml.dynamics.pattern_forecast import PatternForecast, forecast_patterns
from beamline_ml.dynamics.pattern_law import PatternFit
from beamline_ml.dynamics.result import DynamicsFit
from beamline_ml.dynamics.s_baselines import S_BASELINES
from beamline_ml.dynamics.shells import noise_of_squared
from beamline_ml.dynamics.statistical_gauss_newton import WIDEST, Belief
from beamline_ml.dynamics.surrogates import Scene, velocity_scale
from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array, Forecast

TWO_SIGMA = 1.96
LONGEST_FACTOR = 8.0


@dataclass(frozen=True)
class _Ahead:
    """A forecast of F and log S on the whole time grid with its standard deviations."""

    c2: Float64Array
    c2_sd: Float64Array
    log_s: Float64Array
    log_s_sd: Float64Array


@overload
def forecast(fit_result: DynamicsFit, until_s: float, *, own_speckles: bool = False) -> Forecast: ...


@overload
def forecast(fit_result: PatternFit, until_s: float) -> PatternForecast: ...


def forecast(
    fit_result: DynamicsFit | PatternFit, until_s: float, *, own_speckles: bool = False
) -> Forecast | PatternForecast:
    """C2 and S(q, t) from the first observed block until ``until_s``; from a ``PatternFit``, patterns.

    Parameters
    ----------
    until_s
        Age of the sample in s, on the clock of the run.
    own_speckles
        True: C2 as the speckles of this very run would go on to show it. False: 1 + contrast |f(q, t1, t2)|^2 of the
        sample, with a band for the field correlation of as many other wave vectors. A classical forecast continues what
        was measured in either case.

    Raises
    ------
    FitRefused
        When ``until_s`` is not finite, not beyond the first block, or more than eight runs ahead.
    """
    observed, begin = fit_result.times_s, 0.0 if isinstance(fit_result, PatternFit) else fit_result.begin_s
    if not (np.isfinite(until_s) and observed[0] < until_s - begin <= LONGEST_FACTOR * observed[-1]):
        raise FitRefused(
            f"A forecast until {until_s} s is not possible: the run ends at {begin + observed[-1]:.3g} s.",
            f"Ask for an age up to {LONGEST_FACTOR:g} times the run.",
        )
    times = _all_times(observed, until_s - begin)
    if isinstance(fit_result, PatternFit):
        return forecast_patterns(fit_result, times)
    winner = fit_result.winner
    s_winner = published(fit_result.contest_s)
    ahead, log_s, log_s_sd = _ahead(fit_result, winner, s_winner, times, own_speckles)
    refused = None
    if not fit_result.contest:
        refused = "The time budget left no room for the contest: nobody knows whether this forecast beats persistence."
    elif winner == "persistence":
        refused = "No forecast beats persistence on this run: it does not change in a way that can be told from noise."
    half = TWO_SIGMA * ahead.c2_sd
    return Forecast(
        times_s=begin + times,
        observed_until_s=begin + float(0.5 * (observed[-1] + times[len(observed)]))
        if len(times) > len(observed)
        else begin + float(observed[-1]),
        q_inv_angstrom=fit_result.q_inv_um * 1e-4,
        c2=ahead.c2.astype(np.float32),
        lower=(ahead.c2 - half).astype(np.float32),
        upper=(ahead.c2 + half).astype(np.float32),
        s_q=np.exp(log_s),
        s_q_lower=np.exp(log_s - TWO_SIGMA * log_s_sd),
        s_q_upper=np.exp(log_s + TWO_SIGMA * log_s_sd),
        method=winner,
        score=fit_result.contest.get(winner, float("nan")),
        contest=dict(fit_result.contest),
        refused=refused,
    )


def _ahead(
    result: DynamicsFit, winner: str, s_winner: str, times: Float64Array, own_speckles: bool
) -> tuple[_Ahead, Float64Array, Float64Array]:
    """The winners' forecasts of F and of log S, with its deviation; members are simulated only where they won."""
    ode = _neural_ode(result, winner, times, own_speckles) if {winner, s_winner} & set(LAWS) else None
    ahead = ode if ode is not None and winner in LAWS else _baseline(result, winner, times)
    if ode is not None and s_winner == NEURAL_ODE:
        return ahead, ode.log_s, ode.log_s_sd
    return ahead, *_s_baseline(result, s_winner, times)


def _all_times(observed: Float64Array, until_s: float) -> Float64Array:
    """Observed block times, continued at their spacing."""
    step = float(np.median(np.diff(observed)))
    n_future = int(np.floor((until_s - observed[-1]) / step + 0.25))
    return np.concatenate([observed, observed[-1] + step * np.arange(1, max(n_future, 0) + 1)])


def _neural_ode(result: DynamicsFit, winner: str, times: Float64Array, own_speckles: bool) -> _Ahead:
    members = _members(result, times)
    contrast = result.contrast[:, None, None]
    mean_f2, mean_log_s = members.f2.mean(axis=0), members.log_s.mean(axis=0)
    shift = (np.log(result.structure_factor) - mean_log_s[:, : len(result.times_s)]).mean(axis=1, keepdims=True)
    mean_log_s = mean_log_s + shift
    if winner == CORRECTED:
        mean_f2 = corrected_law(result.observations, len(result.times_s), mean_f2, times)
    more = carried_on(result.observations, len(result.times_s), mean_f2, result.seed + 17)
    laws = members.f2_variance()
    scale, unexplained = _beyond_the_laws(result, winner, times, own_speckles)
    c2 = 1.0 + contrast * mean_f2 + (more.c2 if own_speckles else 0.0)
    if own_speckles:
        c2_sd = np.sqrt(scale**2 * (contrast**2 * laws + more.c2_sd**2) + contrast**2 * unexplained)
    else:
        sampled = 0.0 if result.stationary else noise_of_squared(mean_f2, result.n_speckles)
        of_contrast = result.contrast_err[:, None, None] * mean_f2
        c2_sd = np.sqrt(contrast**2 * (scale**2 * laws + sampled + unexplained) + of_contrast**2)
    c2[:, np.arange(len(times)), np.arange(len(times))] = 1.0 + result.contrast[:, None]
    s_sd = np.sqrt(members.log_s_variance() + more.log_s_sd**2)
    return _Ahead(c2, c2_sd, mean_log_s, s_sd)


def _beyond_the_laws(
    result: DynamicsFit, winner: str, times: Float64Array, own_speckles: bool
) -> tuple[float, Float64Array]:
    """How many times wider than the laws' spread the band is, and a variance of F (n, n) beside it.

    A law that does not describe the run, corrected or not, misses more than laws like it differ by: what its
    rolling-origin error exceeds the noise by, and more the further ahead. The scale is that of blind forecasts which
    were not corrected, and says then what these very speckles are missed by.
    """
    later = np.maximum(times[:, None], times)
    score = result.contest.get(winner)
    if result.describes_data or result.stationary or score is None:
        return result.band_scale, np.zeros_like(later)
    own_error = max(score**2 - result.contest_noise**2, 0.0)
    scale = result.band_scale if own_speckles and winner != CORRECTED else 1.0
    return scale, own_error * _growth(result, later)


def _growth(result: DynamicsFit, times: Float64Array) -> Float64Array:
    """How the variance of what is not understood grows: a quarter at the end of the run, four more one run later."""
    last = result.times_s[-1]
    return 0.25 + 4.0 * np.clip((times - last) / max(last, 1e-12), 0.0, None)


def _members(result: DynamicsFit, times: Float64Array) -> Ensemble:
    """New members on the whole time grid."""
    mean = np.append(result.coefficients, result.log_d)
    v0 = velocity_scale(result.cutoff_um, result.number_density_per_um2, float(result.times_s[-1]))
    belief = Belief(mean, result.covariance, 1.0, result.chi2, WIDEST * v0)
    ensemble = belief.draw(result.n_forecast_members, 1.0, np.random.default_rng(result.seed + 13))
    scene = Scene(
        result.number_density_per_um2,
        result.box_um,
        result.cutoff_um,
        1.0,
        result.edges_inv_um,
        result.n_boxes,
        result.n_per_box,
        result.steps_per_time,
        result.start_structure_factor,
        result.waiting_s,
    )
    since = times - times[0] if result.stationary else times
    moved = simulate_apart(scene, since, ensemble, result.seed + 13, result.n_threads)
    return moved.averaged_over_ages() if result.stationary else moved


def _baseline(result: DynamicsFit, name: str, times: Float64Array) -> _Ahead:
    """A competitor's forecast; its band is its own rolling-origin error beside speckle noise."""
    contrast = result.contrast[:, None, None]
    observed = Observed((result.c2 - 1.0) / contrast, result.c2_err / contrast, result.times_s, result.q_inv_um)
    guess = BASELINES[name](observed, times)
    speckle = 2.0 * np.sqrt(np.clip(guess, 0.0, 1.0)) / np.sqrt(result.n_speckles)[:, None, None]
    sd = contrast * np.sqrt(result.contest[name] ** 2 + speckle**2 + 1.0 / result.n_speckles[:, None, None])
    log_s = np.repeat(np.log(result.structure_factor).mean(axis=1, keepdims=True), len(times), axis=1)
    return _Ahead(1.0 + contrast * guess, np.broadcast_to(sd, guess.shape), log_s, np.zeros_like(log_s))


def _s_baseline(result: DynamicsFit, name: str, times: Float64Array) -> tuple[Float64Array, Float64Array]:
    log_s = np.log(result.structure_factor)
    guess = S_BASELINES[name](log_s, len(result.times_s), result.times_s, times)
    sd = np.sqrt(result.contest_s[name] ** 2 * _growth(result, times) + 1.0 / result.n_speckles[:, None])
    return guess, np.broadcast_to(sd, guess.shape)
