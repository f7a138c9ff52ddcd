"""What a forecast of patterns is off by, where its law does not describe the run: as much as it was on the run itself.

Particles that a wrong law has in wrong places, off by Gaussian chance with the standard deviation d along each axis,
scatter a field that has exp(-q^2 d^2 / 2) of the true one in it. Of speckles with the mean intensity L, a share
f2 = exp(-q^2 d^2) of the pattern I is then still known: the best guess is f2 I + (1 - f2) L, with the variance
(1 - f2)^2 L^2 + 2 f2 (1 - f2) I L (that of |f E + sqrt(1 - f2) E'|^2 for a circular Gaussian field E'), and two such
patterns differ by 2 (1 - f2) L^2 in the mean square. From what was missed in the contest follows d there.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from beamline_ml.dynamics.pattern_contest import UNRELATED
from beamline_ml.records import Float64Array

AT_ONCE = 0.25
"""Part of the mean square displacement in the contest that is there at the end of the run; what comes later grows in
proportion to the time, as the way of particles with a wrong speed does."""
NEARLY_UNRELATED = 0.99
"""Part of ``UNRELATED`` at most, which no displacement reaches."""


def grown(ahead_s: Float64Array, asked_s: float) -> Float64Array:
    """(n_times,) mean square error over that in the contest, which looked ``asked_s`` ahead; 0 until the run ends."""
    return np.where(ahead_s > 0.0, AT_ONCE + (ahead_s / asked_s) ** 2, 0.0)


def square_displacement_um2(missed: float, light: Float64Array, q_inv_um: Float64Array) -> float:
    """The mean square displacement along each axis that makes patterns differ by ``missed``.

    Parameters
    ----------
    missed
        Mean square difference over the mean of light^2, over all pixels.
    light, q_inv_um
        (size, size) mean photons, 0 where a pixel is not used, and momentum transfer in 1/um.
    """
    weight = light**2 / max(float((light**2).sum()), 1e-300)
    q2 = q_inv_um**2
    seen = q2[(weight > 0.0) & (q2 > 0.0)]
    if missed <= 0.0 or not seen.size:
        return 0.0
    most = NEARLY_UNRELATED * UNRELATED * float(weight[q2 > 0.0].sum())

    def beyond(square_um2: float) -> float:
        return UNRELATED * float((weight * -np.expm1(-q2 * square_um2)).sum()) - min(missed, most)

    return float(brentq(beyond, 0.0, 50.0 / float(seen.min())))


def of_displaced(
    photons: Float64Array, light: Float64Array, q_inv_um: Float64Array, square_um2: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """What is left of patterns (n_times, size, size) after displacements (n_times,), and its variance in photons^2."""
    kept = np.exp(-(q_inv_um**2) * square_um2[:, None, None])
    lost = 1.0 - kept
    return kept * photons + lost * light, lost**2 * light**2 + 2.0 * kept * lost * photons * light
