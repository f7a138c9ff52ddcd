"""Forward motion of interacting Brownian particles without sensitivities: dx_i = sum_j f(r_ij) e_ij dt + sqrt(2 D) dW.

Euler-Maruyama; where the step is a fraction of the force's relaxation time its statistics are those of the exact
process (checked in tests against the Einstein relation and against half the step).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from beamline_ml.dynamics.neighbours import build_pairs, still_valid
from beamline_ml.dynamics.pair_kernel import pair_velocity
from beamline_ml.records import Float64Array


def brownian_motion(
    x_um: Float64Array,
    box_um: float,
    coefficients: Float64Array,
    cutoff_um: float,
    diffusion_um2_per_s: float,
    step_s: float,
    n_steps: int,
    rng: np.random.Generator,
    hold: int = 1,
) -> Iterator[Float64Array]:
    """Positions after 0, 1, ..., n_steps - 1 steps, (n, 2) um, unwrapped (add multiples of the box to wrap).

    Parameters
    ----------
    x_um
        Start, (n, 2).
    box_um
        Edge of the periodic box in um; 0 for open space.
    coefficients, cutoff_um
        Spline of the radial force in um/s, positive repels.
    hold
        Renew the forces only every so many steps, where steps are much shorter than the forces need.
    """
    x = np.array(x_um, dtype=np.float64)
    skin = 0.7 * cutoff_um
    pairs = build_pairs(x, box_um, cutoff_um, skin_um=skin)
    noise = np.sqrt(2.0 * diffusion_um2_per_s * step_s)
    velocity = np.zeros_like(x)
    for step in range(n_steps):
        yield x
        if step % hold == 0:
            if not still_valid(pairs, x):
                pairs = build_pairs(x, box_um, cutoff_um, skin_um=skin)
            velocity[:] = 0.0
            pair_velocity(x, box_um, pairs.first, pairs.second, coefficients, cutoff_um, velocity)
        x = x + step_s * velocity
        if noise > 0.0:
            x += noise * rng.standard_normal(x.shape)
