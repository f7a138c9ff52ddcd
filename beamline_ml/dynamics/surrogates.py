"""Surrogate particles: as many as a computer can afford, at the measured density, started as the sample was.

Each group of ensemble members gets particles, wave vectors and noise of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from beamline_ml.dynamics.compression import ABSOLUTE_SCALE_SPREAD, log_s_of
from beamline_ml.dynamics.counting_noise import relative_counting_variance
from beamline_ml.dynamics.flow import Surrogates
from beamline_ml.dynamics.matched_start import matched_start
from beamline_ml.dynamics.model import DynamicsModel
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.shells import Shells, shells_of_box
from beamline_ml.dynamics.shown_noise import speckle_counts
from beamline_ml.records import Float64Array, IntArray

MAX_VECTORS_PER_RING = 160
"""Of each box, which are few: with too few modes a ring of surrogates scatters more than the data do."""
MATCHED_PER_RING = 120
"""Wave vectors of a ring on which a start is made to scatter as the sample did."""
LONGEST_GAP = 40
"""Blocks in a gap, or before the run, that are integrated as finely as the run is; longer ones more coarsely."""
FIRST_BLOCKS = 5
"""From which S at the beginning is extrapolated."""
ORDERED_CHI2 = 2.5
"""Mean square of log S at the beginning over its error, above which a sample is taken to have some order then."""


@dataclass(frozen=True)
class Scene:
    """The box, the density, the range of the force and the rings: what all members share."""

    number_density_per_um2: float
    """Nominal where the sample does not say."""
    box_um: float
    cutoff_um: float
    velocity_scale_um_per_s: float
    """v0: the unit of the coefficients; the neighbours within the cutoff together move a particle by a few cutoffs."""
    edges_inv_um: Float64Array
    """(n_q, 2)."""
    n_boxes: int
    n_per_box: int
    steps_per_time: int
    start_structure_factor: Float64Array = field(default_factory=lambda: np.empty(0))
    """(n_q,) S of each ring at time 0; empty: particles start without order."""
    waiting_s: float = 0.0
    """How long before time 0 the particles were without order."""

    def surrogates(self, times_s: Float64Array, rng: np.random.Generator) -> tuple[Surrogates, Shells]:
        """Particles, their noise and the wave vectors they are seen at, for the given times."""
        n = self.n_boxes * self.n_per_box
        grid, snapshots = time_grid(self.waiting_s + times_s, self.steps_per_time)
        start = self._start(rng.uniform(0.0, self.box_um, (n, 2)), rng)
        path = np.zeros((len(grid), n, 2))
        steps = np.sqrt(np.diff(grid))[:, None, None]
        np.cumsum(steps * rng.standard_normal((len(grid) - 1, n, 2)), axis=0, out=path[1:])
        shells = shells_of_box(self.box_um, self.edges_inv_um, MAX_VECTORS_PER_RING, rng)
        return Surrogates(start, self.n_boxes, self.box_um, grid, snapshots, path), shells

    def _start(self, unordered_um: Float64Array, rng: np.random.Generator) -> Float64Array:
        if not len(self.start_structure_factor):
            return unordered_um
        shells = shells_of_box(self.box_um, self.edges_inv_um, MATCHED_PER_RING, rng)
        return matched_start(unordered_um, self.n_boxes, shells, self.start_structure_factor)


def ring_edges(q_inv_um: Float64Array) -> Float64Array:
    """(n_q, 2) low and high edge of each ring, halfway to its neighbours."""
    if len(q_inv_um) == 1:
        return np.array([[0.8, 1.2]]) * q_inv_um[0]
    order = np.argsort(q_inv_um)
    q = q_inv_um[order]
    between = 0.5 * (q[1:] + q[:-1])
    low = np.concatenate([[max(0.5 * q[0], 1.5 * q[0] - 0.5 * q[1])], between])
    high = np.concatenate([between, [1.5 * q[-1] - 0.5 * q[-2]]])
    edges = np.empty((len(q), 2))
    edges[order] = np.column_stack([low, high])
    return edges


def make_scene(observations: CorrelationObservations, model: DynamicsModel) -> Scene:
    """Choose box, density and cutoff for a run."""
    edges = ring_edges(observations.q_inv_um)
    # The lowest ring must hold wave vectors of the box.
    smallest_box = 2.0 * np.pi / float(edges[:, 1].min()) * 1.3
    density = observations.number_density_per_um2
    if density is None:
        box = max(smallest_box, 2.0 * np.pi / float(observations.q_inv_um.min()) * 1.3)
        density, n_per_box = model.n_per_box / box**2, model.n_per_box
    else:
        box = max(smallest_box, float(np.sqrt(model.n_per_box / density)))
        n_per_box = max(2, round(density * box**2))
    reach = model.cutoff_um or max(3.2 / np.sqrt(density), 2.0 * np.pi / float(observations.q_inv_um.max()))
    reach = float(min(reach, 0.45 * box))
    velocity = velocity_scale(reach, density, float(observations.times_s[-1]))
    return Scene(
        density,
        box,
        reach,
        velocity,
        edges,
        model.n_boxes,
        n_per_box,
        model.steps_per_time,
        start_structure_factor(observations),
        observations.waiting_s,
    )


def velocity_scale(cutoff_um: float, number_density_per_um2: float, duration_s: float) -> float:
    """v0 in um/s: all neighbours within the cutoff together move a particle by a few cutoffs in the run."""
    return 3.0 * cutoff_um / (duration_s * max(1.0, number_density_per_um2 * cutoff_um**2))


def start_structure_factor(observations: CorrelationObservations) -> Float64Array:
    """(n_q,) S at the beginning of the observation, to start with; empty: particles start without order.

    That is so where they were without order a known time before, S is not known, or it is 1 as far as can be told, or
    smaller by the same factor in all rings.
    """
    if observations.waiting_s > 0.0 or not observations.absolute:
        return np.empty(0)
    log_s, counting = log_s_of(observations), relative_counting_variance(observations)
    if observations.stationary:
        at_0, unsure = log_s.mean(axis=1), counting.mean(axis=1)
    else:
        at_0, unsure = _at_the_beginning(observations.times_s, log_s, counting)
    variance = ABSOLUTE_SCALE_SPREAD**2 + 1.0 / speckle_counts(observations) + unsure
    # Too little in all rings alike is no order, but fewer particles or less light than the scale stands for.
    order = at_0 - min(float(np.average(at_0, weights=1.0 / variance)), 0.0)
    return np.exp(at_0) if float((order**2 / variance).mean()) > ORDERED_CHI2 else np.empty(0)


def _at_the_beginning(
    times_s: Float64Array, log_s: Float64Array, counting: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """(n_q,) log S at time 0 by the first blocks, and its variance: what counting adds, and how much it bends.

    It is that of a line through them, and as much of a parabola's bend as rings show beyond that of counting noise,
    whose variance is ``counting`` (n_q, n_times).
    """
    n = min(FIRST_BLOCKS, len(times_s))
    line, parabola = (np.linalg.pinv(np.vander(times_s[:n], degree + 1))[-1] for degree in (1, 2))
    bend = log_s[:, :n] @ (parabola - line)
    by_chance = counting[:, :n] @ (parabola - line) ** 2
    share = float(np.clip(1.0 - by_chance.sum() / max(float((bend**2).sum()), 1e-300), 0.0, 1.0))
    weights = line + share * (parabola - line)
    return log_s[:, :n] @ weights, share * bend**2 + counting[:, :n] @ weights**2


def time_grid(times_s: Float64Array, steps_per_time: int) -> tuple[Float64Array, IntArray]:
    """Integration grid from 0 through all times, and the index of each time on it."""
    knots = times_s if times_s[0] == 0 else np.append(0.0, times_s)
    widest = float(np.median(np.diff(knots))) / steps_per_time
    pieces = [np.zeros(1)]
    for low, high in pairwise(knots):
        n = min(max(1, int(np.ceil((high - low) / widest - 1e-9))), LONGEST_GAP * steps_per_time)
        pieces.append(low + (high - low) * np.arange(1, n + 1) / n)
    grid = np.concatenate(pieces)
    return grid, np.abs(grid[None, :] - times_s[:, None]).argmin(axis=1).astype(np.int64)
