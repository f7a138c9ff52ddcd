"""Ensembles of surrogates: many laws, each with its particles set in motion and looked at as a run is.

Members come in groups that share particles and noise, so that within a group only the law differs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.compression import Compressed
from beamline_ml.dynamics.flow import Surrogates, move
from beamline_ml.dynamics.shells import Shells, shell_values, squared
from beamline_ml.dynamics.surrogates import Scene
from beamline_ml.errors import FitRefused
from beamline_ml.records import BoolArray, Float64Array, IntArray

N_GROUPS = 4
LOST_AFTER_BOXES = 1e3
"""A particle that went so far was thrown there by a force too stiff for the step."""


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

    def differences(self, target: Compressed) -> Float64Array:
        """(n_alive, n_rows) member minus data, in units of the data's noise."""
        return np.stack([target.differences(a, b) for a, b in zip(self.f2, self.log_s, strict=True)])

    def misfit(self, target: Compressed) -> float:
        """Mean square of (mean of the members minus data) per row, freed of the members' own noise.

        That needs members which share neither particles nor noise.
        """
        off = self.differences(target)
        return float((off.mean(axis=0) ** 2 - off.var(axis=0, ddof=1) / len(off)).mean())


def simulate(
    scene: Scene, shared: tuple[Surrogates, Shells], parameters: Float64Array
) -> tuple[Float64Array, Float64Array] | None:
    """f^2 (n_q, n_times, n_times) and log S (n_q, n_times) of one member; None when its motion is not finite.

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

    Raises
    ------
    FitRefused
        When fewer than half of the members have finite motion.
    """
    return _simulated(scene, times_s, parameters, groups_of(len(parameters)), seed, n_threads)


def simulate_one(
    scene: Scene, times_s: Float64Array, parameters: Float64Array, n_sets: int, seed: int, n_threads: int
) -> Ensemble:
    """As :func:`simulate_all`, one law (n_parameters,) with so many independent sets of particles and noise."""
    return _simulated(scene, times_s, np.tile(parameters, (n_sets, 1)), np.arange(n_sets), seed, n_threads)


def _simulated(
    scene: Scene, times_s: Float64Array, parameters: Float64Array, groups: IntArray, seed: int, n_threads: int
) -> Ensemble:
    with ThreadPoolExecutor(n_threads) as threads:
        seeds = np.random.SeedSequence(seed).generate_state(int(groups.max()) + 1)
        made = list(threads.map(lambda own: scene.surrogates(times_s, np.random.default_rng(int(own))), seeds))
        jobs = [threads.submit(simulate, scene, made[g], p) for g, p in zip(groups, parameters, strict=True)]
        results = [job.result() for job in jobs]
    alive = [k for k, result in enumerate(results) if result is not None]
    if len(alive) < max(4, len(parameters) // 2):
        raise FitRefused(
            f"Only {len(alive)} of {len(parameters)} ensemble members have finite motion.",
            "The force is too stiff for the step: raise steps_per_time, or shorten the cutoff.",
        )
    kept = [result for result in results if result is not None]
    f2, log_s = (np.stack(part) for part in zip(*kept, strict=True))
    return Ensemble(parameters[alive], groups[alive], f2, log_s)


def groups_of(n_members: int) -> IntArray:
    """(n_members,) group of each member: antithetic pairs stay together and share particles and noise."""
    return (np.arange(n_members) // 2) % N_GROUPS


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
    group = np.concatenate([each.group + N_GROUPS * k for k, each in enumerate(ensembles)])
    return Ensemble(
        np.concatenate([each.parameters for each in ensembles]),
        np.unique(group, return_inverse=True)[1],
        np.concatenate([each.f2 for each in ensembles]),
        np.concatenate([each.log_s for each in ensembles]),
    )
