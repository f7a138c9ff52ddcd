"""Swarmalators: particles that swarm and oscillate, each of which changes the other.

O'Keeffe, Hong and Strogatz, Nat. Commun. 8, 1504 (2017), with equal natural frequencies (in the frame that turns with
them): dx_i/dt = (1/N) sum_j [ (1 + J cos(theta_j - theta_i)) u - u / r ], dtheta_i/dt = (K/N) sum_j
sin(theta_j - theta_i) / r, u the unit vector from i to j. The repulsion and the coupling diverge at contact; below
``core`` they stay what they are there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.systems.motion import runge_kutta
from beamline_ml.records import Float64Array


@dataclass(frozen=True, slots=True)
class Swarmalators:
    """The published law in physical units."""

    j: float = 1.0
    """How much more those of like phase attract each other."""
    k: float = -0.1
    """Phase coupling: positive synchronises."""
    n_particles: int = 100
    """N, by which the sums are divided."""
    length_um: float = 1.0
    """What one length unit of the published system is, in um."""
    time_s: float = 1.0
    """What one time unit is, in s."""
    core: float = 0.05
    """Distance in length units below which forces grow no further."""

    def kernel(self, r_um: Float64Array) -> Float64Array:
        """(3, n_r): force and its phase-dependent part in um/s per neighbour (positive repels), coupling in rad/s."""
        r = np.maximum(np.asarray(r_um, np.float64) / self.length_um, self.core)
        speed, rate = self.length_um / self.time_s / self.n_particles, 1.0 / self.time_s / self.n_particles
        return np.stack([speed * (1.0 / r - 1.0), np.full_like(r, -speed * self.j), rate * self.k / r])

    def trajectory(self, start: Float64Array, times_s: Float64Array, steps_per_time: int = 6) -> Float64Array:
        """States (n_times, n, 3): x, y in um, phase in rad.

        Parameters
        ----------
        start
            (n, 3) state at times_s[0].
        """

        def rates(_: float, state: Float64Array) -> Float64Array:
            apart = state[:, None, :2] - state[None, :, :2]
            r = np.maximum(np.hypot(apart[..., 0], apart[..., 1]), 1e-9)
            difference = state[None, :, 2] - state[:, None, 2]
            f, g, k = self.kernel(r.ravel()).reshape(3, *r.shape)
            push = (f + g * np.cos(difference)) / r
            velocity = (push[..., None] * apart).sum(axis=1)
            return np.column_stack([velocity, (k * np.sin(difference)).sum(axis=1)])

        return runge_kutta(rates, start, times_s, steps_per_time)
