"""Force and forecast from C2 and S(q, t) alone, against what the law itself does: seeds 0 to 3, in dim light 0 to 7.

The sample is 12 boxes of 2,000 particles; C2 is that of its intensities, the truth is the field correlation |f|^2 of
the same sample, which no detector sees. Times and lengths are the published system's (its time unit as a second, its
length unit as a micrometre).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from beamline_ml.dynamics import CorrelationObservations, DynamicsModel, fit, forecast
from beamline_ml.dynamics.baselines import BASELINES, Observed
from beamline_ml.dynamics.brownian import brownian_motion
from beamline_ml.dynamics.correlation_fit import misfit
from beamline_ml.dynamics.shown_noise import with_shown_noise
from beamline_ml.dynamics.surrogates import make_scene
from beamline_ml.dynamics.systems.self_organising import SelfOrganising
from beamline_ml.simulation import RingSample, scatter_into_rings
from tests.benchmarks.bench_dynamics import NO_LIMIT_S, kernel_error
from tests.benchmarks.rows import Row, row

SEEDS = (0, 1, 2, 3)
DIM_SEEDS = tuple(range(8))
"""Where photons are few, more depends on which: four samples had been too few to call dim light met."""
N_BOXES, PER_BOX = 12, 2000
STEP_S, EVERY = 0.0125, 40
"""Four times longer steps heat what a cluster holds together: log S at 10 / um is 0.1 to 0.15 lower, by hand."""
EDGES = np.column_stack([np.linspace(1.5, 10.1, 8), np.linspace(1.5, 10.1, 8) + 1.0])
BRIGHT = 1e6
"""Photons in a speckle of S(q) = 1 and a frame: counting adds nothing that shows."""
DIM = 0.1
C2_ERR = 0.003
CONTRAST_ERR = 0.01
"""By so much, of itself, the contrast that is handed over is off, and is said to be: as from a static reference."""
N_SETS = 16
"""Of surrogates, to see how the true law fares among them."""
DIFFUSION = 0.003
FARTHEST_SEEN_UM = 0.6
"""The fit's own cutoff, which it chooses by the density, is a little beyond."""
UNSAID = (("bare", BRIGHT), ("bare_dim", DIM))
"""Cases of which nothing is said but what must be, and their photons."""


LATE = 6
"""Times that a late observation has missed: it begins after three seconds, with S up to 3."""


@cache
def sample(system: SelfOrganising, n_times: int, seed: int, photons: float, n_missed: int = 0) -> RingSample:
    """Let the boxes go and look at them every half second, after ``n_missed`` of those."""
    rng = np.random.default_rng(seed)
    box = float(np.sqrt(PER_BOX / system.number_density_per_um2))
    n_steps = EVERY * (n_missed + n_times) + 1
    law = system.spline(96), system.cutoff_um, system.diffusion_um2_per_s
    x_um = np.empty((n_times, N_BOXES, PER_BOX, 2))
    for b in range(N_BOXES):
        motion = brownian_motion(rng.uniform(0, box, (PER_BOX, 2)), box, *law, STEP_S, n_steps, rng)
        for step, x in enumerate(motion):
            k = step // EVERY - 1 - n_missed
            if step % EVERY == 0 and k >= 0:
                x_um[k, b] = x
    times = STEP_S * EVERY * np.arange(1, n_times + 1)
    return scatter_into_rings(x_um, box, times, EDGES, photons, rng)


def observed(seen: RingSample, n: int, seed: int) -> CorrelationObservations:
    """The first ``n`` times as a run would hand them over."""
    rings = np.ones(len(seen.q_inv_um))
    contrast = rings + CONTRAST_ERR * np.random.default_rng(100 + seed).standard_normal(len(rings))
    err = np.hypot(C2_ERR, seen.c2_err[:, :n, :n])
    return replace(seen.observations(n), c2_err=err, contrast=contrast, contrast_err=CONTRAST_ERR * rings)


