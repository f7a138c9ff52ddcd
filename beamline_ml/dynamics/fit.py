"""The front door: observations and a model in, a fit out, within a time budget."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import overload

import numpy as np

from beamline_ml.dynamics.band_scale import band_scale, contest_noise
from beamline_ml.dynamics.baselines import Observed
from beamline_ml.dynamics.compression import log_s_of
from beamline_ml.dynamics.contest import Contest, run_contest
from beamline_ml.dynamics.contrast import contrast_by_law, contrasts
from beamline_ml.dynamics.corrected_law import corrected_law
from beamline_ml.dynamics.correlation_fit import fit_correlations, misfit
from beamline_ml.dynamics.correlation_progress import POOLED, Progress
from beamline_ml.dynamics.ensembles import simulate_apart
from beamline_ml.dynamics.first_diffusion import ring_scatter
from beamline_ml.dynamics.model import DRIFT_PARAMETERS, DynamicsModel
from beamline_ml.dynamics.network_fit import NetworkFit, fit_network
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.pattern_fit import fit_patterns
from beamline_ml.dynamics.pattern_law import PatternFit
from beamline_ml.dynamics.pattern_stream import go_on
from beamline_ml.dynamics.patterns import PatternObservations
from beamline_ml.dynamics.phase_fit import PhaseFit, fit_phase_patterns
from beamline_ml.dynamics.phase_patterns import PhaseObservations
from beamline_ml.dynamics.result import DynamicsFit
from beamline_ml.dynamics.rigid_motion import RigidFit, RigidObservations, fit_rigid
from beamline_ml.dynamics.shown_noise import speckle_counts, with_shown_noise
from beamline_ml.dynamics.surrogates import Scene, make_scene
from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array

DEFAULT_BUDGET_S = 40.0
SHARE_FOR_LAST_LOOK = 0.8
"""Part of the budget that the stages may use; the rest evaluates the answer on the whole run."""
LAST_LOOK_MEMBERS = 8
FIRST_ORIGIN = 0.5
"""Forecasters are judged from origins that leave at least this part of the run to learn from."""


@overload
def fit(
    observations: CorrelationObservations,
    model: DynamicsModel | None = None,
    state: DynamicsFit | None = None,
    time_budget_s: float | None = None,
    seed: int = 0,
) -> DynamicsFit: ...


@overload
def fit(
    observations: PatternObservations,
    model: DynamicsModel | None = None,
    state: PatternFit | NetworkFit | None = None,
    time_budget_s: float | None = None,
    seed: int = 0,
) -> PatternFit | NetworkFit: ...


@overload
def fit(
    observations: PhaseObservations,
    model: DynamicsModel | None = None,
    state: None = None,
    time_budget_s: float | None = None,
    seed: int = 0,
) -> PhaseFit: ...


@overload
def fit(
    observations: RigidObservations,
    model: DynamicsModel | None = None,
    state: None = None,
    time_budget_s: float | None = None,
    seed: int = 0,
) -> RigidFit: ...


def fit(
    observations: CorrelationObservations | PatternObservations | PhaseObservations | RigidObservations,
    model: DynamicsModel | None = None,
    state: DynamicsFit | PatternFit | NetworkFit | None = None,
    time_budget_s: float | None = None,
    seed: int = 0,
) -> DynamicsFit | PatternFit | NetworkFit | PhaseFit | RigidFit:
    """Find the force (and the diffusion coefficient) that explain a run; for correlations, let forecasts compete on it.

    Parameters
    ----------
    observations
        Correlations of a run, or whole patterns from a known start (the latter give a ``PatternFit``, or a
        ``NetworkFit`` where the model wants a network on every edge, or a ``PhaseFit`` where particles carry phases, or
        a ``RigidFit`` where a known object moves as a whole; that needs no model).
    state
        An earlier fit of the same sample (fewer frames): where to start from. For patterns only the frames that are new
        are looked at, at a cost that does not depend on how many came before; a network goes on from its weights, on
        all frames.
    time_budget_s
        Wall-clock time that may be used; stages that would not fit are left out and named in ``warnings``.

    Raises
    ------
    FitRefused
        When the data hold too little, or no finite motion explains them.
    """
    model = model or DynamicsModel()
    budget = DEFAULT_BUDGET_S if time_budget_s is None else time_budget_s
    began = time.monotonic()
    if isinstance(observations, PhaseObservations | RigidObservations):
        if state is not None:
            raise FitRefused("Fits of phases and rigid objects do not go on from an earlier one.", "Leave state out.")
        _refuse_terms(model.terms, "Phases and rigid objects have laws of their own", "Leave it out.")
        if isinstance(observations, RigidObservations):
            return fit_rigid(observations, budget, seed)
        return fit_phase_patterns(observations, model, budget, seed)
    if isinstance(observations, PatternObservations):
        return _of_patterns(observations, model, state, budget, seed)
    if len(observations.times_s) < 6:
        raise FitRefused(
            f"{len(observations.times_s)} time blocks are too few to fit dynamics.",
            "Record more frames, or use finer blocks.",
        )
    if model.messages != "spline":
        raise FitRefused(f"Correlations are fitted through a spline, not a {model.messages}.", "Leave messages out.")
    unseen = tuple(name for name in model.terms if name != "known_force")
    _refuse_terms(unseen, "C2 averaged over azimuth shows no drift and no direction", "Fit patterns instead.")
    if isinstance(state, PatternFit | NetworkFit):
        raise FitRefused("A fit of patterns cannot go on with correlations.", "Give an earlier fit of correlations.")
    observations = with_shown_noise(observations)
    scene = make_scene(observations, model)
    progress = fit_correlations(observations, model, scene, began + SHARE_FOR_LAST_LOOK * budget, seed, state)
    return _assembled(observations, model, scene, progress, seed)


def _of_patterns(
    observations: PatternObservations,
    model: DynamicsModel,
    state: DynamicsFit | PatternFit | NetworkFit | None,
    budget_s: float,
    seed: int,
) -> PatternFit | NetworkFit:
    wanted = PatternFit if model.messages == "spline" else NetworkFit
    if state is not None and not isinstance(state, wanted):
        raise FitRefused(
            f"A {type(state).__name__} cannot go on as a {wanted.__name__}.", f"Give an earlier {wanted.__name__}."
        )
    if isinstance(state, PatternFit):
        _refuse_other_law(model, state)
        return go_on(state, observations)
    if model.messages == "spline":
        return fit_patterns(observations, model, budget_s, seed)
    return fit_network(observations, model, budget_s, seed, state if isinstance(state, NetworkFit) else None)


def _refuse_terms(names: tuple[str, ...], why: str, remedy: str) -> None:
    if names:
        raise FitRefused(f"{why}: they cannot be fitted with {', '.join(names)}.", remedy)


def _refuse_other_law(model: DynamicsModel, state: PatternFit) -> None:
    """New frames change a law's numbers, not its terms; a model that asks for none takes what the fit has."""
    wanted = 2 * model.angular_harmonics, DRIFT_PARAMETERS[model.drift]
    if wanted != (0, 0) and wanted != (len(state.angular_coefficients), state.n_drift):
        raise FitRefused(
            f"The fit to go on from has {len(state.angular_coefficients) // 2} angular harmonics and "
            f"{state.n_drift} numbers of a drift; the model asks for others.",
            "Fit the run from its beginning, or leave drift and angular_harmonics out.",
        )


