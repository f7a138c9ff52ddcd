"""A beam that is led over an object in a spiral, while the stage drifts.

du/dt = A (u - u_0) with A = [[growth, -turn], [turn, growth]] (a logarithmic spiral) and a centre u_0 on the object.
Ptychographic scans follow spirals; where the encoder is wrong, the path must be found from the patterns (Andrejevic et
al., npj Comput Mater 10, 225 (2024)). To first order in its rate, a stage that drifts steadily shifts u_0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.systems.motion import runge_kutta
from beamline_ml.records import Float64Array


@dataclass(frozen=True, slots=True)
class ProbeScan:
    """A spiral outwards."""

    turn_per_s: float = 0.8
    """Angular velocity in rad/s."""
    growth_per_s: float = 0.02
    """Relative growth of the radius."""
    drag_per_um2: float = 0.15
    """How much slower the stage turns farther out: turn / (1 + drag r^2)."""
    center_um: tuple[float, float] = (0.1, -0.2)

    def velocity(self, u_um: Float64Array) -> Float64Array:
        """(..., 2) um/s of the beam at (..., 2) um."""
        apart = u_um - np.array(self.center_um)
        turn = self.turn_per_s / (1.0 + self.drag_per_um2 * (apart**2).sum(axis=-1, keepdims=True))
        across = np.stack([-apart[..., 1], apart[..., 0]], axis=-1)
        return np.asarray(self.growth_per_s * apart + turn * across, np.float64)

    def trajectory(self, start_um: Float64Array, times_s: Float64Array, steps_per_time: int = 10) -> Float64Array:
        """Beam positions (n_times, 2) um from the one at times_s[0]."""
        return runge_kutta(lambda _, u: self.velocity(u), start_um, times_s, steps_per_time)


def textured_object(n: int, extent_um: float, rng: np.random.Generator) -> Float64Array:
    """Grains of a known object, (n, 2) um, evenly in a square around the origin, without two at one place."""
    return rng.uniform(-0.5 * extent_um, 0.5 * extent_um, (n, 2))
