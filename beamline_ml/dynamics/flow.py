"""Motion of surrogate particles and its derivative to every parameter, integrated by torchdiffeq.

Additive noise makes the stochastic equation dx = u(x) dt + sqrt(2 D) dw an ordinary one for y = x - sqrt(2 D) w(t),
w a fixed path (Doss 1977, Sussmann 1978): dy/dt = u(y + sqrt(2 D) w(t)). torchdiffeq integrates y together with the
tangents dy/dp of all parameters p = (those of the law, log D); the fused kernels of ``pair_kernel`` and
``angular_kernel`` do the work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torchdiffeq import odeint

from beamline_ml.dynamics.cell_kernel import add_cell_velocities
from beamline_ml.dynamics.motion_law import MotionLaw
from beamline_ml.dynamics.neighbours import Pairs, build_pairs, n_cells_along, still_valid
from beamline_ml.records import Float64Array, IntArray

METHOD = "heun2"
"""Of second order also with noise, because that is additive; Euler's method heats what a cluster holds together."""


@dataclass(frozen=True, slots=True)
class Surrogates:
    """Independent periodic boxes of particles with the noise they will feel."""

    start_um: Float64Array
    """(n_boxes * n_per_box, 2)."""
    n_boxes: int
    box_um: float
    """Edge of a box; 0 = open space."""
    grid_s: Float64Array
    """(n_steps + 1,) integration grid, starting at 0."""
    snapshots: IntArray
    """(n_times,) indices into the grid at which observables are taken, increasing."""
    path: Float64Array
    """(n_steps + 1, n_particles, 2) standard Brownian path w(t) in sqrt(s), zero at 0."""

    def until(self, n_times: int) -> Surrogates:
        """The same particles, only up to the given snapshot."""
        last = int(self.snapshots[n_times - 1])
        return Surrogates(
            self.start_um,
            self.n_boxes,
            self.box_um,
            self.grid_s[: last + 1],
            self.snapshots[:n_times],
            self.path[: last + 1],
        )