def _assembled(
    observations: CorrelationObservations, model: DynamicsModel, scene: Scene, progress: Progress, seed: int
) -> DynamicsFit:
    ages = observations.by_age or observations
    members, log_s = _last_look(ages, observations.stationary, model, scene, progress, seed)
    contrast, contrast_err = contrast_by_law(ages, members, np.random.default_rng(seed))
    f2 = members.mean(axis=0)
    contest = _contest(ages, f2, log_s, progress, observations.stationary)
    origins = [] if observations.stationary else _origins(progress, len(ages.times_s))
    answer = progress.answer
    belief = answer.belief
    scale = np.append(np.full(model.n_coefficients, scene.velocity_scale_um_per_s), 1.0)
    # Where the misfit exceeds the noise, the errors grow with it.
    covariance = (belief.covariance * max(1.0, belief.chi2) + answer.surrogate_noise) * np.outer(scale, scale)
    covariance[-1, -1] += ring_scatter(observations) ** 2
    measured_log_s = np.log(ages.structure_factor)
    offset = (measured_log_s - log_s).mean(axis=1, keepdims=True)
    result = DynamicsFit(
        mode=_mode(observations, scene),
        coefficients=belief.mean[:-1] * scene.velocity_scale_um_per_s,
        covariance=covariance,
        cutoff_um=scene.cutoff_um,
        log_d=float(belief.mean[-1]),
        number_density_per_um2=scene.number_density_per_um2,
        box_um=scene.box_um,
        n_boxes=scene.n_boxes,
        n_per_box=scene.n_per_box,
        steps_per_time=scene.steps_per_time,
        n_forecast_members=model.n_forecast_members,
        n_threads=model.n_threads,
        seed=seed,
        chi2=misfit(observations, scene, belief.mean, progress.n_times, seed + 11, n_threads=model.n_threads),
        stationary=observations.stationary,
        used_until_s=float(observations.times_s[progress.n_times - 1]),
        edges_inv_um=scene.edges_inv_um,
        q_inv_um=observations.q_inv_um,
        times_s=ages.times_s,
        c2=ages.c2,
        c2_err=ages.c2_err,
        structure_factor=ages.structure_factor,
        n_speckles=speckle_counts(ages),
        contrast=contrast,
        contrast_err=contrast_err,
        model_c2=1.0 + contrast[:, None, None] * f2,
        model_s=np.exp(log_s + offset),
        contest=contest.scores,
        contest_s=contest.s_scores,
        contest_margin=0.0 if observations.stationary else contest.margin,  # there its score is not blind
        corrected_margin=contest.corrected_margin,
        contest_noise=contest_noise(ages, f2, {n: progress.blind[n].shape[1] for n in origins}),
        band_scale=band_scale(ages, progress, origins),
        absolute=bool(observations.absolute),
        begin_s=ages.begin_s,
        start_structure_factor=scene.start_structure_factor,
        waiting_s=scene.waiting_s,
    )
    _refuse_nan(result)
    return replace(result, warnings=_warnings(observations, result, progress))