def bare(seen: RingSample, n: int, seed: int) -> CorrelationObservations:
    """The same with what must be given and nothing else: neither contrast nor speckles nor how well S was counted."""
    full = observed(seen, n, seed)
    return CorrelationObservations(
        full.c2, full.c2_err, full.structure_factor, full.q_inv_um, full.times_s, full.number_density_per_um2
    )


def judged(
    system: SelfOrganising,
    n: int,
    factor: int,
    seed: int,
    photons: float = BRIGHT,
    n_missed: int = 0,
    handed_over: Callable[[RingSample, int, int], CorrelationObservations] = observed,
) -> dict[str, float]:
    """RMSE of F in the future and cross block, of the forecast and of the best baseline; coverage; D; seconds.

    The true contrast is 1, and C2 - 1 is judged: what is wrongly known of the contrast is part of the forecast.
    """
    seen = sample(system, factor * n, seed, photons, n_missed)
    began = time.process_time()
    found = fit(handed_over(seen, n, seed), DynamicsModel(n_threads=1), time_budget_s=NO_LIMIT_S, seed=seed)
    ahead = forecast(found, float(seen.times_s[-1]))
    out = {"cpu_s": time.process_time() - began, "chi2": found.chi2, "ode": float(ahead.method == "neural_ode")}
    first, second = np.triu_indices(len(ahead.times_s), k=1)
    blocks = {"future": first >= n, "cross": (first < n) & (second >= n)}
    err = np.hypot(C2_ERR, seen.c2_err[:, :n, :n])
    measured = Observed(seen.c2[:, :n, :n] - 1.0, err, seen.times_s[:n], seen.q_inv_um)
    rivals = {name: law(measured, ahead.times_s) for name, law in BASELINES.items()}
    for name, block in blocks.items():
        at = first[block], second[block]
        errors = {rival: _rmse(f, seen.f2, at) for rival, f in rivals.items()}
        out[name], out[f"{name}_best"] = _rmse(ahead.c2 - 1.0, seen.f2, at), min(errors.values())
    later = second >= n
    inside = (ahead.lower <= 1.0 + seen.f2) & (1.0 + seen.f2 <= ahead.upper)
    out["coverage"] = float(inside[:, first[later], second[later]].mean())
    out["d_error"] = abs(found.diffusion_um2_per_s / max(system.diffusion_um2_per_s, 1e-9) - 1.0)
    out["d_pull"] = (found.diffusion_um2_per_s - system.diffusion_um2_per_s) / found.diffusion_um2_per_s_err
    out["kernel_error"], out["kernel_coverage"] = kernel_error(found, FARTHEST_SEEN_UM)
    return out


def truth_chi2(system: SelfOrganising, seed: int, photons: float = BRIGHT) -> float:
    """Reduced chi-squared of the true law among a fit's own surrogates: what these add to the misfit of any law."""
    seen = with_shown_noise(observed(sample(system, 40, seed, photons), 20, seed))
    scene = replace(make_scene(seen, DynamicsModel()), cutoff_um=system.cutoff_um)
    true = np.append(system.spline(96) / scene.velocity_scale_um_per_s, np.log(system.diffusion_um2_per_s))
    return misfit(seen, scene, true, len(seen.times_s), n_sets=N_SETS)


def _of_truth(system: SelfOrganising) -> list[Row]:
    out = []
    for name, photons in (("", BRIGHT), ("_dim", DIM)):
        found = [truth_chi2(system, seed, photons) for seed in SEEDS]
        print(f"chi2_of_truth{name}", [float(f"{value:.3g}") for value in found], file=sys.stderr)
        out.append(row(f"surrogates_chi2_of_truth{name}", max(found), "worst seed", 1.0, "perfect"))
    return out


def _rmse(f: np.ndarray, truth: np.ndarray, at: tuple[np.ndarray, np.ndarray]) -> float:
    return float(np.sqrt(((f - truth)[:, at[0], at[1]] ** 2).mean()))