class _Field:
    """Right-hand side for torchdiffeq: velocities, and tangents where asked."""

    def __init__(self, particles: Surrogates, law: MotionLaw, diffusion: float) -> None:
        self._particles = particles
        self._law = law
        cutoff_um = law.cutoff_um
        self._amplitude = float(np.sqrt(2.0 * diffusion))
        self._pairs: Pairs | None = None
        # A skin pays only where particles need several steps to cross it.
        longest_step = float(np.diff(particles.grid_s).max()) if len(particles.grid_s) > 1 else 0.0
        self._skin_um = 0.2 * cutoff_um if 16.0 * self._amplitude * np.sqrt(longest_step) < 0.2 * cutoff_um else 0.0
        self._by_cells = self._skin_um == 0.0 and law.is_radial and n_cells_along(particles.box_um, cutoff_um) > 0

    def positions(self, step: int, y: Float64Array) -> Float64Array:
        return y + self._amplitude * self._particles.path[step]

    def _neighbours(self, x: Float64Array) -> Pairs:
        if self._pairs is None or not still_valid(self._pairs, x):
            expected = 0 if self._pairs is None else int(1.2 * len(self._pairs.first))
            particles = self._particles
            self._pairs = build_pairs(
                x, particles.box_um, self._law.cutoff_um, particles.n_boxes, self._skin_um, capacity=expected
            )
        return self._pairs

    def _step(self, t: torch.Tensor) -> int:
        return int(np.searchsorted(self._particles.grid_s, float(t) + 1e-9, side="right") - 1)

    def velocity(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        particles, law = self._particles, self._law
        if law.is_free:
            return torch.zeros_like(y)
        x = self.positions(self._step(t), y.numpy())
        out = np.zeros_like(x)
        if self._by_cells:
            add_cell_velocities(x, particles.box_um, particles.n_boxes, law.splines[0], law.cutoff_um, out)
        else:
            law.add_velocities(x, particles.box_um, self._neighbours(x), out)
        return torch.from_numpy(out)

    def with_tangents(
        self, t: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        step = self._step(t)
        x = self.positions(step, state[0].numpy())
        tangent = state[1].numpy().copy()
        tangent[:, :, -1] += 0.5 * self._amplitude * self._particles.path[step]
        pairs = self._neighbours(x)
        out, out_tangent = np.zeros_like(x), np.zeros_like(tangent)
        self._law.add_tangents(x, self._particles.box_um, pairs, tangent, out, out_tangent)
        return torch.from_numpy(out), torch.from_numpy(out_tangent)


def move(
    particles: Surrogates, coefficients: Float64Array, cutoff_um: float, diffusion: float, method: str = METHOD
) -> Float64Array:
    """As :func:`follow`, under a radial pair force with spline coefficients (n_coefficients,) in um/s."""
    return follow(particles, MotionLaw.radial(coefficients, cutoff_um), diffusion, method)


def move_with_tangents(
    particles: Surrogates, coefficients: Float64Array, cutoff_um: float, diffusion: float, method: str = METHOD
) -> tuple[Float64Array, Float64Array]:
    """As :func:`follow_with_tangents`, under a radial pair force."""
    return follow_with_tangents(particles, MotionLaw.radial(coefficients, cutoff_um), diffusion, method)


def follow(particles: Surrogates, law: MotionLaw, diffusion: float, method: str) -> Float64Array:
    """Positions at the snapshots, (n_times, n_particles, 2) um; ``method`` is a fixed-step one of torchdiffeq."""
    field = _Field(particles, law, diffusion)
    grid = torch.from_numpy(particles.grid_s)
    times = _output_times(particles)
    y = odeint(
        field.velocity,
        torch.from_numpy(particles.start_um),
        times,
        method=method,
        options={"grid_constructor": lambda *_: grid},
    )
    skip = len(times) - len(particles.snapshots)
    return np.stack([field.positions(int(k), y[n + skip].numpy()) for n, k in enumerate(particles.snapshots)])


def follow_with_tangents(
    particles: Surrogates,
    law: MotionLaw,
    diffusion: float,
    method: str,
    start_tangent: Float64Array | None = None,
) -> tuple[Float64Array, Float64Array]:
    """Positions and their derivatives at the snapshots.

    Parameters
    ----------
    start_tangent
        (n, 2, m) derivative of the start itself to m > n_parameters parameters, the law's first and log D last; None:
        there are no others, and the start depends on none.

    Returns
    -------
    x, tangents
        (n_times, n, 2) um and (n_times, n, 2, m): derivative to each parameter of the law, then to log D.
    """
    field = _Field(particles, law, diffusion)
    grid = torch.from_numpy(particles.grid_s)
    times = _output_times(particles)
    start = torch.from_numpy(particles.start_um)
    if start_tangent is None:
        start_tangent = np.zeros((*particles.start_um.shape, law.n_parameters + 1))
    y, tangents = odeint(
        field.with_tangents,
        (start, torch.from_numpy(start_tangent)),
        times,
        method=method,
        options={"grid_constructor": lambda *_: grid},
    )
    skip = len(times) - len(particles.snapshots)
    x = np.stack([field.positions(int(k), y[n + skip].numpy()) for n, k in enumerate(particles.snapshots)])
    tangent = tangents[skip:].numpy()
    tangent[..., -1] += 0.5 * np.sqrt(2.0 * diffusion) * particles.path[particles.snapshots]
    return x, tangent


def _output_times(particles: Surrogates) -> torch.Tensor:
    """Snapshot times, preceded by 0 where the first snapshot is later: torchdiffeq starts at its first time."""
    times = particles.grid_s[particles.snapshots]
    return torch.from_numpy(times if particles.snapshots[0] == 0 else np.append(0.0, times))