def _last_look(
    ages: CorrelationObservations,
    stationary: bool,
    model: DynamicsModel,
    scene: Scene,
    progress: Progress,
    seed: int,
) -> tuple[Float64Array, Float64Array]:
    """f^2 of a few members at the answer on the whole age grid, and the mean of their log S."""
    rng = np.random.default_rng(seed + 7)
    ensemble = progress.answer.belief.draw(LAST_LOOK_MEMBERS, 1.0, rng)
    if not model.interacting:
        ensemble[:, :-1] = 0.0
    times = ages.times_s - ages.times_s[0] if stationary else ages.times_s
    moved = simulate_apart(scene, times, ensemble, seed + 7, model.n_threads)
    seen = moved.averaged_over_ages() if stationary else moved
    return seen.f2, seen.log_s.mean(axis=0)


def _contest(
    ages: CorrelationObservations, f2: Float64Array, log_s: Float64Array, progress: Progress, stationary: bool
) -> Contest:
    contrast = contrasts(ages)[0][:, None, None]
    n_times = len(ages.times_s)
    if not stationary and progress.n_times < n_times:
        progress.blind[progress.n_times], progress.blind_log_s[progress.n_times] = f2, log_s
    blind = {n: _blind(ages, progress, n) for n in _origins(progress, n_times)}
    corrected = {} if stationary else {n: _corrected(ages, progress.blind[n], n) for n in blind}
    if stationary:
        # One lag-dependent law for the whole run: every part of it is predicted by the same curve.
        blind = {round(part * n_times): (f2, log_s) for part in (FIRST_ORIGIN, 0.7)}
    measured = Observed((ages.c2 - 1.0) / contrast, ages.c2_err / contrast, ages.times_s, ages.q_inv_um)
    return run_contest(measured, log_s_of(ages), blind, corrected)


def _origins(progress: Progress, n_times: int) -> list[int]:
    """From where forecasts of this run are judged, in blocks seen."""
    return [n for n in progress.blind if n >= FIRST_ORIGIN * n_times] or list(progress.blind)


def _blind(ages: CorrelationObservations, progress: Progress, n_seen: int) -> tuple[Float64Array, Float64Array]:
    """The forecast that the fit would have given after ``n_seen`` blocks: F and log S up to the next horizon."""
    f2, log_s = progress.blind[n_seen], progress.blind_log_s[n_seen]
    shift = (log_s_of(ages)[:, :n_seen] - log_s[:, :n_seen]).mean(axis=1, keepdims=True)
    more = progress.carry_over(ages, n_seen)
    contrast = contrasts(ages)[0][:, None, None]
    return f2 + more.c2 / contrast, log_s + shift


def _corrected(ages: CorrelationObservations, f2: Float64Array, n_seen: int) -> Float64Array:
    """The forecast that the law would have given after ``n_seen`` blocks, corrected by what it missed of these."""
    return corrected_law(ages, n_seen, f2, ages.times_s[: f2.shape[1]])


def _mode(observations: CorrelationObservations, scene: Scene) -> str:
    kind = (
        "a stationary sample, folded onto lags" if observations.stationary else "an evolving sample, in blocks of age"
    )
    density = (
        "density known" if observations.number_density_per_um2 is not None else "density unknown: force times density"
    )
    scale = "S(q, t) absolute" if observations.absolute else "S(q, t) relative"
    start = "started with S(q) as it was first seen" if len(scene.start_structure_factor) else "started without order"
    start += f" {scene.waiting_s:.4g} s earlier" if scene.waiting_s > 0.0 else ""
    return f"correlations of {kind}; {density}; {scale}; {start}"


def _warnings(observations: CorrelationObservations, result: DynamicsFit, progress: Progress) -> tuple[str, ...]:
    said = list(observations.warnings)
    if progress.skipped:
        said.append(f"The time budget left out: {'; '.join(progress.skipped)}.")
    if progress.n_times == len(observations.times_s) and progress.still_falls:
        tried = ", ".join(f"{each.misfit:.2f}" for each in progress.answers[-POOLED:])
        said.append(
            f"The answer has not settled: the last stages came to chi-squared {tried}. "
            "Give the fit more time, or this answer as the state of another fit."
        )
    if observations.stationary:
        said.append("The sample is stationary: the neural ODE's score in the contest is not blind, the others' are.")
    if not result.describes_data:
        said.append(
            f"The model does not describe the data: {'; '.join(result.doubts)}. "
            "Its forecast is published only where no curve was better in the contest, or corrected by what it missed."
        )
    return tuple(said)


def _refuse_nan(result: DynamicsFit) -> None:
    numbers = (
        result.coefficients,
        result.covariance,
        result.model_c2,
        result.model_s,
        np.array([result.log_d, result.chi2]),
    )
    if not all(np.isfinite(part).all() for part in numbers):
        raise FitRefused("The fit did not stay finite.", "Check for frames without counts, or shorten the frame range.")
