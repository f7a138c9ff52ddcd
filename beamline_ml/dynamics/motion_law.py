"""What moves particles, as the integrator sees it: a pair force, its dependence on direction, a drift.

Every term is linear in its parameters, which stand in one order everywhere: coefficients of the radial force, of each
angular spline, then the drift's velocity and gradient as far as they are fitted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from beamline_ml.dynamics.angular_kernel import angular_tangent
from beamline_ml.dynamics.neighbours import Pairs
from beamline_ml.dynamics.one_body import OneBody
from beamline_ml.dynamics.pair_kernel import pair_tangent, pair_velocity
from beamline_ml.records import Float64Array


@dataclass(frozen=True, eq=False)
class MotionLaw:
    """A law of motion, and which of its numbers are parameters."""

    splines: Float64Array
    """(1 + 2 H, n_coefficients) um/s: radial force, then a_1, b_1, a_2, ... of ``angular_kernel``."""
    cutoff_um: float
    drift: OneBody | None = None
    n_drift: int = 0
    """How many of the drift's numbers are parameters: 0, 2 (its velocity) or 6 (its gradient, too)."""

    @classmethod
    def radial(cls, coefficients: Float64Array, cutoff_um: float) -> MotionLaw:
        """A radial pair force alone, coefficients (n_coefficients,) in um/s."""
        return cls(np.ascontiguousarray(coefficients)[None, :], cutoff_um)

    @property
    def is_radial(self) -> bool:
        """Whether nothing but a radial pair force moves particles."""
        return len(self.splines) == 1 and self.drift is None

    @property
    def is_free(self) -> bool:
        """Whether nothing but noise moves particles."""
        return self.is_radial and not self.splines.any()

    @property
    def n_parameters(self) -> int:
        """Of the whole law."""
        return self.splines.size + self.n_drift

    @property
    def parameters(self) -> Float64Array:
        """(n_parameters,) in um/s, the drift's gradient in 1/s."""
        drift = np.empty(0) if self.drift is None else self.drift.parameters[: self.n_drift]
        return np.concatenate([self.splines.ravel(), drift])

    def with_parameters(self, values: Float64Array) -> MotionLaw:
        """The law with other parameters (n_parameters,); what is not one stays."""
        n = self.splines.size
        drift = None if self.drift is None else self.drift.with_parameters(values[n:])
        return replace(self, splines=values[:n].reshape(self.splines.shape), drift=drift)

    def add_velocities(self, x: Float64Array, box_um: float, pairs: Pairs, out: Float64Array) -> None:
        """Add velocities to ``out`` (n, 2) um/s; positions (n, 2) um."""
        if len(self.splines) == 1:
            pair_velocity(x, box_um, pairs.first, pairs.second, self.splines[0], self.cutoff_um, out)
        else:
            none = np.empty((*x.shape, 0))
            angular_tangent(x, box_um, pairs.first, pairs.second, self.splines, self.cutoff_um, none, out, none)
        if self.drift is not None:
            out += self.drift.velocities(x)

    def add_tangents(
        self,
        x: Float64Array,
        box_um: float,
        pairs: Pairs,
        tangent: Float64Array,
        out: Float64Array,
        out_tangent: Float64Array,
    ) -> None:
        """Add velocities and their derivatives (n, 2, m) to m parameters, of which the law's come first."""
        first, second, cutoff = pairs.first, pairs.second, self.cutoff_um
        if len(self.splines) == 1:
            pair_tangent(x, box_um, first, second, self.splines[0], cutoff, tangent, out, out_tangent)
        else:
            angular_tangent(x, box_um, first, second, self.splines, cutoff, tangent, out, out_tangent)
        if self.drift is not None:
            out += self.drift.velocities(x)
            self.drift.add_tangents(x, tangent, slice(self.splines.size, self.n_parameters), out_tangent)
