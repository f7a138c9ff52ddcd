"""Fit of force and diffusion to C2 and S(q, t): Gauss-Newton with a growing horizon.

While the horizon is short, one set of surrogates with exact tangents (``flow``) finds the neighbourhood of the answer.
Then ensembles take over (``statistical_gauss_newton``), because single trajectories become chaotic. The ensemble drawn
before the horizon grows has seen nothing of the blocks it is compared with next: its misses there are an honest
rolling-origin score, free of charge.

Once the horizon is the whole run, stages follow each other while answers get better. An ensemble's slopes carry the
noise of its members; the last few ensembles, all of which explored the neighbourhood of the answer, are therefore
regressed together. A regression foretells a misfit, which a force with a steep core may not keep: each answer is tried
on surrogates of its own, always the same, and the one that fits best is kept.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from beamline_ml.dynamics.compression import Compressed, compress
from beamline_ml.dynamics.correlation_progress import POOLED, Answer, Progress
from beamline_ml.dynamics.ensembles import jackknife, pooled, simulate_all, simulate_apart, without_each
from beamline_ml.dynamics.first_diffusion import first_diffusion
from beamline_ml.dynamics.flow import move_with_tangents
from beamline_ml.dynamics.model import DynamicsModel
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.result import DynamicsFit
from beamline_ml.dynamics.shells import shell_values, slope_of_squared, squared
from beamline_ml.dynamics.shown_noise import speckle_counts
from beamline_ml.dynamics.spline import fit_spline
from beamline_ml.dynamics.statistical_gauss_newton import (
    OF_NOISY_SLOPES,
    RING_BENDS,
    Belief,
    belief_from,
    prior_precision,
    regress,
)
from beamline_ml.dynamics.surrogates import Scene
from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array, IntArray

FIRST_HORIZON = 0.35
TANGENT_STEPS = 3
FIRST_SMOOTHNESS = 10.0
HORIZONS = (0.5, 0.7, 1.0, 1.0)
SPREAD = (1.5, 1.5, 1.5, 1.0)
"""How much wider than the belief each ensemble is drawn: a longer lever for the regression."""
MOST_MORE_STAGES = 8
"""After those, while answers get better."""
TRIED_ON = 8
"""Sets of surrogates."""
SMALLEST_LOG_D_SPREAD = 0.1
WIDER = 4.0
"""How many times wider than the ensemble before one may be drawn in any direction."""
TRUST = 1.0


def fit_correlations(
    observations: CorrelationObservations,
    model: DynamicsModel,
    scene: Scene,
    deadline: float,
    seed: int,
    state: DynamicsFit | None = None,
) -> Progress:
    """Run all stages that the deadline allows, from an earlier fit's answer where there is one."""
    n_times = len(observations.times_s)
    first = min(n_times, max(4, round(FIRST_HORIZON * n_times)))
    if state is not None:
        progress = Progress(_belief_of(state, scene), first)
    else:
        progress = _tangent_stage(observations, model, scene, first, deadline, seed)
    cost_per_block_s = 0.0
    for stage, (part, spread) in enumerate(_stages()):
        is_more = stage >= len(HORIZONS)
        if is_more and (progress.settled or progress.n_times < n_times):
            break
        horizon = n_times if observations.stationary else min(n_times, max(first, round(part * n_times)))
        began = time.monotonic()
        # A stage on the way to the whole run is taken only where the whole run will still fit.
        blocks = horizon if horizon == n_times else horizon + n_times
        if began + cost_per_block_s * blocks > deadline or began > deadline:
            if is_more:
                break
            progress.skipped.append(f"stage {stage + 1} of {len(HORIZONS)} ({horizon} of {n_times} blocks)")
            continue
        _ensemble_stage(progress, observations, model, scene, horizon, spread, seed + 101 * (stage + 1))
        cost_per_block_s = (time.monotonic() - began) / horizon
    return progress


def _stages() -> list[tuple[float, float]]:
    """Part of the run and spread of each stage."""
    return [*zip(HORIZONS, SPREAD, strict=True), *[(1.0, 1.0)] * MOST_MORE_STAGES]


