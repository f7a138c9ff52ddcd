"""A second opinion on a crystal's phonons, from an interatomic potential, and how it is brought into our convention.

Pretrained potentials know the shape of a density of states well and put it a few per cent too low (they are too soft:
Deng et al., npj Comput. Mater. 11, 9 (2025)); the network knows where it lies. So a second opinion is always looked at
with its frequencies stretched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import savgol_filter

from beamline_ml.phonons.windows import POINTS_INV_CM, window_shares
from beamline_ml.records import Float64Array

_PUBLISHED_START_INV_CM = -2.41422
"""Where the raw densities behind the published targets begin, imaginary modes apart; the filter feels its edge."""


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """Harmonic density of states of one crystal from a potential, real modes only."""

    step_inv_cm: float
    """Spacing of the frequencies, which begin at 0."""
    dos: Float64Array
    """(n,) density in any unit."""
    imaginary_share: float
    """Share of the 3N modes that came out imaginary; they are not in ``dos``."""
    seconds: float
    """Time it took."""
    source: str
    """Which potential, by which program, on which supercell."""

    @property
    def mean_inv_cm(self) -> float:
        """Mean frequency in cm^-1."""
        frequency = self.step_inv_cm * np.arange(len(self.dos))
        return float(frequency @ self.dos / self.dos.sum())

    def shares(self, stretch: float = 1.0) -> Float64Array:
        """(72,) share of the modes per window, with all frequencies stretched."""
        return window_shares(0.0, self.step_inv_cm * stretch, self.dos)

    def points(self, stretch: float = 1.0) -> Float64Array:
        """(51,) the published convention, maximum 1, with all frequencies stretched."""
        frequency = self.step_inv_cm * stretch * np.arange(len(self.dos))
        grid = np.arange(_PUBLISHED_START_INV_CM, frequency[-1] + 1.0)
        return published_points(grid, np.interp(grid, frequency, self.dos, left=0.0, right=0.0))


def published_points(frequencies_inv_cm: Float64Array, dos: Float64Array) -> Float64Array:
    """The published 51-point target of a raw density of states: smoothed, clipped, sampled, maximum 1.

    The published recipe (Chen et al., Adv. Sci. 8, 2004214 (2021)): Savitzky-Golay filter with 101 points and cubic
    polynomials on the raw grid of 1 cm^-1; shorter densities are padded with zeros.
    """
    step = frequencies_inv_cm[1] - frequencies_inv_cm[0]
    padding = max(0, 101 - len(dos))
    grid = np.concatenate([frequencies_inv_cm, frequencies_inv_cm[-1] + step * np.arange(1, padding + 1)])
    smooth = np.clip(savgol_filter(np.pad(dos, (0, padding)), 101, 3), 0.0, None)
    points = np.interp(POINTS_INV_CM, grid, smooth, left=0.0, right=0.0)
    scaled: Float64Array = points / points.max()
    return scaled
