"""What moves a particle without its neighbours: drift, shear, a trap, expansion."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array

SHAPES = {"velocity_um_per_s": (2,), "gradient_per_s": (2, 2), "about_um": (2,)}


@dataclass(frozen=True, eq=False)
class OneBody:
    """A velocity that depends on the place alone: u(x) = velocity + gradient (x - about).

    Raises
    ------
    FitRefused
        When an array has another shape or is not finite.
    """

    velocity_um_per_s: Float64Array
    """(2,) at ``about_um``."""
    gradient_per_s: Float64Array = field(default_factory=lambda: np.zeros((2, 2)))
    """(2, 2) [d, e]: how component d changes with coordinate e."""
    about_um: Float64Array = field(default_factory=lambda: np.zeros(2))
    """(2,)."""

    def __post_init__(self) -> None:
        for name, shape in SHAPES.items():
            value = np.array(getattr(self, name), np.float64)
            if value.shape != shape or not np.isfinite(value).all():
                raise FitRefused(f"The drift's {name} {value.tolist()} is not finite of shape {shape}.", "Correct it.")
            object.__setattr__(self, name, value)

    def velocities(self, x_um: Float64Array) -> Float64Array:
        """(n, 2) um/s at positions (n, 2) um."""
        return self.velocity_um_per_s + (x_um - self.about_um) @ self.gradient_per_s.T

    def around(self, point_um: Float64Array) -> OneBody:
        """The same field, written around another point (2,)."""
        return OneBody(self.velocities(point_um), self.gradient_per_s, point_um)

    @property
    def parameters(self) -> Float64Array:
        """(6,) velocity, then the gradient row by row."""
        return np.concatenate([self.velocity_um_per_s, self.gradient_per_s.ravel()])

    def with_parameters(self, first: Float64Array) -> OneBody:
        """The field with the first of its parameters replaced: none, the velocity (2,), or all (6,)."""
        values = np.append(first, self.parameters[len(first) :])
        return OneBody(values[:2], values[2:].reshape(2, 2), self.about_um)

    def add_tangents(self, x_um: Float64Array, tangent: Float64Array, own: slice, out_tangent: Float64Array) -> None:
        """Add the derivatives of the velocities.

        Parameters
        ----------
        tangent, out_tangent
            (n, 2, m) derivatives of positions, and of velocities, to m parameters.
        own
            Which of these are the field's own: none, the velocity, or all six.
        """
        for d, (by_x, by_y) in enumerate(self.gradient_per_s):
            out_tangent[:, d] += by_x * tangent[:, 0] + by_y * tangent[:, 1]
        lever = np.column_stack([np.ones(len(x_um)), x_um - self.about_um])
        # Component 0 is moved by the parameters 0, 2, 3; component 1 by 1, 4, 5.
        for d, numbers in enumerate(((0, 2, 3), (1, 4, 5))):
            for part, number in enumerate(numbers):
                if number < own.stop - own.start:
                    out_tangent[:, d, own.start + number] += lever[:, part]
