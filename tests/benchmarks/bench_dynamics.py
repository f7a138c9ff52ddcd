"""Figures of the dynamics room: force from patterns, force and forecast from correlations, against simple forecasts."""

from __future__ import annotations

import platform
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from beamline_ml.correlation import QMap, fit_relaxation, g2_from_two_time, two_time
from beamline_ml.dynamics import (
    CorrelationObservations,
    DynamicsFit,
    DynamicsModel,
    PatternObservations,
    PatternScattering,
    fit,
    forecast,
)
from beamline_ml.dynamics.baselines import BASELINES, Observed
from beamline_ml.dynamics.flow import Surrogates, move
from beamline_ml.dynamics.systems.self_organising import SelfOrganising
from beamline_ml.simulation import Movie, simulate_movie

NO_LIMIT_S = 3600.0
FRAMES_PER_POINT = 5
"""Truth is averaged over as many frames as the observations average."""


def row(name: str, value: float, unit: str, reference: str | None = None, at: float | None = None) -> dict[str, Any]:
    """One line of ``benchmarks.json``."""
    return {
        "name": name,
        "value": float(value),
        "unit": unit,
        "reference": reference,
        "reference_value": None if at is None else float(at),
        "ratio": None if not at else float(value / at),
        "machine": f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def rows() -> list[dict[str, Any]]:
    """All figures, on one thread for the linear algebra."""
    torch.set_num_threads(1)
    return [*pattern_rows(), *correlation_rows()]


def _disc(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    radius, angle = 2.5 * np.sqrt(rng.uniform(0, 1, n)), rng.uniform(0, 2 * np.pi, n)
    return radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])


def _patterns(optics: PatternScattering, start: np.ndarray, until: float) -> np.ndarray:
    """True intensities every 0.1 time units, integrated at half that step."""
    system = SelfOrganising()
    grid = np.arange(0.0, until + 0.01, 0.05)
    particles = Surrogates(start, 1, 0.0, grid, np.arange(0, len(grid), 2), np.zeros((len(grid), 1, 1)))
    return np.stack([optics.intensity(x) for x in move(particles, system.spline(), system.cutoff_um, 0.0, "rk4")])


def pattern_rows() -> list[dict[str, Any]]:
    """The seed system: 500 particles, 50 frames, 100 photons in the brightest pixel, start known, force unknown."""
    optics = PatternScattering(64, 0.75, probe_um=2.0)
    start = _disc(500, 0)
    truth = _patterns(optics, start, 20.0)
    counts = np.random.default_rng(0).poisson(100.0 * truth[:50] / truth[:50].max())
    began = time.process_time()
    model = DynamicsModel(n_coefficients=24, cutoff_um=0.9)
    found = fit(PatternObservations(counts, 0.1 * np.arange(50), optics, start), model, time_budget_s=NO_LIMIT_S)
    spent = time.process_time() - began
    r = np.linspace(0.1, 0.75, 60)
    force, sd = found.kernel(r)
    true = SelfOrganising().radial_force(r)
    error = np.sqrt(((force - true) ** 2 * r).sum() / (true**2 * r).sum())
    used = optics.used
    ahead = found.patterns(0.1 * np.arange(201))
    corr = [np.corrcoef(ahead[k][used], truth[k][used])[0, 1] for k in range(50, 201, 10)]
    still = [np.corrcoef(truth[49][used], truth[k][used])[0, 1] for k in range(50, 201, 10)]
    other = _disc(500, 1)
    fresh_truth = _patterns(optics, other, 50.0)[-1]
    fresh = found.patterns(0.1 * np.arange(501), other)[-1]
    fresh_corr = np.corrcoef(fresh[used], fresh_truth[used])[0, 1]
    return [
        row("pattern_kernel_error", error, "relative", "goal", 0.10),
        row("pattern_corr_4T_min", min(corr), "correlation", "persistence", min(still)),
        row("pattern_fit_cpu_s", spent, "s", "goal", 30.0),
        row("pattern_coverage_2sigma", float((np.abs(force - true) < 2 * sd).mean()), "share"),
        row("fresh_start_corr_10T_min", fresh_corr, "correlation", "published recipe", 0.907),
    ]


def _observed(movie: Movie) -> tuple[QMap, CorrelationObservations]:
    qmap = QMap.from_geometry(movie.geometry, movie.counts.shape[1:], n_q=8)
    counts = two_time(movie.counts[: movie.n_observed], qmap, frame_period_s=movie.frame_period_s)
    fits = fit_relaxation(g2_from_two_time(counts), counts)
    return qmap, CorrelationObservations.from_two_time(counts, fits, movie.sample["number_density_per_um2"])


def _truth(movie: Movie, qmap: QMap, times_s: np.ndarray) -> np.ndarray:
    """Noise-free C2 of the same trajectory around the given times, also after the run."""
    ideal = two_time(movie.intensity, qmap, frame_period_s=movie.frame_period_s)
    middle = np.rint(times_s / movie.frame_period_s).astype(int)
    near = np.abs(np.arange(len(movie.counts))[None] - middle[:, None]) <= FRAMES_PER_POINT // 2
    weight = near / near.sum(axis=1, keepdims=True)
    above = np.einsum("at,qts,bs->qab", weight, ideal.numerator.astype(float), weight, optimize=True)
    sums = ideal.frame_sum @ weight.T
    return above * ideal.n_pixels[:, None, None] / (sums[:, :, None] * sums[:, None, :])


def _rmse(c2: np.ndarray, truth: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> float:
    return float(np.sqrt(((c2 - truth)[:, pairs[0], pairs[1]] ** 2).mean()))


def correlation_rows() -> list[dict[str, Any]]:
    """The demo's movie: fit the first four seconds, forecast to eight, compare with what the simulation knows."""
    movie = simulate_movie(seed=0)
    qmap, observations = _observed(movie)
    began = time.process_time()
    found = fit(observations, time_budget_s=NO_LIMIT_S)
    spent = time.process_time() - began
    ahead = forecast(found, 2.0 * movie.n_observed * movie.frame_period_s)
    truth = _truth(movie, qmap, ahead.times_s)
    n = len(found.times_s)
    first, second = np.triu_indices(len(ahead.times_s), k=1)
    future, cross = first >= n, (first < n) & (second >= n)
    inside = (ahead.lower <= truth) & (truth <= ahead.upper)
    rivals = _rivals(found, ahead.times_s)
    out = []
    for name, block in (("future", future), ("cross", cross)):
        pairs = first[block], second[block]
        best = min(rivals, key=lambda rival: _rmse(rivals[rival], truth, pairs))
        mine, theirs = _rmse(ahead.c2, truth, pairs), _rmse(rivals[best], truth, pairs)
        out.append(row(f"c2_{name}_ratio_2T", mine, "RMSE", f"best baseline: {best}", theirs))
    later = first[second >= n], second[second >= n]
    true_d = movie.truth["diffusion_um2_per_s"]
    return [
        *out,
        row("coverage_2sigma", float(inside[:, later[0], later[1]].mean()), "share"),
        row("diffusion_error", abs(found.diffusion_um2_per_s / true_d - 1.0), "relative", "goal", 0.20),
        row("c2_fit_cpu_s", spent, "s"),
    ]


def _rivals(found: DynamicsFit, times_s: np.ndarray) -> dict[str, np.ndarray]:
    contrast = found.contrast[:, None, None]
    seen = Observed((found.c2 - 1.0) / contrast, found.c2_err / contrast, found.times_s, found.q_inv_um)
    return {name: 1.0 + contrast * baseline(seen, times_s) for name, baseline in BASELINES.items()}
