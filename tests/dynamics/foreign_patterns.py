"""Whole patterns of laws that a radial pair force does not contain, which a fit must admit, and of one that it does.

Sixty particles of the seed's system; each law has a strength, 0 is the seed's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.integrate import solve_ivp

from beamline_ml.dynamics import DynamicsModel, PatternFit, PatternForecast, PatternObservations, PatternScattering, fit
from beamline_ml.dynamics.pattern_baselines import PATTERN_BASELINES
from beamline_ml.dynamics.pattern_forecast import forecast_patterns
from beamline_ml.dynamics.systems.self_organising import SelfOrganising, disc_start

SYSTEM = SelfOrganising()
OPTICS = PatternScattering(64, 1.0, probe_um=2.0)
MODEL = DynamicsModel(n_coefficients=24, cutoff_um=0.9)
N, N_FRAMES = 60, 40
TIMES = 0.1 * np.arange(2 * N_FRAMES)
"""Of the run and as much again."""
CONTAINED = "pairwise"
NOISE_STEPS = 10
"""Of Heun's method between two frames, for particles that diffuse."""


@dataclass(frozen=True)
class PatternCase:
    """A run, its fit and what is published of it."""

    photons: np.ndarray
    """(2 N_FRAMES, size, size) expected; the first half was seen."""
    counts: np.ndarray
    found: PatternFit
    ahead: PatternForecast

    @property
    def over_best(self) -> float:
        """Error of what is published of later frames, over that of the simple forecast which turned out best."""
        seen = self.counts.reshape(N_FRAMES, -1), TIMES[:N_FRAMES]
        later = TIMES[N_FRAMES:]
        curves = [law(*seen).at(later).reshape(N_FRAMES, *self.photons.shape[1:]) for law in PATTERN_BASELINES.values()]
        return self._miss(self.ahead.photons[N_FRAMES:]) / min(self._miss(curve) for curve in curves)

    @property
    def coverage(self) -> float:
        """Share of true later pixels within two standard deviations."""
        off = np.abs(self.ahead.photons - self.photons)[N_FRAMES:, OPTICS.used]
        return float((off <= 2.0 * self.ahead.photons_sd[N_FRAMES:, OPTICS.used]).mean())

    def _miss(self, ahead: np.ndarray) -> float:
        return float(np.sqrt(((ahead - self.photons[N_FRAMES:]) ** 2)[:, OPTICS.used].mean()))


@cache
def judged(name: str, strength: float, brightest: float, seed: int = 0, time_budget_s: float = 20.0) -> PatternCase:
    """Fit a run with so many photons in its brightest pixel, and foretell as much again."""
    true, start = patterns(name, strength, seed)
    photons = brightest / true[:N_FRAMES].max() * true
    counts = np.random.default_rng(1 + seed).poisson(photons[:N_FRAMES])
    observations = PatternObservations(counts, TIMES[:N_FRAMES], OPTICS, start)
    found = fit(observations, MODEL, time_budget_s=time_budget_s, seed=seed)
    return PatternCase(photons, counts, found, forecast_patterns(found, TIMES))


def patterns(name: str, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True intensities (2 N_FRAMES, size, size), and where the particles start."""
    rng = np.random.default_rng(seed)
    start = disc_start(N, 0.87, rng)
    x = _diffusing(start, strength, rng) if name == "diffusing" else _driven(start, name, strength)
    if name != "leaving":
        return np.stack([OPTICS.intensity(at) for at in x]), start
    # One after the other some particles leave the beam's focus, half of them during the run: where they go nobody sees.
    n_leaving = round(strength * N)
    leaves_s = np.full(N, np.inf)
    leaves_s[rng.permutation(N)[:n_leaving]] = TIMES[-1] * (np.arange(n_leaving) + 0.5) / max(n_leaving, 1)
    return np.stack([OPTICS.intensity(at[leaves_s > t]) for t, at in zip(TIMES, x, strict=True)]), start


def _driven(start: np.ndarray, name: str, strength: float) -> np.ndarray:
    """(2 N_FRAMES, n, 2) by sums over all pairs and an adaptive integrator, neither of which the fit knows."""
    usual = _crowd(start).mean()

    def rate(t_s: float, y: np.ndarray) -> np.ndarray:
        x = y.reshape(-1, 2)
        step, r = _apart(x)
        force = SYSTEM.radial_force(r)
        if name == "three_body":
            force = force * (1.0 + strength * 0.1 * (_crowd(x) - usual))
        if name == "anisotropic":
            force = force + strength * along_x(r) * (2.0 * step[..., 0] ** 2 / r**2 - 1.0)
        ease = np.exp(-strength * t_s / 2.0) if name == "stiffening" else 1.0
        return (ease * ((force / r)[..., None] * step).sum(axis=1)).ravel()

    solved = solve_ivp(rate, TIMES[[0, -1]], start.ravel(), "DOP853", TIMES, rtol=1e-7, atol=1e-9)
    return solved.y.T.reshape(len(TIMES), -1, 2)


def along_x(r: np.ndarray) -> np.ndarray:
    """What goes with cos 2 phi: as strong as the radial force."""
    return 0.08 * r * np.clip(1.0 - r / 0.75, 0.0, None) ** 2


def _apart(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, n, 2) steps from the second to the first particle, and their lengths; 1 of a particle to itself."""
    step = x[:, None] - x[None]
    return step, np.hypot(step[..., 0], step[..., 1]) + np.eye(len(x))


def _crowd(x: np.ndarray) -> np.ndarray:
    """(n, n) how many particles are near either of two."""
    step = x[:, None] - x[None]
    near = np.exp(-(step**2).sum(axis=-1) / 0.3**2).sum(axis=1) - 1.0
    return near[:, None] + near[None]


def _diffusing(start: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """The seed's particles with Brownian motion, D = strength x 1e-3 um^2/s."""
    h = float(TIMES[1]) / NOISE_STEPS

    def velocity(x: np.ndarray) -> np.ndarray:
        step, r = _apart(x)
        return ((SYSTEM.radial_force(r) / r)[..., None] * step).sum(axis=1)

    x, out = start, [start]
    for _ in TIMES[1:]:
        for _ in range(NOISE_STEPS):
            noise = np.sqrt(2e-3 * strength * h) * rng.standard_normal(x.shape)
            first = velocity(x)
            x = x + 0.5 * h * (first + velocity(x + h * first + noise)) + noise
        out.append(x)
    return np.stack(out)
