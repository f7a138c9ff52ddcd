"""Ensembles of surrogates: many laws, each with its particles set in motion and looked at as a run is.

To learn from, members come in groups that share particles and noise, so that within a group only the law differs. To
foretell with, each has its own, so that their mean has little noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from beamline_ml.dynamics.compression import Compressed
from beamline_ml.dynamics.flow import Surrogates, move
from beamline_ml.dynamics.shells import Shells, noise_of_squared, shell_values, squared
from beamline_ml.dynamics.surrogates import Scene
from beamline_ml.errors import FitRefused
from beamline_ml.records import BoolArray, Float64Array, IntArray

MEMBERS_PER_GROUP = 4
"""Two antithetic pairs. In larger groups, all members together would stand on fewer particles and their noise."""
LOST_AFTER_BOXES = 1e3
"""A particle that went so far was thrown there by a force too stiff for the step."""

_Seen = tuple[Float64Array, Float64Array]
"""f^2 (n_q, n_times, n_times) and log S (n_q, n_times) of one member."""


@dataclass(frozen=True)
class Ensemble:
    """Members with finite motion, and what they did."""

    parameters: Float64Array
    """(n_alive, n_parameters)."""
    group: IntArray
    """(n_alive,) who shares particles and noise."""
    f2: Float64Array
    """(n_alive, n_q, n_times, n_times)."""
    log_s: Float64Array
    """(n_alive, n_q, n_times)."""
    n_modes: Float64Array
    """(n_q,) of each member and ring; their number is what a member's own noise comes from."""

    def f2_variance(self, spread: float = 1.0) -> Float64Array:
        """(n_q, n_times, n_times) of f^2 about the mean of the members.

        It is that of the laws, were they drawn without ``spread``, and what is left of the noise in the mean; the noise
        of single members is taken off.
        """
        return self._about_the_mean(self.f2, noise_of_squared(self.f2.mean(axis=0), self.n_modes), spread)

    def log_s_variance(self) -> Float64Array:
        """(n_q, n_times) of log S about the mean of the members, as :meth:`f2_variance`."""
        return self._about_the_mean(self.log_s, 1.0 / self.n_modes[:, None], 1.0)

    def _about_the_mean(self, values: Float64Array, noise: Float64Array, spread: float) -> Float64Array:
        """What part of a ring's variance is no noise, all its times together tell better than a single one."""
        total, times = values.var(axis=0, ddof=1), tuple(range(1, values.ndim - 1))
        noise = np.broadcast_to(noise, total.shape)
        of_ring = noise.sum(axis=times, keepdims=True) / np.maximum(total.sum(axis=times, keepdims=True), 1e-300)
        laws = np.clip(1.0 - of_ring, 0.0, None) * total / spread**2
        return np.asarray(laws + noise / len(np.unique(self.group)), np.float64)

    def averaged_over_ages(self) -> Ensemble:
        """Of a stationary sample: f^2 of equal lags is alike; how little noise that leaves is not counted upon."""
        n = self.f2.shape[2]
        by_lag = np.stack([np.diagonal(self.f2, k, 2, 3).mean(axis=2) for k in range(n)], axis=2)
        f2 = by_lag[:, :, np.abs(np.arange(n)[None, :] - np.arange(n)[:, None])]
        return replace(self, f2=f2, log_s=np.zeros_like(self.log_s), n_modes=np.full_like(self.n_modes, np.inf))

    def differences(self, target: Compressed) -> Float64Array:
        """(n_alive, n_rows) member minus data, in units of the data's noise."""
        return np.stack([target.differences(a, b) for a, b in zip(self.f2, self.log_s, strict=True)])

    def misfit(self, target: Compressed) -> float:
        """Mean square of (mean of the members minus data) per row, freed of the members' own noise.

        That needs members which share neither particles nor noise.
        """
        off = self.differences(target)
        return float((off.mean(axis=0) ** 2 - off.var(axis=0, ddof=1) / len(off)).mean())


