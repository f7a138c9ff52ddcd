"""Squares of photon residuals with a Huber cut, for searches that begin far from the answer.

They are smoother than the deviance of ``photon_information`` where the prediction is dark, which single photons make
steep; where the answer is near, the deviance is the better measure. Weights are those of the *prediction*: weights from
the data would favour dark speckles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import Float64Array

HUBER = 3.0
"""Residual in units of its noise from which on it pulls no harder."""
DARK = 0.1
"""Photons added to the expected ones, so that dark pixels keep a finite weight."""


def photon_residual(counts: NDArray[Any], expected: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Counts minus expected photons in units of their noise, and the weight of each square under the Huber cut."""
    residual = (counts - expected) / np.sqrt(expected + DARK)
    return residual, np.minimum(1.0, HUBER / np.maximum(np.abs(residual), 1e-12))
