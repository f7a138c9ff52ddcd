"""A source that fluctuates as a whole: a rigid cloud of scatterers whose centre goes round like prey and predators.

Lotka, J. Am. Chem. Soc. 42, 1595 (1920) and Volterra, Nature 118, 558 (1926): dX/dt = X (a - b Y),
dY/dt = Y (d X - c). The centre of the cloud is at ``length_um`` (X - c / d, Y - a / b): the fixed point lies in the
middle of the beam. The case is one of Andrejevic et al., npj Comput Mater 10, 225 (2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.systems.motion import runge_kutta
from beamline_ml.records import Float64Array


@dataclass(frozen=True, slots=True)
class FluctuatingSource:
    """Rates in 1/s; the published case's numbers."""

    a: float = 1.0 / 3.0
    b: float = 2.0 / 3.0
    c: float = 0.5
    d: float = 0.5
    length_um: float = 0.6
    """How far the centre moves for one unit of X or Y."""

    @property
    def middle(self) -> Float64Array:
        """(2,) fixed point (X, Y)."""
        return np.array([self.c / self.d, self.a / self.b])

    def velocity(self, u_um: Float64Array) -> Float64Array:
        """(..., 2) um/s at centres (..., 2) um."""
        x, y = np.moveaxis(u_um / self.length_um + self.middle, -1, 0)
        return self.length_um * np.stack([x * (self.a - self.b * y), y * (self.d * x - self.c)], axis=-1)

    def trajectory(self, start_um: Float64Array, times_s: Float64Array, steps_per_time: int = 20) -> Float64Array:
        """Centres (n_times, 2) um from the one at times_s[0]."""
        return runge_kutta(lambda _, u: self.velocity(u), start_um, times_s, steps_per_time)

    def invariant(self, u_um: Float64Array) -> Float64Array:
        """What the motion conserves: d X - c ln X + b Y - a ln Y, at (..., 2) um."""
        x, y = np.moveaxis(u_um / self.length_um + self.middle, -1, 0)
        return np.asarray(self.d * x - self.c * np.log(x) + self.b * y - self.a * np.log(y), np.float64)


def cloud(n: int, radius_um: float, rng: np.random.Generator) -> Float64Array:
    """Points of a Gaussian cloud around the origin, (n, 2) um."""
    return radius_um * rng.standard_normal((n, 2))