def simulate(scene: Scene, shared: tuple[Surrogates, Shells], parameters: Float64Array) -> _Seen | None:
    """What is seen of one member; None when its motion is not finite.

    ``shared``: particles, noise and wave vectors of the member's group.
    """
    particles, shells = shared
    try:
        coefficients = scene.velocity_scale_um_per_s * parameters[:-1]
        x = move(particles, coefficients, scene.cutoff_um, float(np.exp(parameters[-1])))
    except FitRefused:
        return None
    if not np.isfinite(x).all() or np.abs(x - particles.start_um).max() > LOST_AFTER_BOXES * scene.box_um:
        return None
    values = shell_values(x, scene.n_boxes, shells)
    return squared(values.f, shells.modes(scene.n_boxes)), values.log_s


def simulate_all(scene: Scene, times_s: Float64Array, parameters: Float64Array, seed: int, n_threads: int) -> Ensemble:
    """Set members with these parameters (n_members, n_parameters) in motion and look at them at ``times_s``.

    Members come in groups that share particles and noise.

    Raises
    ------
    FitRefused
        When fewer than half of the members have finite motion.
    """
    groups = groups_of(len(parameters))
    with ThreadPoolExecutor(n_threads) as threads:
        made = list(threads.map(lambda own: scene.surrogates(times_s, own), _generators(seed, int(groups.max()) + 1)))
        jobs = [threads.submit(simulate, scene, made[g], p) for g, p in zip(groups, parameters, strict=True)]
        return _alive(scene, parameters, groups, [job.result() for job in jobs], made[0][1])


def simulate_apart(
    scene: Scene, times_s: Float64Array, parameters: Float64Array, seed: int, n_threads: int
) -> Ensemble:
    """As :func:`simulate_all`, each member with particles and noise of its own."""

    def one(own: np.random.Generator, p: Float64Array) -> tuple[_Seen | None, Shells]:
        made = scene.surrogates(times_s, own)
        return simulate(scene, made, p), made[1]

    with ThreadPoolExecutor(n_threads) as threads:
        seen, shells = zip(*threads.map(one, _generators(seed, len(parameters)), parameters), strict=True)
    return _alive(scene, parameters, np.arange(len(parameters)), seen, shells[0])


def _generators(seed: int, n: int) -> list[np.random.Generator]:
    """Independent ones."""
    return [np.random.default_rng(int(own)) for own in np.random.SeedSequence(seed).generate_state(n)]


def _alive(
    scene: Scene, parameters: Float64Array, groups: IntArray, seen: Sequence[_Seen | None], shells: Shells
) -> Ensemble:
    alive = [k for k, one in enumerate(seen) if one is not None]
    if len(alive) < max(4, len(parameters) // 2):
        raise FitRefused(
            f"Only {len(alive)} of {len(parameters)} ensemble members have finite motion.",
            "The force is too stiff for the step: raise steps_per_time, or shorten the cutoff.",
        )
    f2, log_s = (np.stack(part) for part in zip(*[one for one in seen if one is not None], strict=True))
    return Ensemble(parameters[alive], groups[alive], f2, log_s, shells.modes(scene.n_boxes))


def groups_of(n_members: int) -> IntArray:
    """(n_members,) group of each member: antithetic pairs stay together and share particles and noise."""
    return (np.arange(n_members) // 2) % max(n_members // MEMBERS_PER_GROUP, 1)


def without_each(group: IntArray) -> list[tuple[BoolArray, IntArray]]:
    """For each group: who is left without it (n_members,), and in which groups, numbered from zero without gaps."""
    left = [group != one for one in np.unique(group)]
    return [(kept, np.unique(group[kept], return_inverse=True)[1]) for kept in left]


def jackknife(without: Float64Array) -> Float64Array:
    """Covariance (n_parameters, n_parameters) of an estimate, from those without one group each (n_groups, ...).

    Efron and Stein, Annals of Statistics 9, 586 (1981), equation 1.4.
    """
    off = without - without.mean(axis=0)
    return np.asarray((len(without) - 1) / len(without) * off.T @ off, np.float64)


def pooled(ensembles: list[Ensemble]) -> Ensemble:
    """All members of several ensembles as one, in groups numbered from zero without gaps."""
    first = np.cumsum([0, *(each.group.max() + 1 for each in ensembles)])
    group = np.concatenate([each.group + start for each, start in zip(ensembles, first, strict=False)])
    return Ensemble(
        np.concatenate([each.parameters for each in ensembles]),
        np.unique(group, return_inverse=True)[1],
        np.concatenate([each.f2 for each in ensembles]),
        np.concatenate([each.log_s for each in ensembles]),
        ensembles[0].n_modes,
    )