def _belief_of(state: DynamicsFit, scene: Scene) -> Belief:
    """An earlier answer in this scene's units, twice as uncertain as it was: the data behind it come again."""
    n = len(state.coefficients)
    coefficients = fit_spline(lambda r: state.kernel(r)[0], n, scene.cutoff_um)
    scale = np.append(np.full(n, 1.0 / scene.velocity_scale_um_per_s), 1.0)
    covariance = 4.0 * state.covariance * np.outer(scale, scale)
    return Belief(np.append(coefficients * scale[0], state.log_d), covariance, 10.0, state.chi2)


def _tangent_stage(
    observations: CorrelationObservations, model: DynamicsModel, scene: Scene, horizon: int, deadline: float, seed: int
) -> Progress:
    """A few Gauss-Newton steps with exact tangents on one set of surrogates, from no force at all."""
    rng = np.random.default_rng(seed)
    target = compress(observations, horizon, rng)
    particles, shells = scene.surrogates(observations.times_s[:horizon], rng)
    n_modes = shells.modes(scene.n_boxes)
    # One set of surrogates has far fewer modes than the data have speckles, and its noise is the larger one.
    weight = 1.0 / (1.0 + float(np.median(speckle_counts(observations) / n_modes)))
    prior_mean = _known(model, scene, float(np.log(first_diffusion(observations))))
    prior = np.asarray(np.linalg.inv(prior_precision(model.n_coefficients, FIRST_SMOOTHNESS)), np.float64)
    belief = Belief(prior_mean, prior, FIRST_SMOOTHNESS, 1.0)
    for _ in range(TANGENT_STEPS):
        if time.monotonic() > deadline:
            break
        coefficients = scene.velocity_scale_um_per_s * belief.mean[:-1]
        x, tangents = move_with_tangents(particles, coefficients, scene.cutoff_um, float(np.exp(belief.mean[-1])))
        tangents[..., :-1] *= scene.velocity_scale_um_per_s
        if not (np.isfinite(x).all() and np.isfinite(tangents).all()):
            raise FitRefused("The surrogate particles' motion is not finite.", "Raise steps_per_time.")
        values = shell_values(x, scene.n_boxes, shells, tangents)
        slope = _slopes(target, values.f, values.d_f, values.d_log_s, n_modes)
        difference = target.differences(squared(values.f, n_modes), values.log_s)
        if not model.interacting:
            slope[:, :-1] = 0.0
        belief = _limited(
            belief,
            belief_from(
                weight * slope.T @ slope,
                -weight * slope.T @ difference,
                belief.mean,
                prior_mean,
                belief.smoothness,
                float((difference**2).mean()),
            ),
        )
    return Progress(belief, horizon)


def _known(model: DynamicsModel, scene: Scene, log_d: float) -> Float64Array:
    """(n_coefficients + 1,) mean of the prior: what is known of the force, and log D."""
    return np.append(model.known_coefficients(scene.cutoff_um) / scene.velocity_scale_um_per_s, log_d)


def _slopes(
    target: Compressed,
    f: Float64Array,
    d_f: Float64Array | None,
    d_log_s: Float64Array | None,
    n_modes: Float64Array,
) -> Float64Array:
    if d_f is None or d_log_s is None:
        raise FitRefused("Observables came without derivatives.", "Pass tangents to shell_values.")
    d_f2 = slope_of_squared(f, n_modes)[..., None] * d_f
    return target.derivatives(d_f2, d_log_s)


def _limited(old: Belief, new: Belief) -> Belief:
    """The new belief, its mean not further from the old than v0 in any coefficient and a factor e in D."""
    step = new.mean - old.mean
    scale = min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-30))
    return Belief(old.mean + scale * step, new.covariance, new.smoothness, new.chi2)


def _trusted(old: Belief, new: Belief, spread: float) -> Belief:
    """The new belief, its mean within the region that the ensemble has explored."""
    step = new.mean - old.mean
    scale = min(1.0, TRUST * spread / max(_in_errors(step, old.explorable), 1e-30))
    return Belief(old.mean + scale * step, new.covariance, new.smoothness, new.chi2)