def rows() -> list[Row]:
    """Brownian truth forecast to twice the run, to four times half of it, dim, seen late, and with nothing said."""
    torch.set_num_threads(1)
    system = SelfOrganising(diffusion_um2_per_s=DIFFUSION)
    twice = [judged(system, 20, 2, seed) for seed in SEEDS]
    four = [judged(system, 10, 4, seed) for seed in SEEDS]
    dim = [judged(system, 20, 2, seed, DIM) for seed in DIM_SEEDS]
    late = [judged(system, 20, 2, seed, n_missed=LATE) for seed in SEEDS]
    little = {name: [judged(system, 20, 2, seed, photons, 0, bare) for seed in SEEDS] for name, photons in UNSAID}
    for name, cases in (("2T", twice), ("4T", four), ("dim", dim), ("late", late), *little.items()):
        for seed, case in enumerate(cases):
            print(name, seed, {key: float(f"{value:.3g}") for key, value in case.items()}, file=sys.stderr)
    return [
        *_ratios("2T", twice, 0.5, 0.8),
        *_ratios("4T", four, 0.7, 1.0),
        *_ratios("late", late, 0.5, 0.8),
        *_ratios("bare", little["bare"], 0.5, 0.8),
        *[each for name, _ in UNSAID for each in _errors(name, little[name])],
        row("diffusion_error_late", max(c["d_error"] for c in late), "relative, worst seed", 0.20, "goal, at most"),
        row("coverage_2sigma_late", min(c["coverage"] for c in late), "share, worst seed", 0.85, "goal, at least"),
        row("chi2_late", max(c["chi2"] for c in late), "worst seed"),
        *_errors("dim", dim),
        row("diffusion_error", max(case["d_error"] for case in twice), "relative, worst seed", 0.20, "goal, at most"),
        row("coverage_2sigma", min(c["coverage"] for c in twice), "share, worst seed", 0.85, "goal, at least"),
        row("coverage_2sigma_largest", max(c["coverage"] for c in twice), "share", 0.99, "goal, at most"),
        row("correlation_kernel_error", float(np.median([c["kernel_error"] for c in twice])), "relative, median"),
        row("correlation_kernel_coverage", min(c["kernel_coverage"] for c in twice), "share, worst seed", 0.85, "goal"),
        *_of_truth(system),
        row("coverage_2sigma_4T", min(c["coverage"] for c in four), "share, worst seed", 0.85, "goal, at least"),
        row("c2_large_sample_fit_cpu_s", float(np.median([case["cpu_s"] for case in twice])), "s, median"),
    ]


def _errors(name: str, cases: list[dict[str, float]]) -> list[Row]:
    """What dim light is judged by, and D and the band."""
    future, cross = (float(np.median([case[block] for case in cases])) for block in ("future", "cross"))
    d_error, coverage = max(case["d_error"] for case in cases), min(case["coverage"] for case in cases)
    return [
        row(f"c2_future_rmse_{name}", future, "F, median", 0.03, "goal in dim light, at most"),
        row(f"c2_cross_rmse_{name}", cross, "F, median", 0.06, "goal in dim light, at most"),
        row(f"diffusion_error_{name}", d_error, "relative, worst seed", 0.20, "goal, at most"),
        row(f"coverage_2sigma_{name}", coverage, "share, worst seed", 0.85, "goal, at least"),
    ]


def _ratios(factor: str, cases: list[dict[str, float]], future: float, cross: float) -> list[Row]:
    out = []
    for block, goal in (("future", future), ("cross", cross)):
        ratios = [case[block] / case[f"{block}_best"] for case in cases]
        out.append(row(f"c2_{block}_ratio_{factor}", float(np.median(ratios)), "median of seeds", goal, "goal"))
        out.append(row(f"c2_{block}_ratio_{factor}_worst", max(ratios), "worst seed", goal, "goal"))
    return out
