"""A lattice of phase oscillators that pull nearby phases together and push farther ones apart.

dtheta_i/dt = sum_j k(r_ij) sin(theta_j - theta_i) with k(r) = K (1 - r^2 / (2 s^2)) exp(-r^2 / (2 s^2)), the
Laplacian of a Gaussian with its sign turned: the locally coupled Kuramoto lattice in the code of Andrejevic et al., npj
Comput Mater 10, 225 (2024) (there s = 1.5 lattice constants), without natural frequencies and with open edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.systems.motion import runge_kutta
from beamline_ml.records import Float64Array


@dataclass(frozen=True, slots=True)
class KuramotoLattice:
    """A square lattice of oscillators."""

    size: int = 16
    """Oscillators along an edge."""
    spacing_um: float = 0.25
    coupling_per_s: float = 0.15
    """K."""
    width_um: float = 0.375
    """s: phases nearer than sqrt(2) s are pulled together."""

    @property
    def positions_um(self) -> Float64Array:
        """(size^2, 2) around the origin."""
        axis = self.spacing_um * (np.arange(self.size) - 0.5 * (self.size - 1))
        return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)

    def kernel(self, r_um: Float64Array) -> Float64Array:
        """Coupling in rad/s at distance r, (n_r,)."""
        u = np.asarray(r_um, np.float64) ** 2 / (2.0 * self.width_um**2)
        return np.asarray(self.coupling_per_s * (1.0 - u) * np.exp(-u), np.float64)

    def start(self, rng: np.random.Generator) -> Float64Array:
        """Random phases on the lattice, (size^2, 3): x, y in um, phase in rad."""
        return np.column_stack([self.positions_um, rng.uniform(0.0, 2.0 * np.pi, self.size**2)])

    def trajectory(self, start: Float64Array, times_s: Float64Array, steps_per_time: int = 4) -> Float64Array:
        """States (n_times, n, 3) from the state (n, 3) at times_s[0]."""
        apart = start[:, None, :2] - start[None, :, :2]
        coupling = self.kernel(np.hypot(apart[..., 0], apart[..., 1]))

        def rates(_: float, phase: Float64Array) -> Float64Array:
            return np.asarray((coupling * np.sin(phase[None, :] - phase[:, None])).sum(axis=1), np.float64)

        phases = runge_kutta(rates, start[:, 2], times_s, steps_per_time)
        places = np.broadcast_to(start[:, :2], (len(times_s), len(start), 2))
        return np.concatenate([places, phases[..., None]], axis=2)