def _ensemble_stage(
    progress: Progress,
    observations: CorrelationObservations,
    model: DynamicsModel,
    scene: Scene,
    horizon: int,
    spread: float,
    seed: int,
) -> None:
    """One regression step at a horizon; records what the ensemble predicted blindly."""
    rng = np.random.default_rng(seed)
    progress.explored = explorable(progress, model)
    explored = replace(progress.belief, covariance=progress.explored)
    drawn = explored.draw(model.n_members, spread, rng)
    ensemble = simulate_all(scene, observations.times_s[:horizon], drawn, seed, model.n_threads)
    target = compress(observations, horizon, rng, expected_f2=ensemble.f2.mean(axis=0))
    if horizon > progress.n_times:
        progress.blind[progress.n_times] = ensemble.f2.mean(axis=0)
        progress.blind_log_s[progress.n_times] = ensemble.log_s.mean(axis=0)
        progress.blind_variance[progress.n_times] = ensemble.f2_variance(spread)
        progress.recent, progress.answers = [], []
    progress.recent = [*progress.recent, ensemble][-POOLED:]
    prior_mean = _known(model, scene, float(progress.belief.mean[-1]))
    together = pooled(progress.recent)
    seen = together.parameters, together.differences(target), together.group
    answer = _answer(*seen, prior_mean, model.interacting)
    progress.belief, progress.n_times = _trusted(explored, answer, spread), horizon
    noise = _surrogate_noise(*seen, prior_mean, model.interacting)
    is_whole = horizon == len(observations.times_s)
    mean = progress.belief.mean
    tried = misfit(observations, scene, mean, horizon, n_threads=model.n_threads) if is_whole else np.inf
    progress.answers.append(Answer(progress.belief, noise, tried))
    if progress.answers[-1].is_astray(progress.best_of_all):
        progress.belief = progress.best_of_all.belief


def misfit(
    observations: CorrelationObservations,
    scene: Scene,
    parameters: Float64Array,
    n_times: int,
    seed: int = 0,
    n_sets: int = TRIED_ON,
    n_threads: int = 1,
) -> float:
    """Reduced chi-squared of a law (n_parameters,) over the first blocks, on ``n_sets`` of surrogates of its own."""
    moved = simulate_apart(scene, observations.times_s[:n_times], np.tile(parameters, (n_sets, 1)), seed, n_threads)
    return moved.misfit(compress(observations, n_times, np.random.default_rng(seed), expected_f2=moved.f2.mean(axis=0)))


def _answer(
    parameters: Float64Array,
    differences: Float64Array,
    group: IntArray,
    prior_mean: Float64Array,
    interacting: bool,
) -> Belief:
    """What the data say of the parameters, by the slopes of an ensemble."""
    n_parameters = parameters.shape[1]
    varied = slice(None) if interacting else slice(-1, None)
    information, pull = np.zeros((n_parameters, n_parameters)), np.zeros(n_parameters)
    information[varied, varied], pull[varied], _, chi2 = regress(parameters[:, varied], differences, group)
    return belief_from(
        information,
        pull,
        parameters.mean(axis=0),
        prior_mean,
        FIRST_SMOOTHNESS,
        chi2,
        RING_BENDS,
        evidence_counts=OF_NOISY_SLOPES,
    )


def _surrogate_noise(
    parameters: Float64Array,
    differences: Float64Array,
    group: IntArray,
    prior_mean: Float64Array,
    interacting: bool,
) -> Float64Array:
    """Covariance of the answer, had the surrogates been others."""
    parts = [(parameters[kept], differences[kept], numbers) for kept, numbers in without_each(group)]
    return jackknife(np.stack([_answer(*part, prior_mean, interacting).mean for part in parts]))


def _in_errors(step: Float64Array, covariance: Float64Array) -> float:
    """Root mean square of a step in standard deviations."""
    return float(np.sqrt(step @ np.linalg.pinv(covariance, hermitian=True) @ step / len(step)))


def explorable(progress: Progress, model: DynamicsModel) -> Float64Array:
    """Covariance to draw an ensemble with: not much wider than the one before, nor so narrow in D that none is seen.

    Where an ensemble's noise hides a direction that the one before had known, the data know it all the same.
    """
    covariance = progress.belief.covariance.copy()
    if progress.explored is not None:
        before = WIDER**2 * progress.explored
        covariance = covariance @ np.linalg.pinv(covariance + before, hermitian=True) @ before
        covariance = 0.5 * (covariance + covariance.T)
    covariance[-1, -1] = max(covariance[-1, -1], SMALLEST_LOG_D_SPREAD**2)
    if not model.interacting:
        covariance[:-1] = 0.0
        covariance[:, :-1] = 0.0
    return covariance
